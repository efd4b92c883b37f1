"""Moves settled usage from the Redis stream into Postgres.

Exactly once, by key: an event is written under its request id and acknowledged after the commit. A writer that dies
between the two leaves the event to another, whose insert finds the row there already. If the same request was both
abandoned (its lease ran out) and ended by its replica after all, the replica's event counts, in whichever order they
come; of two that were abandoned, since it had entered again between them, the later. The budgets in Redis follow the
same rule (quotas/lua/finish.lua), so that they go on being the sum of the rows (invariants.py).

A row begins when Redis admitted its request, by Redis' clock: that moment decides in which budgets it counts. Only
where Redis had lost the request it is the moment that its replica told, and it counts in none.

An event of which no row can be made is set aside in a stream of its own, for people to look at.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.exc import SQLAlchemyError

from quotas.ledger import Event, Ledger
from server.clock import Clock
from server.db.models import Usage
from server.db.session import Database
from server.errors import Unavailable
from server.telemetry import USAGE_ROWS, USAGE_SET_ASIDE

BATCH_MAX = 200
WAIT_MS = 1_000
RETRY_MS = 500
# After a batch: what comes meanwhile goes into the next one, instead of a transaction for each request.
LINGER_MS = 100
# A writer that has not acknowledged for so long is taken for dead.
FORGOTTEN_MS = 30_000
NUMBER_MAX = (1 << 63) - 1

log = structlog.get_logger(__name__)


class UsageWriter:
    """One per replica; any number work together.

    Args:
        reader: the replica's name in the stream's reading group.
    """

    def __init__(self, ledger: Ledger, database: Database, clock: Clock, *, reader: str) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._reader = reader
        self._adopted_ms: int | None = None
        self._is_open = False
        # Whether there may be events that this writer took and has not written, also by a reply that was lost.
        self._has_unwritten = False

    async def run(self) -> None:
        """Write until cancelled. Redis or Postgres away: wait, and lose nothing."""
        is_away = False
        task = asyncio.current_task()
        # Not for ever: before Python 3.12 asyncio.wait_for, which redis-py uses, may swallow a cancellation.
        while task is None or not task.cancelling():
            try:
                if await self.step(wait_ms=WAIT_MS):
                    await self._clock.sleep_ms(LINGER_MS)
            except (RedisError, OSError, SQLAlchemyError, Unavailable) as error:
                if not is_away:
                    log.warning("usage waits", error=type(error).__name__)
                is_away = True
                # The group may be gone with Redis' state.
                self._is_open = False
                await self._clock.sleep_ms(RETRY_MS)
            else:
                is_away = False

    async def step(self, *, wait_ms: int) -> int:
        """Write what is there, waiting for something up to `wait_ms`; returns the number of events."""
        if not self._is_open:
            await self._ledger.open_events()
            self._is_open = True
        while self._has_unwritten:
            events = await self._ledger.unwritten_events(self._reader, count_max=BATCH_MAX)
            await self._write(events)
            self._has_unwritten = bool(events)
        self._has_unwritten = True
        await self._adopt()
        events = await self._ledger.events(self._reader, count_max=BATCH_MAX, wait_ms=wait_ms)
        await self._write(events)
        self._has_unwritten = False
        return len(events)

    async def _adopt(self) -> None:
        """Now and then, take over what a dead writer left."""
        now_ms = self._clock.monotonic_ms()
        if self._adopted_ms is None or now_ms - self._adopted_ms >= FORGOTTEN_MS:
            async for events in self._ledger.forgotten_events(self._reader, count_max=BATCH_MAX, idle_ms=FORGOTTEN_MS):
                await self._write(events)
            self._adopted_ms = now_ms

    async def _write(self, events: Sequence[Event]) -> None:
        if not events:
            return
        rows: dict[UUID, dict[str, Any]] = {}
        unreadable: dict[str, str] = {}
        for event in events:
            try:
                row = row_of(event.fields)
            except (KeyError, ValueError, OverflowError) as error:
                # Nothing that a retry could mend; the event is shown once, without stopping those behind it.
                log.error("unreadable usage event", position=event.position, error=repr(error))
                unreadable[event.position] = repr(error)
                continue
            known = rows.get(row_id := UUID(event.fields["id"]))
            if known is None or gives_way(known, row):
                rows[row_id] = row
        if rows:
            async with self._database.transaction(everybody=True) as session:
                # In one order for all writers, or two with the same requests would wait for each other.
                await session.execute(_UPSERT, [rows[row_id] for row_id in sorted(rows)])
            USAGE_ROWS.inc(len(rows))
        await self._ledger.acknowledge(events, unreadable=unreadable)
        USAGE_SET_ASIDE.inc(len(unreadable))

    async def close(self) -> None:
        """Write what is there, and leave the group."""
        try:
            await self.step(wait_ms=1)
            await self._ledger.close_reader(self._reader)
        except (RedisError, OSError, SQLAlchemyError, Unavailable) as error:
            log.warning("usage is left for another writer", error=type(error).__name__)


def _upsert() -> Insert:
    """Write a row; one that is there already may give way, by the rule of `gives_way`."""
    statement = insert(Usage)
    new = statement.excluded
    tokens, times = ("input_tokens", "output_tokens"), ("queue_ms", "first_token_ms", "total_ms", "paused_ms")
    measured = ("outcome", *tokens, *times, "pauses", "started_at")
    return statement.on_conflict_do_update(
        index_elements=[Usage.request_id],
        set_={name: new[name] for name in measured},
        where=(Usage.outcome == "abandoned") & ((new.outcome != "abandoned") | (new.started_at > Usage.started_at)),
    )


# One statement for all batches, whatever their size, so that it is compiled once.
_UPSERT = _upsert()


def gives_way(known: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the row of a request is replaced by another that was made of a later event."""
    return known["outcome"] == "abandoned" and (
        new["outcome"] != "abandoned" or bool(new["started_at"] > known["started_at"])
    )


def row_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """What Postgres gets of an event.

    Raises:
        KeyError, ValueError, OverflowError: Postgres would not take it, which would hold up all others in the batch.
    """
    first_token_ms = _number(fields.get("first_token_ms") or "-1")
    if any("\0" in value for value in fields.values()):
        raise ValueError("a NUL in a text")
    return {
        "request_id": UUID(fields["id"]),
        "user_id": UUID(fields["user"]),
        "key_id": UUID(fields["key"]) if fields.get("key") else None,
        "surface": fields["surface"],
        "model": fields["model"],
        "engine": fields["engine"],
        "input_tokens": _number(fields["input_tokens"]),
        "output_tokens": _number(fields["output_tokens"]),
        "queue_ms": _number(fields["queue_ms"]),
        "first_token_ms": None if first_token_ms < 0 else first_token_ms,
        "total_ms": _number(fields["total_ms"]),
        # Events of before there were pauses do not tell them.
        "pauses": _number(fields.get("pauses", "0")),
        "paused_ms": _number(fields.get("paused_ms", "0")),
        # Told by the requests of councils alone.
        "council_id": UUID(fields["council"]) if fields.get("council") else None,
        "role": fields.get("role") or None,
        "outcome": fields["outcome"],
        "started_at": datetime.fromtimestamp(int(fields.get("enqueued_ms") or fields["started_at_ms"]) / 1000, UTC),
    }


def _number(text: str) -> int:
    number = int(text)
    if abs(number) > NUMBER_MAX:
        raise ValueError("a number that no column holds")
    return number
