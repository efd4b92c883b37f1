"""Jobs: what they are given, and how they are run, one after the other.

A job that fails does not keep the next one from running. Whatever it was doing is undone or finished by its next run.
The table `upkeep_runs` knows of each when it last began and how it ended; one without an end runs, or was killed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import structlog
from msgspec import Struct
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from server.clock import Clock
from server.errors import Conflict, WirthforgeError
from server.upkeep.owner import MIGRATING, Owner

ATTEMPTS_MAX = 5
RETRY_MS = 3_000
# Whoever waits for a lock holds up all who come after, so a wait is short.
LOCK_WAIT = "2s"
LOCK_NOT_AVAILABLE, DEADLOCK = "55P03", "40P01"

SAID_MAX = 500
# A schema of before has none.
_HAS_RUNS = text("SELECT to_regclass('upkeep_runs') IS NOT NULL")
_BEGAN = text(
    "INSERT INTO upkeep_runs AS known (job, began_at, said) VALUES (:job, :now, '') ON CONFLICT (job)"
    " DO UPDATE SET began_at = excluded.began_at, ended_at = NULL, took_ms = NULL, outcome = NULL, said = ''"
)
_ENDED = text(
    "UPDATE upkeep_runs SET ended_at = :now, outcome = :outcome, took_ms = :took_ms, said = :said WHERE job = :job"
)

Tell = Callable[[str], None]
Outcome = Literal["done", "failed"]
DONE: Outcome = "done"
FAILED: Outcome = "failed"
Found = TypeVar("Found")

log = structlog.get_logger(__name__)


class Turn(Struct, frozen=True):
    """What a job works with.

    Attributes:
        connection: as the tables' owner; between transactions.
        tell: takes a line about what was just done.
        is_dry: say what would be done, and do nothing.
    """

    connection: AsyncConnection
    clock: Clock
    tell: Tell
    is_dry: bool = False


class Job(Struct, frozen=True):
    """Something that is done now and then; `what` says it to people."""

    name: str
    what: str
    work: Callable[[Turn], Awaitable[None]]


class Result(Struct, frozen=True):
    """How a job ended; `note` says why, where it failed."""

    job: str
    outcome: Outcome
    note: str
    took_ms: int


async def run_jobs(
    owner: Owner, jobs: Sequence[Job], clock: Clock, tell: Callable[[str, str], None], *, is_dry: bool = False
) -> AsyncIterator[Result]:
    """Run them, unless another replica does; then there is no result.

    Args:
        tell: takes a job's name and a line of what it says.

    Raises:
        Unavailable: Postgres is away, or the login does not own the tables.
    """
    async with owner.alone() as connection:
        if connection is None:
            return
        async with connection.begin():
            is_noted = not is_dry and bool(await connection.scalar(_HAS_RUNS))
        for job in jobs:
            began_ms, last = clock.monotonic_ms(), [""]
            note, outcome = "", DONE

            def said(line: str, name: str = job.name, last: list[str] = last) -> None:
                last[0] = line
                tell(name, line)

            try:
                if is_noted:
                    await _record(connection, _BEGAN, job=job.name, now=clock.now())
                await job.work(Turn(connection, clock, said, is_dry))
            except (WirthforgeError, SQLAlchemyError, OSError) as error:
                outcome, note = FAILED, _reason(error)
                log.warning("upkeep failed", job=job.name, reason=note)
            took_ms = clock.monotonic_ms() - began_ms
            if is_noted:
                await _note(connection, job.name, clock, outcome=outcome, took_ms=took_ms, said=note or last[0])
            yield Result(job.name, outcome, note, took_ms)


async def note_ended(
    connection: AsyncConnection, job: str, clock: Clock, *, outcome: Outcome, took_ms: int, said: str = ""
) -> None:
    """Write down that something beside the jobs has ended now, such as a backup. Raises SQLAlchemyError, OSError."""
    async with connection.begin():
        if await connection.scalar(_HAS_RUNS):
            now = clock.now()
            await connection.execute(_BEGAN, {"job": job, "now": now})
            ended = {"job": job, "now": now, "outcome": outcome, "took_ms": took_ms, "said": said[:SAID_MAX]}
            await connection.execute(_ENDED, ended)


async def _note(
    connection: AsyncConnection, job: str, clock: Clock, *, outcome: Outcome, took_ms: int, said: str
) -> None:
    """Write down how it ended. Where Postgres has gone away, the row says that it did not end."""
    try:
        await _record(
            connection, _ENDED, job=job, now=clock.now(), outcome=outcome, took_ms=took_ms, said=said[:SAID_MAX]
        )
    except (SQLAlchemyError, OSError) as error:
        log.warning("the end of a job was not written down", job=job, reason=_reason(error))


async def _record(connection: AsyncConnection, statement: TextClause, **values: object) -> None:
    async with connection.begin():
        await connection.execute(statement, values)


async def patiently(turn: Turn, table: str, step: Callable[[], Awaitable[Found]]) -> Found:
    """One transaction that changes tables: not while a migration runs, and without waiting long for a lock.

    Raises:
        Conflict: the table was in use each time; nothing has changed.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            async with turn.connection.begin():
                await turn.connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
                await turn.connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": MIGRATING})
                return await step()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK):
                raise
        if attempt < ATTEMPTS_MAX:
            turn.tell(f"{table} is in use; trying again")
            await turn.clock.sleep_ms(RETRY_MS)
    raise Conflict(f"{table} is in use: nothing was changed.")


def _reason(error: BaseException) -> str:
    """One line about a fault, without what people wrote."""
    if isinstance(error, WirthforgeError):
        return error.message
    if isinstance(error, SQLAlchemyError):
        return str(getattr(error, "orig", None) or error).splitlines()[0]
    return str(error) or type(error).__name__
