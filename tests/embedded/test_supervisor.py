"""Parts start in order, come back when they die, and stop in reverse."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from server.clock import SystemClock
from server.embedded.child import Child
from server.embedded.supervisor import PAUSE_MS_MAX, PartChanged, Supervisor
from server.errors import StartError


class HurriedClock(SystemClock):
    """Remembers how long it was asked to wait, and waits a millisecond."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.asked_ms: list[int] = []

    async def sleep_ms(self, duration_ms: int) -> None:
        """Let one millisecond pass."""
        self.asked_ms.append(duration_ms)
        await super().sleep_ms(1)


class Program:
    """A part that is any program; what it does is written down in `story`."""

    def __init__(self, name: str, command: list[str], data_dir: Path, story: list[str]) -> None:
        """Nothing starts yet."""
        self.name = name
        self.command = command
        self.story = story
        # Its own clock: the supervisor's is the one that the tests read.
        self.child = Child(name, data_dir=data_dir, clock=SystemClock())

    async def start(self) -> None:
        """Start it, if its program is there."""
        if self.command == ABSENT:
            raise StartError(f"{self.name} is not there.")
        self.story.append(f"+{self.name}")
        await self.child.launch(self.command)

    async def exited(self) -> int:
        """Wait for its end."""
        return await self.child.exited()

    async def stop(self) -> None:
        """End it."""
        self.story.append(f"-{self.name}")
        await self.child.stop()


STAYS = ["/bin/sleep", "600"]
ABSENT = ["/nowhere"]
DIES = ["/bin/sh", "-c", "exit 3"]


async def test_order(data_dir: Path, clock: SystemClock) -> None:
    """Parts start in the order given and stop in reverse."""
    story: list[str] = []
    supervisor = Supervisor([Program(name, STAYS, data_dir, story) for name in ("one", "two")], clock)
    await supervisor.start()
    await supervisor.stop()
    assert story == ["+one", "+two", "-two", "-one"]


async def test_a_failed_start_leaves_nothing(data_dir: Path, clock: SystemClock) -> None:
    """When one part cannot start, those before it are stopped and its sentence comes through."""
    story: list[str] = []
    one = Program("one", STAYS, data_dir, story)
    supervisor = Supervisor([one, Program("two", ABSENT, data_dir, story)], clock)
    with pytest.raises(StartError, match="two is not there"):
        await supervisor.start()
    assert await one.exited() == 143


async def test_the_pause_doubles_to_its_bound(data_dir: Path) -> None:
    """A part that always dies is started again for ever, ever more slowly, up to the longest pause."""
    clock, changes = HurriedClock(), asyncio.Queue[PartChanged]()
    supervisor = Supervisor([Program("one", DIES, data_dir, [])], clock, on_change=changes.put_nowait)
    await supervisor.start()
    heard = [await changes.get() for _ in range(21)]
    await supervisor.stop()
    assert [change.up for change in heard] == [True, False] * 10 + [True]
    assert heard[1].reason == "one ended with status 3."
    assert clock.asked_ms[:10] == [250, 500, 1000, 2000, 4000, 8000, 16_000, PAUSE_MS_MAX, PAUSE_MS_MAX, PAUSE_MS_MAX]


async def test_a_listener_that_fails_stops_nothing(data_dir: Path) -> None:
    """A callback that raises leaves the part watched, and a part that cannot start is tried again."""
    changes: asyncio.Queue[PartChanged] = asyncio.Queue()

    def listen(change: PartChanged) -> None:
        changes.put_nowait(change)
        raise RuntimeError(change.name)

    part = Program("one", DIES, data_dir, [])
    supervisor = Supervisor([part], HurriedClock(), on_change=listen)
    await supervisor.start()
    part.command = ABSENT
    heard = [await changes.get() for _ in range(4)]
    part.command = STAYS
    while not (change := await changes.get()).up:
        heard.append(change)
    await supervisor.stop()
    assert {change.reason for change in heard[2:]} == {"one is not there."}


async def test_a_part_that_comes_later_is_kept_running_until_it_is_ended(data_dir: Path) -> None:
    """`begin` starts and watches; after `end` nobody starts it again, and it may begin once more."""
    clock, changes, story = HurriedClock(), asyncio.Queue[PartChanged](), list[str]()
    supervisor = Supervisor([], clock, on_change=changes.put_nowait)
    await supervisor.start()
    part = Program("late", STAYS, data_dir, story)
    await supervisor.begin(part)
    assert (await changes.get()).up
    assert part.child.pid is not None
    os.kill(part.child.pid, signal.SIGTERM)
    assert [(await changes.get()).up for _ in range(2)] == [False, True]
    await supervisor.end(part)
    await supervisor.end(part)
    assert part.child.pid is None
    began = story.count("+late")
    await supervisor.begin(part)
    await supervisor.stop()
    assert part.child.pid is None
    assert story.count("+late") == began + 1


async def test_a_part_that_cannot_begin_leaves_nothing(data_dir: Path, clock: SystemClock) -> None:
    """Its sentence comes through, and it may be tried again."""
    supervisor = Supervisor([], clock)
    part = Program("late", ABSENT, data_dir, [])
    for _ in range(2):
        with pytest.raises(StartError, match="late is not there"):
            await supervisor.begin(part)
    part.command = STAYS
    await supervisor.begin(part)
    await supervisor.stop()
    assert part.child.pid is None


async def test_stopping_ends_what_is_just_beginning(data_dir: Path, clock: SystemClock) -> None:
    """A part whose start is under way when everything is stopped does not run afterwards."""
    supervisor = Supervisor([], clock)
    part = Program("late", STAYS, data_dir, [])
    task = asyncio.create_task(supervisor.begin(part))
    await clock.sleep_ms(1)
    task.cancel()
    await supervisor.stop()
    await asyncio.gather(task, return_exceptions=True)
    assert part.child.pid is None
