"""A program that archives and ends by SIGKILL at a step that is named, as if the power had gone.

python -m tests.upkeep.killed OWNER_URL FOLDER DAYS_LATER STEP
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

from server.clock import SystemClock
from server.upkeep import archiving
from server.upkeep.jobs import Job, Turn, run_jobs
from server.upkeep.owner import Owner
from server.upkeep.shelf import Shelf

STEPS = ("written", "checked", "named", "described", "dropped")


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
    """Archive until death."""
    shelf = MortalShelf(Path(folder), step)
    inner = archiving._drop

    async def drop(turn: Turn, *rest: object) -> None:
        await inner(turn, *rest)  # type: ignore[arg-type]
        shelf.die_at("dropped")  # not committed

    archiving._drop = drop  # type: ignore[assignment]

    async def work(turn: Turn) -> None:
        await archiving.archive(turn, shelf, 90)

    async for _ in run_jobs(Owner(url), [Job("archive", "", work)], LateClock(int(days_later)), lambda *_: None):
        pass


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
