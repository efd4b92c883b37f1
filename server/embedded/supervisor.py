"""Keeps the parts running: starts them in order, restarts one that dies, stops them in reverse.

A part that dies is started again after a pause that doubles from PAUSE_MS_MIN to PAUSE_MS_MAX, for as long as the
server runs. There is no last attempt: a box in a cupboard should heal when the disk has room again, without anybody's
hand; every attempt is logged, and the callback learns of each change, so that nothing waits for a part that is away.
The pause is forgotten when a part has stayed up for STEADY_MS.

A part may also come and go while the server runs (`begin`, `end`): a model that is loaded when somebody wants it. From
its beginning to its end it is watched like the others; what was ended stays away.

Parts do not depend on each other here. A request needs all of them and says which one is missing (`/readyz`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from server.clock import Clock
from server.errors import StartError

PAUSE_MS_MIN = 250
PAUSE_MS_MAX = 30_000
STEADY_MS = 60_000

log = structlog.get_logger(__name__)


class Part(Protocol):
    """Something that runs beside the server."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    async def start(self) -> None:
        """Return when it can be used; raise StartError, with nothing left running, when it cannot."""
        ...

    async def exited(self) -> int:
        """Wait until it has ended; its exit status."""
        ...

    async def stop(self) -> None:
        """End it, however far it has come; once more does no harm."""
        ...


@dataclass(frozen=True)
class PartChanged:
    """A part came or went."""

    name: str
    up: bool
    # Why it is away; empty when it is up.
    reason: str = ""


def _ignore(_: PartChanged) -> None:
    """Hear nothing."""


class Supervisor:
    """Owns the parts between `start` and `stop`."""

    def __init__(
        self, parts: Sequence[Part], clock: Clock, *, on_change: Callable[[PartChanged], None] = _ignore
    ) -> None:
        """Take the parts; nothing starts yet.

        Args:
            parts: in the order in which they start.
            clock: measures pauses.
            on_change: hears of every part that came or went, also in the first start. It must return soon, and what it
                raises is logged and otherwise ignored: a broken listener is no reason to leave a part unwatched.
        """
        self._parts = list(parts)
        self._clock = clock
        self._on_change = on_change
        self._watches: dict[Part, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Start all parts, one after the other.

        Raises:
            StartError: one of them cannot start; those before it are stopped again.
        """
        assert not self._watches, "started already"
        for part in self._parts:
            try:
                await part.start()
            except BaseException:
                await self.stop()
                raise
            self._came(part)

    async def begin(self, part: Part) -> None:
        """Start one more part, and keep it running until `end` or `stop`.

        Raises:
            StartError: it cannot start; nothing is left running.
        """
        assert part not in self._watches, f"{part.name} runs already"
        if part not in self._parts:
            # Before it starts: whoever stops everything meanwhile stops it too.
            self._parts.append(part)
        try:
            await part.start()
        except BaseException:
            await part.stop()
            raise
        self._came(part)

    async def end(self, part: Part) -> None:
        """Stop a part, and leave it so; harmless if it does not run."""
        if (watch := self._watches.pop(part, None)) is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await part.stop()
        self._tell(PartChanged(part.name, up=False, reason=f"{part.name} was ended."))

    def _came(self, part: Part) -> None:
        self._tell(PartChanged(part.name, up=True))
        self._watches[part] = asyncio.create_task(self._watch(part), name=f"watch {part.name}")

    async def stop(self) -> None:
        """Stop all parts in reverse order. Every part is asked, also when another one's end fails."""
        for watch in self._watches.values():
            watch.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        self._watches.clear()
        for part in reversed(self._parts):
            try:
                await part.stop()
            except Exception:
                log.exception("part.stop_failed", part=part.name)

    async def _watch(self, part: Part) -> None:
        pause_ms = PAUSE_MS_MIN
        while True:
            up_since_ms = self._clock.monotonic_ms()
            status = await part.exited()
            if self._clock.monotonic_ms() - up_since_ms >= STEADY_MS:
                pause_ms = PAUSE_MS_MIN
            log.warning("part.ended", part=part.name, status=status, pause_ms=pause_ms)
            self._tell(PartChanged(part.name, up=False, reason=f"{part.name} ended with status {status}."))
            pause_ms = await self._revive(part, pause_ms)

    async def _revive(self, part: Part, pause_ms: int) -> int:
        """Start `part` until it is up; returns the pause before the next attempt, should it die again at once."""
        attempt = 0
        while True:
            await self._clock.sleep_ms(pause_ms)
            pause_ms = min(pause_ms * 2, PAUSE_MS_MAX)
            attempt += 1
            try:
                # Clears what is left of the last run; the pipe of its leash, at least.
                await part.stop()
                await part.start()
            except StartError as error:
                log.warning("part.restart_failed", part=part.name, attempt=attempt, reason=error.message)
                self._tell(PartChanged(part.name, up=False, reason=error.message))
            except Exception as error:
                # A fault of ours, hence the traceback; the next attempt may succeed all the same.
                log.exception("part.restart_failed", part=part.name, attempt=attempt)
                self._tell(PartChanged(part.name, up=False, reason=repr(error)))
            else:
                log.info("part.restarted", part=part.name, attempt=attempt)
                self._tell(PartChanged(part.name, up=True))
                return pause_ms

    def _tell(self, change: PartChanged) -> None:
        try:
            self._on_change(change)
        except Exception:
            log.exception("part.listener_failed", part=change.name)
