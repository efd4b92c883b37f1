"""A ledger in virtual time, a writer and the check on a real Postgres: what becomes of requests, step by step."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from redis.asyncio import Redis
from sqlalchemy import select

from quotas.ledger import Entry, Ledger, Progress
from quotas.policy import Limits
from quotas.window import Window
from server.clock import SystemClock
from server.db.models import Usage, User
from server.db.session import Database
from server.usage.invariants import LedgerCheck
from server.usage.verdict import Verdict
from server.usage.writer import UsageWriter

ENGINE = "e"
PREFIX = "wf:{box}:"
# A while before a day and a month end, and before any day on which this runs: events carry Redis' own time.
BEGINNING = datetime(2026, 1, 31, 23, tzinfo=UTC)
INPUT_TOKENS, OUTPUT_TOKENS_MAX = 10, 90
REAPED_AFTER_S = 13


def ms_of(moment: datetime) -> int:
    """In milliseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


class Rig:
    """One replica, called "one", before an engine with two slots; `ann` is who asks."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self.redis = redis
        self.database = database
        self.ledger = Ledger(redis, now_ms=ms_of(BEGINNING))
        self.writer = UsageWriter(self.ledger, database, SystemClock(), reader="one")
        self.ann = uuid4()
        # What a replica's wall clock is off.
        self.clock_error_ms = 0

    async def open(self) -> "Rig":
        """Somebody is there, and an engine."""
        async with self.database.transaction() as session:
            session.add(User(id=self.ann, name="ann", role="member", created_at=BEGINNING))
        await self.ledger.reap()
        await self.ledger.dispatch(ENGINE, Window(slots=2))
        return self

    def pass_ms(self, duration_ms: int) -> None:
        """Time passes, for Redis."""
        assert self.ledger.now_ms is not None
        self.ledger.now_ms += duration_ms

    def entry(self) -> Entry:
        """A request of ann."""
        assert self.ledger.now_ms is not None
        return Entry(
            id=str(uuid4()),
            engine=ENGINE,
            model="m",
            surface="chat.completions",
            user=str(self.ann),
            key="",
            input_tokens=INPUT_TOKENS,
            started_at_ms=self.ledger.now_ms + self.clock_error_ms,
            prompt_cost=INPUT_TOKENS,
            output_tokens_max=OUTPUT_TOKENS_MAX,
            output_tokens_min=OUTPUT_TOKENS_MAX,
        )

    async def enter(self, entry: Entry | None = None, **options: Any) -> Entry:
        """It enters, or enters again."""
        entry = entry or self.entry()
        await self.ledger.enqueue(entry, Limits(), replica="one", queue_length_max=100, **options)
        return entry

    async def report(self, entry: Entry, tokens: int) -> list[tuple[str, str]]:
        """It has streamed so much; what the ledger says to that."""
        return [*await self.ledger.charge("one", [Progress(entry.id, tokens, 5, tokens)])]

    async def end(self, entry: Entry, tokens: int, outcome: str = "completed", times: int = 1) -> None:
        """Its replica settles it; `times` more than 1: replies were lost."""
        event: Mapping[str, str | int] = entry.usage_fields() | {
            "id": entry.id,
            "engine": ENGINE,
            "outcome": outcome,
            "output_tokens": tokens,
            "queue_ms": 0,
            "first_token_ms": 5,
            "total_ms": 9,
        }
        for _ in range(times):
            await self.ledger.finish(entry.id, ENGINE, event, cost=tokens)

    async def lose(self) -> list[str]:
        """Nobody hears of the replica until its leases are taken away; the requests that were abandoned."""
        reaped = []
        for _ in range(REAPED_AFTER_S):
            self.pass_ms(1_000)
            reaped += await self.ledger.reap()
        return reaped

    async def forget(self) -> None:
        """Redis loses everything, and the replica tells of its engine again."""
        await self.redis.flushdb()
        await self.ledger.reap()
        await self.ledger.dispatch(ENGINE, Window(slots=2))
        self.writer._is_open = False

    async def write(self) -> None:
        """Rows are written until there is nothing more."""
        while await self.writer.step(wait_ms=1):
            pass

    async def look(self) -> Verdict:
        """What the check says."""
        return await LedgerCheck(self.ledger, self.database, SystemClock()).run()

    async def is_well(self) -> bool:
        """Whether it says that all is well, before the rows are written and after."""
        before = await self.look()
        await self.write()
        after = await self.look()
        assert [before.broken, after.broken] == [[], []]
        return before.is_well and after.is_well

    async def row(self, entry: Entry) -> tuple[str, int, datetime]:
        """The outcome, the output tokens and the beginning that its row has."""
        async with self.database.transaction(everybody=True) as session:
            row = (await session.scalars(select(Usage).where(Usage.request_id == UUID(entry.id)))).one()
            return row.outcome, row.output_tokens, row.started_at
