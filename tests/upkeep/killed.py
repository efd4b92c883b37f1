"""A program that runs jobs and ends by SIGKILL at a step that is named, as if the power had gone.

python -m tests.upkeep.killed OWNER_URL FOLDER DAYS_LATER STEP

Steps of the archive are those of its files. Those of the others (ROLLING, LEAVING) are statements: it dies when one was
executed, before it is committed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine, event

from server.clock import SystemClock
from server.upkeep import archiving
from server.upkeep.departing import depart
from server.upkeep.hours import roll_up
from server.upkeep.jobs import Job, Turn, run_jobs
from server.upkeep.owner import Owner
from server.upkeep.shelf import Shelf
from server.upkeep.summing import sum_usage

STEPS = ("written", "checked", "named", "described", "dropped")
# By what the statement begins with; `2:` the second of them.
ROLLING = (
    "UPDATE usage SET gpu_us = shares", "2:UPDATE usage SET gpu_us = shares", "UPDATE usage SET gpu_us = 0",
    "WITH gone AS (DELETE FROM hardware_samples", "2:WITH gone AS (DELETE FROM hardware_samples",
    "WITH gone AS ( DELETE FROM usage", "3:WITH gone AS ( DELETE FROM usage",
)  # fmt: skip
LEAVING = (
    *("DELETE FROM messages", "DELETE FROM conversations", "UPDATE archives", "2:UPDATE archives", "UPDATE usage"),
    *("DELETE FROM users", "UPDATE departures SET done_at"),
)


class MortalShelf(Shelf):
    """Dies at a step of its work."""

    def __init__(self, folder: Path, step: str) -> None:
        super().__init__(folder)
        self._step = step

    def die_at(self, step: str) -> None:
        """At once, if this is the step."""
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """The `.part` is on the disk, and nobody has looked at it."""
        with super().writing(name) as file:
            yield file
            file.flush()
            self.die_at("written")

    def keep(self, name: str) -> None:
        """The file has its name, or its manifest has."""
        self.die_at("checked")
        super().keep(name)
        self.die_at("named")
        if name.endswith(".json"):
            self.die_at("described")


class LateClock(SystemClock):
    """Some days ahead."""

    def __init__(self, days: int) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return super().now() + self._ahead


async def main(url: str, folder: str, days_later: str, step: str) -> None:
    """Work until death."""
    shelf = MortalShelf(Path(folder), step)
    inner = archiving._drop

    async def drop(turn: Turn, *rest: object) -> None:
        await inner(turn, *rest)  # type: ignore[arg-type]
        shelf.die_at("dropped")  # not committed

    archiving._drop = drop  # type: ignore[assignment]

    async def work(turn: Turn) -> None:
        await archiving.archive(turn, shelf, 90)

    async def roll(turn: Turn) -> None:
        await roll_up(turn, 90, 0)
        await sum_usage(turn, 400)

    async def leave(turn: Turn) -> None:
        await depart(turn, Shelf(Path(folder)))

    job = Job("archive", "", work) if step in STEPS else Job("other", "", roll if step in ROLLING else leave)
    if step not in STEPS:
        listen_for(step)
    async for _ in run_jobs(Owner(url), [job], LateClock(int(days_later)), lambda *_: None):
        pass


def listen_for(step: str) -> None:
    """Die after that statement."""
    count, _, beginning = step.rpartition(":")
    left = [int(count or 1)]

    @event.listens_for(Engine, "after_cursor_execute")
    def died(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if " ".join(statement.split()).startswith(beginning):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
