"""A migrated database, its owner, and a clock that stands at the database's day."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.clock import SystemClock
from server.db.session import async_url
from server.upkeep.jobs import Job, Result, Turn, run_jobs
from server.upkeep.owner import Owner


class StillClock:
    """A `server.clock.Clock` that begins now, and is set at will; nobody waits by it."""

    def __init__(self) -> None:
        self.time = SystemClock().now()
        self._beginning = self.time
        self.slept_ms = 0

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return self.time

    def monotonic_ms(self) -> int:
        """Milliseconds since the beginning."""
        return (self.time - self._beginning) // timedelta(milliseconds=1) + self.slept_ms

    def monotonic_us(self) -> int:
        """Microseconds since the beginning."""
        return self.monotonic_ms() * 1000

    async def sleep_ms(self, duration_ms: int) -> None:
        """Let that time pass at once."""
        self.slept_ms += duration_ms


@pytest.fixture
def clock() -> StillClock:
    """Of the test."""
    return StillClock()


@pytest.fixture
def owner(database_url: str) -> Owner:
    """Of the test's database."""
    return Owner(database_url)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The same database, for a look past everything."""
    opened = create_async_engine(async_url(database_url))
    yield opened
    await opened.dispose()


class Kept:
    """What jobs said, and how they ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.results: list[Result] = []


RunJob = Callable[..., Coroutine[Any, Any, Kept]]


@pytest.fixture
def run_job(owner: Owner, clock: StillClock) -> RunJob:
    """Runs jobs, each of which is a function."""

    async def run(*works: Callable[[Turn], Awaitable[None]], is_dry: bool = False) -> Kept:
        kept = Kept()
        jobs = [Job(work.__name__, "", work) for work in works]
        async for result in run_jobs(owner, jobs, clock, lambda _, line: kept.lines.append(line), is_dry=is_dry):
            kept.results.append(result)
        return kept

    return run


async def rows(engine: AsyncEngine, query: str, **values: object) -> Sequence[tuple[object, ...]]:
    """All rows of a query."""
    async with engine.begin() as connection:
        return [tuple(row) for row in await connection.execute(text(query), values)]
