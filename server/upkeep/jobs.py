"""Jobs: what they are given, and how they are run, one after the other.

A job that fails does not keep the next one from running. Whatever it was doing is undone or finished by its next run.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import structlog
from msgspec import Struct
from sqlalchemy import text
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
        for job in jobs:
            began_ms = clock.monotonic_ms()
            note, outcome = "", DONE
            try:
                await job.work(Turn(connection, clock, partial(tell, job.name), is_dry))
            except (WirthforgeError, SQLAlchemyError, OSError) as error:
                outcome, note = FAILED, _reason(error)
                log.warning("upkeep failed", job=job.name, reason=note)
            yield Result(job.name, outcome, note, clock.monotonic_ms() - began_ms)


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
