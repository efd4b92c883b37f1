"""Usage, added up: who used what, when, and what it costs.

A report is one query. It takes the requests of some days with their shares of the engines and of the energy from the
function `usage_shares` (migration 0011, which also explains how they are found in one walk), joins them with the prices
that held when each was asked, and adds them up by what the caller wants. Requests that are kept as sums of a day alone
(server/upkeep/summing.py, `usage_days`) come with the cost that was settled; a request is in one of the two, never in
both. What a report costs Postgres is bounded: so many days, so many groups, so much time; and few reports are made at
once, so that requests of others find a connection.

Whose rows it sees is not this query's business: a report of one's own is read in a transaction of that person, one of
everybody in one that says so (server/db/session.py). Contents are in other tables, of which neither sees anything.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import asyncpg
from msgspec import Struct
from sqlalchemy import Date, DateTime, Integer, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from server.clock import Clock
from server.db.session import AWAY_STATES, Database
from server.errors import InvalidRequest, TooMany, Unavailable
from server.messages import Principal
from server.usage.days import Days, days_of

GROUPS_MAX = 5_000
FILE_GROUPS_MAX = 500_000
BATCH = 2_000
# Less than a command may take at all (db/session.py), so that whoever asked hears why.
QUERY_MS_MAX = 14_000
AT_ONCE_MAX = 2
WAITING_MAX = 8
CANCELLED = "57014"
WHOLE_MAX = (1 << 63) - 1

Kind = Literal["text", "day", "whole", "money"]
Value = str | date | int | Decimal | None


class Column(Struct, frozen=True):
    """A column of a report: its name, what is in it, and the SQL that it comes from."""

    name: str
    kind: Kind
    sql: str


class Field(Struct, frozen=True):
    """What a report can be made by: its columns, and the tables with the names of things."""

    columns: tuple[Column, ...]
    join: str = ""


_IS_SUM = "usage.day IS NOT NULL"
_DAY = "coalesce(usage.day, (CAST(:dates AS date[]))[width_bucket(usage.started_at, CAST(:borders AS timestamptz[]))])"
FIELDS: Mapping[str, Field] = {
    "day": Field((Column("day", "day", _DAY),)),
    "month": Field((Column("month", "text", f"to_char({_DAY}, 'YYYY-MM')"),)),
    "user": Field(
        (Column("user_id", "text", "usage.user_id::text"), Column("user", "text", "users.name")),
        "LEFT JOIN users ON users.id = usage.user_id",
    ),
    "key": Field(
        (Column("key_id", "text", "usage.key_id::text"), Column("key", "text", "api_keys.label")),
        "LEFT JOIN api_keys ON api_keys.id = usage.key_id",
    ),
    "model": Field((Column("model", "text", "usage.model"),)),
    "council": Field(
        # A run may be archived, or not be written yet.
        (
            Column(
                "council",
                "text",
                "CASE WHEN usage.council_id IS NULL THEN usage.council ELSE coalesce(council_runs.name, 'unknown') END",
            ),
        ),
        "LEFT JOIN council_runs ON council_runs.id = usage.council_id",
    ),
    "engine": Field((Column("engine", "text", "usage.engine"),)),
    "placement": Field((Column("placement", "text", "usage.placement"),)),
    # One that is kept as a sum alone has none.
    "request": Field((Column("request_id", "text", "usage.request_id::text"),)),
}


def _total(sql: str) -> str:
    """No sum of numbers that some engine made up may break a report."""
    return f"(CASE WHEN sum({sql}) > {WHOLE_MAX} THEN {WHOLE_MAX} ELSE sum({sql}) END)::bigint"


def _counted(sql: str) -> str:
    """The same, where nothing is zero."""
    return f"coalesce({_total(sql)}, 0)"


def _amount(name: str) -> str:
    """An amount of the price that held: the model's own, else that of all others."""
    return f"CASE WHEN own.id IS NULL THEN others.{name} ELSE own.{name} END"


_IS_PRICED = "(own.id IS NOT NULL OR others.id IS NOT NULL)"
# What a cloud took is what it costs. The rule is the same where sums are made (server/upkeep/summing.py).
_UNPRICED = (
    f"(CASE WHEN {_IS_SUM} THEN usage.unpriced WHEN {_IS_PRICED} OR usage.cost_micros IS NOT NULL THEN 0 ELSE 1 END)"
)
_MICROS = (
    f"coalesce(usage.cost_micros, usage.input_tokens * ({_amount('input_per_million')})"
    f" + usage.output_tokens * ({_amount('output_per_million')})"
    f" + coalesce(usage.gpu_us * ({_amount('per_gpu_second')}), 0), 0)"
)
_ENERGY_COST = (
    f"CASE WHEN {_IS_SUM} THEN usage.energy_cost WHEN usage.cost_micros IS NULL"
    f" THEN coalesce(usage.energy_mj * ({_amount('per_kwh')}), 0) ELSE 0 END"
)
_COST = (
    f"CASE WHEN sum(usage.requests) > sum({_UNPRICED}) THEN"
    # A kilowatt-hour has 3.6 billion millijoules.
    f" round(sum({_MICROS}) * 0.000001 + sum({_ENERGY_COST}) / 3600000000, 9) END"
)
NUMBERS = (
    Column("requests", "whole", _counted("usage.requests")),
    Column("input_tokens", "whole", _counted("usage.input_tokens")),
    Column("output_tokens", "whole", _counted("usage.output_tokens")),
    Column("run_ms", "whole", _counted("usage.run_ms")),
    Column("gpu_ms", "whole", "coalesce(round(sum(usage.gpu_us) / 1000), 0)::bigint"),
    Column("energy_mj", "whole", _total("usage.energy_mj")),
    Column("cost", "money", _COST),
    Column("unpriced_requests", "whole", _counted(_UNPRICED)),
    Column("unmetered_requests", "whole", _counted("usage.unmetered")),
)  # fmt: skip


class Question(Struct, frozen=True):
    """What is asked of a report: the fields that it is made by, in their order, and the days."""

    by: tuple[str, ...]
    days: Days

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of the answer: those of the fields, then the numbers."""
        return (*(column for name in self.by for column in FIELDS[name].columns), *NUMBERS)


class Report(Struct, frozen=True):
    """The groups, in the order of their fields, and all of them together."""

    rows: list[dict[str, Value]]
    total: dict[str, Value]


def _fields(by: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in by[:1_000].split(",")) if by.strip() else ()
    for name in names:
        if name not in FIELDS:
            raise InvalidRequest(
                f"A report cannot be made by {name[:100]!r}. It can by: {', '.join(FIELDS)}.", param="by"
            )
        if names.count(name) > 1:
            raise InvalidRequest(f"{name} is named twice.", param="by")
    return names


class Reports:
    """Makes them; one per replica."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._asked: Counter[UUID] = Counter()

    def question(self, by: str, *, first: str | None, last: str | None, zone: str) -> Question:
        """What somebody asks: the fields in a list like `day,model` (an empty one: everything together), and the days.

        Raises:
            InvalidRequest: a field that does not exist or is named twice, or days that will not do.
        """
        return Question(_fields(by), days_of(self._clock.now(), first=first, last=last, zone=zone))

    async def read(self, principal: Principal, question: Question, *, everybody: bool = False) -> Report:
        """A report as a whole.

        Args:
            principal: who asks.
            everybody: whether it is about all people instead of the one who asks; whoever may ask that was checked.

        Raises:
            InvalidRequest: more than GROUPS_MAX groups, or more work than a report may be.
            TooMany: this person waits for several already.
            Unavailable: Postgres is away.
        """
        names = [column.name for column in question.columns]
        rows: list[dict[str, Value]] = []
        batches = self.batches(principal, question, everybody=everybody, groups_max=GROUPS_MAX)
        async with aclosing(batches):
            async for batch in batches:
                rows += [dict(zip(names, row, strict=True)) for row in batch]
        return Report(rows, _summed(rows))

    async def batches(
        self, principal: Principal, question: Question, *, everybody: bool, groups_max: int = FILE_GROUPS_MAX
    ) -> AsyncGenerator[Sequence[Sequence[Value]], None]:
        """The same, some rows at a time, in the order of its columns. Who iterates must not wait for a client."""
        query = _query(question)
        values = {
            "dates": list(question.days.dates),
            "borders": list(question.days.borders[:-1]),
            "since": question.days.since,
            "until": question.days.until,
            "first": question.days.dates[0],
            "last": question.days.dates[-1],
            "count_max": groups_max + 1,
        }
        count = 0
        async with self._turn(principal.id):
            scope: dict[str, Any] = {"everybody": True} if everybody else {"of": principal.id}
            async with self._database.transaction(**scope) as session:
                with _bounded():
                    await session.execute(_BOUND)
                    result = await session.stream(query, values)
                    async for batch in result.partitions(BATCH):
                        count += len(batch)
                        if count > groups_max:
                            raise _too_large(f"would have more than {groups_max} rows", "too_many_groups")
                        yield batch

    @asynccontextmanager
    async def _turn(self, user_id: UUID) -> AsyncIterator[None]:
        """Wait until few enough reports are made; nobody makes the others wait for many of theirs."""
        if self._asked[user_id] >= WAITING_MAX:
            raise TooMany(
                f"You are waiting for {WAITING_MAX} reports already.", code="reports_waiting", retry_after_s=5
            )
        self._asked[user_id] += 1
        try:
            async with self._turns:
                yield
        finally:
            self._asked[user_id] -= 1
            if not self._asked[user_id]:
                del self._asked[user_id]


# Sums belong to days of UTC; a report in another zone takes them for its own days.
_ASKED = """
    SELECT request_id, user_id, key_id, council_id, model, engine, placement, started_at, NULL::date AS day,
           NULL::text AS council, 1::bigint AS requests, input_tokens, output_tokens, run_ms, gpu_us, energy_mj,
           cost_micros::numeric, NULL::numeric AS energy_cost, NULL::bigint AS unpriced,
           (run_ms > 0 AND energy_mj IS NULL AND placement = 'local')::int::bigint AS unmetered
    FROM usage_shares(:since, :until)
    UNION ALL
    SELECT NULL, user_id, key_id, NULL, model, engine, placement, NULL, day, council, requests, input_tokens,
           output_tokens, run_ms, gpu_us, energy_mj, cost_micros, energy_cost, unpriced_requests, unmetered_requests
    FROM usage_days WHERE day BETWEEN :first AND :last"""

_BOUND = text(f"SELECT set_config('statement_timeout', '{QUERY_MS_MAX}', true)")


def _query(question: Question) -> TextClause:
    keys = [column for name in question.by for column in FIELDS[name].columns]
    places = ", ".join(str(place) for place in range(1, len(keys) + 1))
    columns = ", ".join(f'{column.sql} AS "{column.name}"' for column in question.columns)
    joins = " ".join(FIELDS[name].join for name in question.by)
    # Without a field there is one group, also of nothing.
    grouped = f"GROUP BY {places} ORDER BY {places}" if keys else ""
    statement = f"""
        SELECT {columns} FROM ({_ASKED}) AS usage
        LEFT JOIN prices AS own ON own.model = usage.model
             AND own.since <= usage.started_at AND (own.until IS NULL OR usage.started_at < own.until)
        LEFT JOIN prices AS others ON others.model = '*'
             AND others.since <= usage.started_at AND (others.until IS NULL OR usage.started_at < others.until)
        {joins} {grouped} LIMIT :count_max"""  # noqa: S608 (words of ours)
    given: dict[str, TypeEngine[Any]] = {
        **dict.fromkeys(("since", "until"), DateTime(timezone=True)),
        **dict.fromkeys(("first", "last"), Date()),
        "count_max": Integer(),
    }
    if "day" in question.by or "month" in question.by:
        given |= {"dates": ARRAY(Date()), "borders": ARRAY(DateTime(timezone=True))}
    return text(statement).bindparams(*(bindparam(name, type_=each) for name, each in given.items()))


def _summed(rows: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    total: dict[str, Value] = {}
    for column in NUMBERS:
        known = [value for row in rows if isinstance(value := row[column.name], int | Decimal)]
        # What nobody knows is not nothing; what nobody did is.
        is_unknown = not known and column.name in {"energy_mj", "cost"}
        total[column.name] = None if is_unknown else sum(known)
    return total


def _too_large(what: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"This report {what}. Ask for fewer days or fewer fields.", code=code, param="by")


@contextmanager
def _bounded() -> Iterator[None]:
    """Say that it took too long, where Postgres gave up for that.

    While rows are fetched, what the driver raises comes as it is, so this knows as well when Postgres is away.
    """
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        driver = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(driver, "sqlstate", None)
        if state == CANCELLED:
            raise _too_large(f"takes longer than {QUERY_MS_MAX // 1000} seconds", "report_too_large") from None
        if not isinstance(error, DBAPIError) and (state is None or state[:2] in AWAY_STATES):
            raise Unavailable(
                "The database (Postgres) went away while the report was made. Try again in a few seconds.",
                code="database_unavailable",
                retry_after_s=5,
            ) from error
        raise
