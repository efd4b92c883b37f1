"""How fast an engine is: exact on engines whose costs are known, and what holds of a real one on any machine."""

from collections.abc import AsyncIterator, Callable
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.clock import SystemClock
from server.embedded.llama import Llama
from server.engines import timing
from server.engines.calibration import Calibration, Together, calibrate, costs_of, knee_of
from server.engines.contention import SETS_MAX, Resident, contention, sets_of
from server.engines.openai_compatible import OpenAICompatible
from server.engines.protocol import Reply
from server.engines.timing import ANSWER_TOKENS, LONG_WORDS, RETRIES_MAX, RUNS, SHORT_WORDS, Asker
from server.errors import EngineFailed
from server.messages import Surface
from tests.conftest import adapter
from tests.engines.virtual import Machine, VirtualEngine
from tests.stand_ins.openai_engine import MODEL, Order

PREFILL_US, STEP_US = 70, 2_000


def nonces() -> Callable[[], str]:
    """Texts that were never sent before."""
    numbers = count()
    return lambda: f"nonce-{next(numbers)}"


def made(model: str, *, prefill_us: float, output_cost: int) -> Calibration:
    """A calibration in which only the costs matter."""
    return Calibration(
        engine=model,
        model=model,
        prefill_us=prefill_us,
        decode_us=prefill_us,
        first_token_ms=1,
        together=(Together(1, 1.0),),
        knee=1,
        output_cost=output_cost,
    )


async def test_known_costs_are_measured_exactly_though_tokens_come_in_bursts() -> None:
    """Up to four answers at a time a step takes as long as for one, then as much more as there are answers."""
    machine = Machine(lambda running: STEP_US * max(running, 4) // 4)
    engine = VirtualEngine(machine, prefill_us=PREFILL_US, slots=16)
    found = await calibrate(engine, "m", clock=machine, nonce=nonces(), answers_max=16)
    assert (found.prefill_us, found.decode_us) == pytest.approx((PREFILL_US, STEP_US))
    assert [(each.answers, round(each.tokens_per_s)) for each in found.together] == [
        (1, 500),
        (2, 1_000),
        (4, 2_000),
        (8, 2_000),
        (16, 2_000),
    ]
    assert found.knee == 4
    # With four at a time a token takes 500 µs of the box, and a prompt token 70.
    assert found.output_cost == 7
    assert engine.open_now == 0


async def test_more_answers_are_tried_only_while_they_bring_something() -> None:
    """After two doublings for nothing the engine is left alone, whatever it may take."""
    machine = Machine(lambda running: STEP_US * running)
    engine = VirtualEngine(machine, slots=128, prefill_us=PREFILL_US)
    found = await calibrate(engine, "m", clock=machine, nonce=nonces())
    assert [each.answers for each in found.together] == [1, 2, 4]
    assert (found.knee, machine.running_max) == (1, 4)


@settings(max_examples=12, deadline=None)
@given(prefill_us=st.integers(1, 5_000), step_us=st.integers(1, 100_000), at_once=st.sampled_from([1, 2, 4]))
async def test_whatever_an_engine_costs_is_found(prefill_us: int, step_us: int, at_once: int) -> None:
    """Times, the knee and the cost of a token follow from the engine's own costs alone."""
    machine = Machine(lambda running: step_us * -(-running // at_once))
    engine = VirtualEngine(machine, prefill_us=prefill_us)
    found = await calibrate(engine, "m", clock=machine, nonce=nonces(), answers_max=4)
    assert (found.prefill_us, found.decode_us) == pytest.approx((prefill_us, step_us))
    assert found.knee == at_once
    assert found.output_cost == pytest.approx(max(step_us / at_once / prefill_us, 1), abs=0.5001)


async def test_time_that_does_not_pass_is_told_and_tried_again() -> None:
    """No figure comes of a clock that stands still, and the error says how often that was tried."""
    machine = Machine(lambda _: 0)
    engine = VirtualEngine(machine)
    with pytest.raises(EngineFailed, match=f"tried again {RETRIES_MAX} times"):
        await calibrate(engine, "m", clock=machine, nonce=nonces())
    assert engine.opened == 1 + 2 * RUNS * (1 + RETRIES_MAX)
    assert engine.open_now == 0


async def test_rates_that_cannot_be_are_not_believed() -> None:
    """Two answers that take a quarter of the time of one are a fault of the clock."""
    machine = Machine(lambda running: STEP_US // (4 if running > 1 else 1))
    engine = VirtualEngine(machine, prefill_us=PREFILL_US)
    with pytest.raises(EngineFailed, match="tried again"):
        await calibrate(engine, "m", clock=machine, nonce=nonces())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [({"longest": 5}, "too little to measure"), ({"tells_usage": False}, "tells no usage"), ({"fails_after": 9}, "It")],
)
async def test_an_engine_that_cannot_be_measured_says_why_and_is_left(fault: dict[str, Any], reason: str) -> None:
    """Short answers, no usage, a broken stream: an error, no figure, and no connection that stays open."""
    machine = Machine(lambda _: STEP_US)
    engine = VirtualEngine(machine, prefill_us=PREFILL_US)
    vars(engine).update(fault)
    with pytest.raises(EngineFailed, match=reason):
        await calibrate(engine, "m", clock=machine, nonce=nonces())
    assert engine.open_now == 0


async def test_an_engine_that_does_not_count_cannot_be_measured(engine_url: str, order: Order) -> None:
    """A clear error, and no guess: its prompts are all of one length."""
    order.tokens = 3
    engine = OpenAICompatible(engine_url, slots=2, silence_ms_max=2_000)
    try:
        with pytest.raises(EngineFailed, match="too little to measure"):
            await calibrate(engine, MODEL, clock=SystemClock(), nonce=nonces())
    finally:
        await engine.close()


class Counted:
    """The real llama.cpp, but time passes only by the tokens that it says it has read and written."""

    def __init__(self, engine: OpenAICompatible) -> None:
        self.engine, self.name, self.slots = engine, engine.name, engine.slots
        self.machine = Machine(lambda _: 0)
        self.open_now = self.opened = 0
        self.breaks_at = -1

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> Reply:
        """As the engine does."""
        self.opened += 1
        if self.opened == self.breaks_at:
            raise EngineFailed("It broke.")
        reply = await self.engine.open(surface, body, request_id, salt)
        self.open_now += 1
        return CountedReply(self, reply, body["max_tokens"], len(body["messages"][0]["content"].split()))


class CountedReply:
    """An answer that takes its time by the count."""

    def __init__(self, engine: Counted, reply: Reply, tokens: int, words: int) -> None:
        self._engine, self._reply, self._us = engine, reply, PREFILL_US * words + STEP_US * tokens
        self.read, self.expect_tokens = reply.read, reply.expect_tokens

    async def chunks(self) -> AsyncIterator[bytes]:
        """The engine's bytes."""
        async for chunk in self._reply.chunks():
            yield chunk
        self._engine.machine.now_us += self._us

    def close(self) -> None:
        """Hang up."""
        self._engine.open_now -= 1
        self._reply.close()


async def test_a_real_engine_is_asked_as_it_should_be(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp writes as many tokens as it is told to, all steps are tried, and no connection stays open."""
    monkeypatch.setattr(timing, "RUNS", 1)  # counts do not vary
    engine = adapter(llama, name="tiny")
    counted = Counted(engine)
    try:
        (model,) = await engine.probe()
        asker = Asker(counted, model.id, clock=counted.machine, nonce=nonces())  # type: ignore[arg-type]
        short, long = await asker.ask(SHORT_WORDS, 1), await asker.ask(LONG_WORDS, 1)
        assert long.input_tokens - short.input_tokens >= LONG_WORDS - SHORT_WORDS
        assert (short.output_tokens, long.output_tokens) == (1, 1)
        both = await asker.together(2, ANSWER_TOKENS)
        assert both.output_tokens == 2 * ANSWER_TOKENS
        found = await calibrate(
            counted,  # type: ignore[arg-type]
            model.id,
            clock=counted.machine,
            nonce=nonces(),
            answers_max=engine.slots,
        )
        assert [each.answers for each in found.together] == [1, 2, 4]
        assert found.decode_us == pytest.approx(STEP_US)
        counted.breaks_at = counted.opened + 3
        with pytest.raises(EngineFailed, match="It broke"):
            await asker.together(4, ANSWER_TOKENS)
        assert counted.open_now == 0
    finally:
        await engine.close()


async def test_models_leave_each_other_what_the_machine_can_do() -> None:
    """A machine that takes turns leaves each of two the half, and each of three a third."""
    machine = Machine(lambda running: STEP_US * running)
    engines = [VirtualEngine(machine, name=name) for name in ("a", "b", "c")]
    residents: dict[str, Resident] = {engine.name: (engine, "m") for engine in engines}
    found = await contention(residents, clock=machine, nonce=nonces())
    assert [set(each.left) for each in found] == [{"a", "b"}, {"a", "c"}, {"b", "c"}, {"a", "b", "c"}]
    for each in found:
        assert all(left == pytest.approx(1 / len(each.left)) for left in each.left.values())
    assert [engine.open_now for engine in engines] == [0, 0, 0]


async def test_engines_on_machines_of_their_own_leave_each_other_everything() -> None:
    """Nothing is lost where a step takes as long for two as for one."""
    machine = Machine(lambda _: STEP_US)
    residents: dict[str, Resident] = {name: (VirtualEngine(machine, name=name), "m") for name in ("a", "b")}
    (found,) = await contention(residents, clock=machine, nonce=nonces())
    assert found.left == pytest.approx({"a": 1, "b": 1})


async def test_one_that_breaks_while_others_are_timed_ends_it() -> None:
    """Its own fault is told, and no answer goes on."""
    machine = Machine(lambda running: STEP_US * running)
    one, other = VirtualEngine(machine, name="one"), VirtualEngine(machine, name="other")
    other.fails_after = 2 * RUNS + 2  # in the background
    with pytest.raises(EngineFailed, match="It broke"):
        await contention({"one": (one, "m"), "other": (other, "m")}, clock=machine, nonce=nonces())
    assert (one.open_now, other.open_now) == (0, 0)


@given(st.integers(0, 40))
def test_sets_are_bounded_and_hold_all_models_together(models: int) -> None:
    """Pairs come first, each set once, and the last is the whole."""
    names = [str(number) for number in range(models)]
    sets = sets_of(names)
    assert len(sets) == len(set(sets)) <= SETS_MAX
    assert sets == sorted(sets, key=len)
    assert (sets[-1:] == [tuple(names)]) is (models > 1)


def test_the_knee_is_where_more_answers_add_nothing() -> None:
    """A tenth more is worth it, less is not; what comes after a flat part does not count."""
    rates = [(1, 100.0), (2, 180.0), (4, 190.0), (8, 400.0)]
    assert knee_of([Together(*each) for each in rates]) == 2


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=8))
def test_the_knee_is_one_of_the_numbers_that_were_tried(rates: list[float]) -> None:
    """And up to it every doubling was worth it."""
    together = [Together(2**power, rate) for power, rate in enumerate(rates)]
    knee = knee_of(together)
    until = [each for each in together if each.answers <= knee]
    assert until[-1].answers == knee
    assert all(later.tokens_per_s >= 1.1 * earlier.tokens_per_s for earlier, later in pairwise(until))


def test_costs_are_told_in_prompt_tokens_of_the_fastest_model() -> None:
    """A model that takes ten times as long costs ten times as much; of two engines that have it the faster counts."""
    found = [made("small", prefill_us=50, output_cost=4), made("large", prefill_us=500, output_cost=3)]
    slower = made("small", prefill_us=900, output_cost=9)
    assert costs_of([*found, slower]) == costs_of([slower, *found]) == {"small": (1, 4), "large": (10, 30)}
    assert costs_of([]) == {}
