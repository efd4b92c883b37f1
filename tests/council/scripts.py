"""Members that do what a test has written down, in a time that passes as soon as everybody waits for it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from server.council.calls import Call, Ended, Part, Said, Seat, Used
from server.council.events import OVER, Content, Event, Joined, Member, Text, Usage, Verdict
from server.council.table import Brief, Conclusion, Strategy, Table
from server.errors import EngineFailed, WirthforgeError
from tests.clocks import FakeClock

# What wakes in a step has gone as far as it can after so many rounds of the event loop.
ROUNDS = 40
QUESTION = ({"role": "user", "content": "What is six times seven?"},)
RANK = {"waiting": 0, "answering": 1}


async def pass_rounds(count: int = ROUNDS) -> None:
    """Let everybody else go on."""
    for _ in range(count):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


class Time(FakeClock):
    """A clock that jumps to the next moment somebody waits for."""

    def next_ms(self) -> int | None:
        """That moment; None if nobody waits for one."""
        waits = [wakes for wakes, turn in self._sleepers if not turn.done()]
        return max(min(waits) // timedelta(milliseconds=1), self.monotonic_ms()) if waits else None

    def jump(self, to_ms: int) -> None:
        """To a moment."""
        self.advance(timedelta(milliseconds=to_ms - self.monotonic_ms()))


@dataclass(frozen=True)
class Script:
    """What a member does when it is asked.

    Attributes:
        text: said in as many pieces as it has words.
        queue_ms: that it stands in a queue, which is told every second, before anything else.
        wait_ms, word_ms: before the first word, and for each.
        error: raised after the text.
        lets_go_ms: how long its context takes to be left.
        hangs: nothing comes after the text, not even an end.
    """

    text: str = "Answer: 42"
    queue_ms: int = 0
    wait_ms: int = 100
    word_ms: int = 10
    error: WirthforgeError | Exception | None = None
    hangs: bool = False
    end: str = "stop"
    thought: str = ""
    lets_go_ms: int = 0


def broken(text: str = "", wait_ms: int = 100, code: str = "engine_failed") -> Script:
    """A member whose engine fails after this text."""
    return Script(text, wait_ms=wait_ms, error=EngineFailed("The engine has died.", code=code))


@dataclass
class Cast:
    """An `Ask`: all members and what they do, by label and role, else by label, else by role.

    Attributes:
        calls: in the order in which they were made.
        begun_ms: when, in the same order.
        open_now: those whose context nobody has left.
    """

    clock: Time
    scripts: Mapping[Any, Script | Sequence[Script]]
    calls: list[Call] = field(default_factory=list)
    begun_ms: list[int] = field(default_factory=list)
    open_now: int = 0

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[AsyncIterator[Part]]:
        """Play it."""
        self.calls.append(call)
        self.begun_ms.append(self.clock.monotonic_ms())
        self.open_now += 1
        script = self._script(call)
        try:
            for _ in range(script.queue_ms // 1_000):
                if call.is_leader and call.on_wait is not None:
                    call.on_wait()
                await self.clock.sleep_ms(1_000)
            yield self._parts(script)
        finally:
            if script.lets_go_ms:
                await self.clock.sleep_ms(script.lets_go_ms)
            self.open_now -= 1

    def _script(self, call: Call) -> Script:
        for key in ((call.seat.label, call.role), call.seat.label, call.role):
            found = self.scripts.get(key)
            if found is not None and (call.role == "member" or key != call.seat.label):
                if isinstance(found, Script):
                    return found
                number = sum(1 for other in self.calls if (other.seat, other.role) == (call.seat, call.role))
                return found[min(number, len(found)) - 1]
        return Script()

    async def _parts(self, script: Script) -> AsyncIterator[Part]:
        await self.clock.sleep_ms(script.wait_ms)
        if script.thought:
            yield Said(script.thought, is_thought=True)
        for word in script.text.split(" ") if script.text else []:
            yield Said(word + " ")
            await self.clock.sleep_ms(script.word_ms)
        if script.hangs:
            await asyncio.get_running_loop().create_future()
        yield Used(Usage(prompt_tokens=10, completion_tokens=len(script.text.split())))
        if script.error is not None:
            raise script.error
        yield Ended(script.end)

    def roles(self, role: str) -> list[str]:
        """The labels of those who were asked in this role."""
        return [call.seat.label for call in self.calls if call.role == role]


def seats(*models: str, context_tokens: int | None = 8_192) -> tuple[Seat, ...]:
    """A, B, … with these models, each on an engine of its own; a model that comes again is another sample."""
    return tuple(
        Seat(
            label=chr(ord("A") + index),
            model=model,
            engine=f"engine-{model}",
            sample=models[:index].count(model),
            context_tokens=context_tokens,
        )
        for index, model in enumerate(models)
    )


class Council:
    """A table with a cast, and everything that it has told."""

    def __init__(
        self,
        scripts: Mapping[Any, Script | Sequence[Script]],
        models: Sequence[str] | tuple[Seat, ...] = ("m-one", "m-two", "m-three"),
        *,
        more: Sequence[Seat] = (),
        seed: int = 7,
        **brief: Any,
    ) -> None:
        self.clock = Time()
        self.cast = Cast(self.clock, scripts)
        self.events: list[Event] = []
        self.spare = list(more)
        places = tuple(seat for seat in models if isinstance(seat, Seat)) or seats(*[str(each) for each in models])
        self.table = Table(
            Brief(**{"question": QUESTION, "seats": places, **brief}),
            ask=self.cast,
            clock=self.clock,
            chance=Random(seed),  # noqa: S311 (shuffles)
            emit=self.events.append,
            more=self._more,
        )

    async def _more(self) -> Seat | None:
        return self.spare.pop(0) if self.spare else None

    async def play(self, strategy: Strategy) -> Conclusion:
        """Run it to its end, and check what holds for every council."""
        task = asyncio.ensure_future(self.table.run(strategy))
        await self.until(task)
        assert self.cast.open_now == 0
        check_order(self.events)
        return task.result()

    async def until(self, task: "asyncio.Future[Any]", ms: int | None = None) -> None:
        """Let time pass until it is done, or until then."""
        for _ in range(10_000):
            await pass_rounds()
            if task.done():
                return
            next_ms = self.clock.next_ms()
            assert next_ms is not None, "everybody waits, and nobody for the time"
            if ms is not None and next_ms > ms:
                return
            self.clock.jump(next_ms)
        raise AssertionError("it does not end")

    def lines(self, label: str, role: str = "member") -> list[Member]:
        """What was told of somebody."""
        return [line for line in self.events if isinstance(line, Member) and (line.label, line.role) == (label, role)]

    def state(self, label: str, role: str = "member") -> str:
        """How it ended for somebody."""
        return self.lines(label, role)[-1].state

    @property
    def verdict(self) -> Verdict:
        """The one there is."""
        (verdict,) = [event for event in self.events if isinstance(event, Verdict)]
        return verdict

    @property
    def content(self) -> str:
        """The final answer, as a client puts it together."""
        text = ""
        for event in self.events:
            if isinstance(event, Content):
                text = event.text if event.is_restart else text + event.text
        return text


def check_order(events: Sequence[Event]) -> None:
    """What events.py says of their order; of a council that failed, as far as it went."""
    states: dict[tuple[str, str], str] = {}
    content = [index for index, event in enumerate(events) if isinstance(event, Content)]
    verdicts = [index for index, event in enumerate(events) if isinstance(event, Verdict)]
    assert len(verdicts) <= 1
    if verdicts:
        assert content
        assert content[-1] < verdicts[0] == len(events) - 1
        assert not any(isinstance(event, Content) and event.is_restart for event in events[: content[0] + 1])
    for index, event in enumerate(events):
        if isinstance(event, Member):
            _check_state(states, event)
            is_late = content and index > content[0]
            assert not (is_late and event.role != "chair"), event
        elif isinstance(event, Text):
            assert states[event.label, event.role] == "answering"
        elif isinstance(event, Joined):
            assert (event.label, "member") not in states
    assert not verdicts or all(state in OVER for state in states.values())


def _check_state(states: dict[tuple[str, str], str], event: Member) -> None:
    key = (event.label, event.role)
    before = states.get(key)
    states[key] = event.state
    if before is None or (before in OVER and event.role == "debate"):
        assert event.state == "waiting" or (event.state == "dropped" and event.reason)
    elif before in OVER:
        assert event.state == before
    else:
        assert RANK.get(event.state, 2) >= RANK[before]
    assert event.reason or event.state in {"waiting", "answering", "done"}, event
