"""Whether usage is exact: what must hold between the ledger in Redis and the usage rows in Postgres, on live data.

Theory of operation. A budget counts every request that was admitted in its window: while it waits or runs what is
reserved for it, after its end what it used. The row of a request begins at the moment in which Redis admitted it. So
for every person, day and month

    tokens of the budget    =  tokens of rows  +  of events not yet written  +  reserved by requests that wait or run
    requests of the budget  =  rows            +  events not yet written     +  requests that wait or run

and the second line says that every admitted request has one row (a second one its primary key forbids). A request is
in one of the three places, and passes from right to left. They cannot be read at one moment, so they are read in that
order, and what passes on meanwhile is known by its id, or by a later beginning:

    1. Redis, in one script: budgets, requests, and where the stream of events ends
    2. the stream up to there: an event that is gone is in Postgres
    3. Postgres, without what began after 1, and without the requests of 1 and 2, which are looked at one by one

What changes meanwhile all the same (a lease that is reaped and ended in this moment) may tear the sums apart, so what
looks broken is looked at again, and is so if it stays so. What Redis forgot is no debt: a budget tells since when it
counts, and older rows do not. Rows of what a cloud has answered are left out: it never ran here, and no budget in Redis
knows of it (clouds.py). Nothing is changed, and nobody waits for this.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from quotas.audit import Audit
from quotas.ledger import Event, Ledger
from server.clock import Clock
from server.db.session import Database
from server.usage.verdict import EPOCH, Look, Sum, Verdict, Window, id_of, judge, lasting, span
from server.usage.writer import gives_way, row_of

LOOKS_MAX = 4
LOOK_AGAIN_MS = 700
EVENTS_MAX = 1_000
UNREADABLE_MAX = 1_000
# What a row may be ahead of Redis' clock.
AHEAD_MS_MAX = 60_000

Rows = dict[UUID, Mapping[str, Any]]


class LedgerCheck:
    """Compares the ledger with the usage rows, and changes neither."""

    def __init__(self, ledger: Ledger, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock

    async def run(self) -> Verdict:
        """Look until all is well, or what is broken has stayed so.

        Raises:
            redis.RedisError: Redis is away.
            Unavailable: Postgres is.
        """
        verdicts = [judge(await self._look())]
        while not verdicts[-1].is_well and len(verdicts) < LOOKS_MAX:
            await self._clock.sleep_ms(LOOK_AGAIN_MS)
            verdicts.append(judge(await self._look()))
        return lasting(verdicts)

    async def _look(self) -> Look:
        flows, records = await self._ledger.names("budget"), await self._ledger.names("request")
        audit = await self._ledger.audit(sorted(flows))
        strays = records - {held.id for held in audit.held}
        if strays:
            strays &= await self._ledger.names("request")
        events: Rows = {}
        unreadable: list[Event] = []
        count, oldest_ms = 0, None
        if audit.last_event:
            async for batch in self._ledger.settled_events(audit.last_event, count_max=EVENTS_MAX):
                oldest_ms = int(batch[0].position.partition("-")[0]) if oldest_ms is None else oldest_ms
                count += len(batch)
                unreadable += _read(batch, events)
        unreadable += await self._ledger.unreadable_events(count_max=UNREADABLE_MAX)
        apart = events.keys() | {request for held in audit.held if (request := id_of(held.id)) is not None}
        async with self._database.transaction(everybody=True) as session:
            names = {row.id: row.name for row in await session.execute(_NAMES)}
            rows: Rows = {row["request_id"]: row for row in await _mappings(session, _ROWS, apart=list(apart))}
            sums, future_rows = await _sums(session, audit, names, list(apart))
        return Look(
            audit=audit,
            names=names,
            rows=rows,
            events=events,
            event_count=count,
            oldest_event_ms=oldest_ms,
            unreadable=unreadable,
            sums=sums,
            future_rows=future_rows,
            strays=frozenset(strays),
        )


def _read(batch: Iterable[Event], events: Rows) -> list[Event]:
    """Add what these events say of requests; returns those that say nothing that a row could hold."""
    unreadable = []
    for event in batch:
        try:
            row = row_of(event.fields)
        except (KeyError, ValueError, OverflowError) as error:
            unreadable.append(Event(event.position, {**event.fields, "why": repr(error)}))
            continue
        known = events.get(row["request_id"])
        if known is None or gives_way(known, row):
            events[row["request_id"]] = row
    return unreadable


async def _sums(
    session: AsyncSession, audit: Audit, names: Mapping[UUID, str], apart: list[UUID]
) -> tuple[dict[tuple[UUID, Window], Sum], dict[UUID, int]]:
    """What the rows of each person come to, per window of their budget; and how many rows lie in the future.

    Of somebody who is gone, and has no row, nothing: they were deleted, with their rows.
    """
    now = EPOCH + timedelta(milliseconds=audit.now_ms)
    asked: list[tuple[UUID, str, Any, Any]] = []
    for account in audit.accounts:
        user = id_of(account.flow)
        if user is not None:
            day = span("day", account.day.which, account.since_ms)
            month = span("month", account.month.which, account.since_ms)
            nearly = now + timedelta(milliseconds=1)
            asked += [
                (user, "day", day[0], min(day[1], nearly)),
                (user, "month", month[0], min(month[1], nearly)),
                (user, "future", now + timedelta(milliseconds=AHEAD_MS_MAX), EPOCH.replace(year=9999)),
            ]
    users, windows, firsts, untils = (list(column) for column in zip(*asked, strict=True)) if asked else ([],) * 4
    found = await _mappings(session, _SUMS, users=users, windows=windows, firsts=firsts, untils=untils, apart=apart)
    known = set(names) | {row["user_id"] for row in found if row["requests"]}
    sums = {
        (row["user_id"], cast("Window", row["window"])): Sum(int(row["tokens"]), row["requests"])
        for row in found
        if row["window"] != "future" and row["user_id"] in known
    }
    future = {row["user_id"]: row["requests"] for row in found if row["window"] == "future" and row["requests"]}
    return sums, future


async def _mappings(session: AsyncSession, query: Any, **values: object) -> list[Mapping[str, Any]]:  # noqa: ANN401
    return [cast("Mapping[str, Any]", row) for row in (await session.execute(query, values)).mappings()]


_NAMES = text("SELECT id, name FROM users")
_ROWS = text("""
    SELECT request_id, user_id, input_tokens, output_tokens, outcome, started_at
    FROM usage WHERE request_id = ANY(CAST(:apart AS uuid[])) AND placement = 'local'
""")
# By the index on people and time. Tokens may be as large as a column, and then their sum is larger.
_SUMS = text("""
    SELECT asked.user_id, asked."window", count(usage.request_id) AS requests,
           coalesce(sum(usage.input_tokens::numeric + usage.output_tokens), 0) AS tokens
    FROM unnest(CAST(:users AS uuid[]), CAST(:windows AS text[]), CAST(:firsts AS timestamptz[]),
                CAST(:untils AS timestamptz[])) AS asked(user_id, "window", first, until)
    LEFT JOIN usage ON usage.user_id = asked.user_id AND usage.started_at >= asked.first
        AND usage.started_at < asked.until AND usage.request_id <> ALL(CAST(:apart AS uuid[]))
        AND usage.placement = 'local'
    GROUP BY asked.user_id, asked."window"
""")
