"""The simulated engine keeps the laws that a real one cannot break."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sharing.engine import A10G, A100, Engine, Hardware
from benchmarks.sharing.job import Job

SMALL = Hardware("small", 10.0, 5.0, 0.1, 1.0, 2.0, pool_tokens=200, slots=4, chunk_tokens=32)
lengths = st.tuples(st.integers(1, 100), st.integers(1, 100))


def job(number: int, prompt_tokens: int, output_tokens: int) -> Job:
    """A job that needs so much."""
    return Job(str(number), "ann", 0.0, prompt_tokens, output_tokens)


def finish(engine: Engine) -> tuple[list[Job], float]:
    """Step until nothing is left; who ended, and how long it took in ms."""
    ended: list[Job] = []
    now_ms = 0.0
    while (step_ms := engine.begin()) is not None:
        now_ms += step_ms
        assert engine.kv_tokens <= engine.hardware.pool_tokens
        assert engine.running <= engine.hardware.slots
        ended += engine.end().finished
    return ended, now_ms


@given(st.lists(lengths, max_size=12))
def test_every_job_ends_and_memory_is_never_overfull(jobs: list[tuple[int, int]]) -> None:
    """Whatever is asked for is served once, within pool and slots, and everything is free afterwards."""
    engine = Engine(SMALL)
    asked = [job(number, *each) for number, each in enumerate(jobs)]
    for each in asked:
        engine.submit(each)
    ended, _ = finish(engine)
    assert sorted(each.id for each in ended) == sorted(each.id for each in asked)
    assert (engine.kv_tokens, engine.running, len(engine.waiting)) == (0, 0, 0)
    # Each token is computed once, but for what an eviction throws away; the last of an answer is not read back.
    least = sum(each.prompt_tokens + each.output_tokens - 1 for each in asked)
    assert engine.tokens_computed == least if not engine.evictions else engine.tokens_computed > least


@given(
    st.lists(lengths, min_size=1, max_size=8), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), max_size=8)
)
def test_whoever_leaves_takes_nothing_along(jobs: list[tuple[int, int]], leaving: list[tuple[int, int]]) -> None:
    """Cancelled at any step, also in the midst of one, a job gives everything back and the others end."""
    engine = Engine(SMALL)
    asked = [job(number, *each) for number, each in enumerate(jobs)]
    for each in asked:
        engine.submit(each)
    left: set[str] = set()
    ended: set[str] = set()
    step = 0
    while engine.begin() is not None:
        for number, at in leaving:
            if at == step and number < len(asked) and engine.knows(asked[number]):
                engine.cancel(asked[number])
                left.add(str(number))
        ended |= {each.id for each in engine.end().finished}
        step += 1
    assert ended | left == {each.id for each in asked}
    assert not ended & left
    assert (engine.kv_tokens, engine.running) == (0, 0)


def test_an_answer_grows_by_a_token_a_step() -> None:
    """After the prompt is read there is one token, then one more with each step, visible at the step's end."""
    engine = Engine(SMALL)
    only = job(0, 40, 5)
    engine.submit(only)
    seen = []
    while engine.begin() is not None:
        during = engine.output_tokens(only)
        outcome = engine.end()
        seen.append((during, 5 if outcome.finished else engine.output_tokens(only), bool(outcome.first_tokens)))
    # 40 tokens of prompt take two steps of 32.
    assert seen == [(0, 0, False), (0, 1, True), (1, 2, False), (2, 3, False), (3, 4, False), (4, 5, False)]


def test_the_youngest_goes_when_memory_is_full_and_tells_its_first_token_once() -> None:
    """An evicted answer is read anew and goes on; nobody hears of it."""
    engine = Engine(SMALL)
    jobs = [job(number, 60, 60) for number in range(3)]
    for each in jobs:
        engine.submit(each)
    begun: list[str] = []
    ended: list[str] = []
    while engine.begin() is not None:
        outcome = engine.end()
        begun += [each.id for each in outcome.first_tokens]
        ended += [each.id for each in outcome.finished]
    assert engine.evictions > 0
    assert engine.kv_tokens_max <= SMALL.pool_tokens
    assert (begun, ended) == (["0", "1", "2"], ["0", "1", "2"])


def test_a_job_that_can_never_fit_is_refused() -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="never fit"):
        Engine(SMALL).submit(job(0, 150, 51))


@pytest.mark.parametrize("prompt_tokens", [256, 512, 1000])
def test_the_constants_of_the_a10g_give_the_measured_times(prompt_tokens: int) -> None:
    """Alone, a prompt takes a quarter of a millisecond a token, and a token of the answer 33 ms; at 19 running, 42."""
    engine = Engine(A10G)
    engine.submit(job(0, prompt_tokens, 2))
    read_ms, decode_ms = engine.begin(), 0.0
    assert read_ms == pytest.approx(0.25 * prompt_tokens + 11, abs=2)
    engine.end()
    decode_ms = engine.begin() or 0.0
    assert decode_ms == pytest.approx(33, abs=1)
    assert A10G.step_ms(19, 19 * 384) == pytest.approx(41, abs=2)


def test_large_hardware_is_limited_by_arithmetic_only_in_large_steps() -> None:
    """A step of few tokens costs the reading of the weights; a full chunk costs its arithmetic."""
    assert A100.step_ms(1, 0) == A100.step_ms(32, 0) == A100.floor_ms + A100.host_ms
    assert A100.step_ms(2048, 0) == pytest.approx(145 + A100.host_ms, abs=2)
