"""Leaders that stand in a queue: nobody else of the council enters before them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, cast
from uuid import uuid4

import pytest

from quotas.forecast import Standing
from server.chat.pipeline import Answer, Identify, Pipeline
from server.council.asking import ask_through
from server.council.calls import Call, Said
from server.messages import ModelRequest
from tests.council.scripts import QUESTION, Council, Script, seats
from tests.council.test_table import everybody

STANDING = Standing(ahead=1, wait_ms=500)
ASKED = ModelRequest(
    id=uuid4(),
    surface="chat.completions",
    model="council",
    body={"messages": list(QUESTION)},
    is_stream=False,
    wants_usage=False,
    input_tokens=5,
    longest_input_tokens=5,
)


async def test_nobody_stands_in_line_before_the_leader_has_a_slot() -> None:
    """However long it waits: the others begin at its first token, or 30 s after it has left the queue."""
    council = Council({"A": Script(queue_ms=200_000, wait_ms=500)})
    await council.play(everybody)
    assert council.cast.begun_ms == [0, 200_500, 200_500]
    assert council.state("A") == "done"
    silent = Council({"A": Script(queue_ms=60_000, wait_ms=100_000)})
    await silent.play(everybody)
    assert silent.cast.begun_ms == [0, 89_000, 89_000]  # it was last told to be in the queue at 59 s


@pytest.mark.parametrize(("deadline_ms", "begun_ms"), [(1_000, 30_000), (30_000, 30_000), (45_000, 45_000)])
async def test_a_deadline_ends_the_waiting_for_a_leader_in_the_queue(deadline_ms: int, begun_ms: int) -> None:
    """Who wants to have answers by then gets those of the others."""
    council = Council({"A": Script(queue_ms=200_000)}, deadline_ms=deadline_ms)
    await council.play(everybody)
    assert council.cast.begun_ms == [0, begun_ms, begun_ms]


async def test_a_leader_that_never_gets_a_slot_makes_room_for_the_next() -> None:
    """After ten minutes it is late, and the next leads alone, as if it had failed."""
    council = Council({"A": Script(queue_ms=10_000_000)})
    conclusion = await council.play(everybody)
    assert council.state("A") == "late"
    assert council.cast.begun_ms == [0, 600_000, 600_100]
    assert conclusion.verdict.winner == "B"


class Queue:
    """A pipeline in which every request waits for a moment, and is then answered with one word."""

    async def answer(self, _request: ModelRequest, _identify: Identify, _stack: AsyncExitStack, tell: Any) -> Answer:
        """Tell whoever wants to know, and answer."""
        if tell is not None:
            await tell(STANDING, {"x-wirthforge-queue": "1"})

        async def stream() -> AsyncIterator[bytes]:
            yield b'data: {"choices":[{"delta":{"content":"eight"}}]}\n\n'

        return Answer({}, stream=stream())


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_table_knows_of_a_leader_that_waits(*, is_leader: bool, is_stream: bool) -> None:
    """Whether the asker's client is told as well or not; of the others nobody is told."""
    told: list[str] = []

    async def tell(standing: Standing, _headers: Mapping[str, str]) -> None:
        assert standing is STANDING
        told.append("client")

    ask = ask_through(
        cast("Pipeline", Queue()),
        ASKED,
        cast("Identify", None),
        new_id=uuid4,
        tell=tell if is_stream else None,
        on_headers=lambda _: None,
    )
    (seat,) = seats("m-one")
    call = Call(seat=seat, role="member", messages=QUESTION, is_leader=is_leader, on_wait=lambda: told.append("table"))
    async with ask(call) as parts:
        assert [part async for part in parts] == [Said("eight")]
    assert told == ["table", *["client"] * is_stream] * is_leader
