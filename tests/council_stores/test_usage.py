"""Which usage was a council's: from the request to the row, whatever ends it."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from quotas.ledger import Entry, Ledger
from quotas.policy import Limits
from quotas.window import Window
from server.db.models import Usage
from server.db.session import Database
from server.usage.writer import UsageWriter
from tests.clocks import FakeClock
from tests.quotas.reference import LEASE_MS

STREAM = "wf:{box}:settled"


@pytest.fixture
def writer(ledger: Ledger, database: Database, clock: FakeClock) -> UsageWriter:
    """Moves what is settled."""
    return UsageWriter(ledger, database, clock, reader="one")


def entry(request: UUID, *, council: str = "", role: str = "") -> Entry:
    """A request of somebody."""
    return Entry(
        id=str(request),
        engine="e",
        model="m",
        surface="chat.completions",
        user=str(uuid4()),
        key="",
        input_tokens=10,
        started_at_ms=1_800_000_000_000,
        output_tokens_max=20,
        output_tokens_min=20,
        council=council,
        role=role,
    )


async def written(writer: UsageWriter, database: Database, request: UUID) -> Usage:
    """The row, as soon as the writer is done."""
    while await writer.step(wait_ms=1):
        pass
    async with database.transaction(everybody=True) as session:
        row = await session.get(Usage, request)
    assert row is not None
    return row


async def begin(ledger: Ledger, asked: Entry) -> None:
    """It gets its slot."""
    await ledger.reap()
    await ledger.dispatch("e", Window(slots=1))
    admission = await ledger.enqueue(asked, Limits(), replica="one", queue_length_max=10)
    assert admission.state == "running"


@pytest.mark.parametrize("role", ["leader", "member", "rank", "judge", "debate", "chair"])
async def test_a_part_of_a_council_says_so_in_its_row(
    ledger: Ledger, writer: UsageWriter, database: Database, role: str
) -> None:
    """Which council it was, and what it did there."""
    request, council = uuid4(), uuid4()
    asked = entry(request, council=str(council), role=role)
    await begin(ledger, asked)
    event: dict[str, Any] = dict(asked.usage_fields()) | {"id": asked.id, "engine": "e", "outcome": "completed"}
    numbers = {"input_tokens": 10, "output_tokens": 5, "queue_ms": 0, "first_token_ms": 1, "total_ms": 2}
    await ledger.finish(asked.id, "e", event | numbers)
    row = await written(writer, database, request)
    assert (row.council_id, row.role, row.output_tokens) == (council, role, 5)


async def test_one_whose_replica_died_says_so_as_well(ledger: Ledger, writer: UsageWriter, database: Database) -> None:
    """The scripts write that row from what they know, and they know this."""
    request, council = uuid4(), uuid4()
    await begin(ledger, entry(request, council=str(council), role="member"))
    assert ledger.now_ms is not None
    for _ in range(2 * LEASE_MS // 1_000):
        ledger.now_ms += 1_000
        await ledger.reap()
    row = await written(writer, database, request)
    assert (row.outcome, row.council_id, row.role) == ("abandoned", council, "member")


async def test_a_request_of_its_own_belongs_to_no_council(
    ledger: Ledger, writer: UsageWriter, database: Database
) -> None:
    """Its event has not even the fields."""
    request = uuid4()
    asked = entry(request)
    assert {"council", "role"}.isdisjoint(asked.usage_fields())
    await begin(ledger, asked)
    event: dict[str, Any] = dict(asked.usage_fields()) | {"id": asked.id, "engine": "e", "outcome": "completed"}
    await ledger.finish(asked.id, "e", event | {"output_tokens": 5, "queue_ms": 0, "total_ms": 2})
    row = await written(writer, database, request)
    assert (row.council_id, row.role) == (None, None)


async def test_events_of_before_there_were_councils_are_written(
    redis: Redis, writer: UsageWriter, database: Database
) -> None:
    """They were in the stream when the server was updated; so are those whose fields are empty."""
    old: dict[Any, Any] = {
        "model": "m",
        "surface": "chat.completions",
        "user": str(uuid4()),
        "engine": "e",
        "outcome": "completed",
        "input_tokens": 1,
        "output_tokens": 2,
        "queue_ms": 3,
        "total_ms": 4,
        "started_at_ms": 1_800_000_000_000,
    }
    plain, empty, wrong = uuid4(), uuid4(), uuid4()
    await redis.xadd(STREAM, {**old, "id": str(plain)})
    await redis.xadd(STREAM, {**old, "id": str(empty), "council": "", "role": ""})
    await redis.xadd(STREAM, {**old, "id": str(wrong), "council": "no uuid", "role": "leader"})
    for request in (plain, empty):
        row = await written(writer, database, request)
        assert (row.council_id, row.role, row.pauses, row.first_token_ms) == (None, None, 0, None)
    async with database.transaction(everybody=True) as session:
        assert await session.get(Usage, wrong) is None
    assert await redis.xlen(STREAM) == 0
