"""A program of ours that runs beside the server: started on a leash, with a log, watched, and ended.

The leash (leash.py) ends the program when the pipe that this class holds closes, so `stop` is closing a pipe, and dying
without `stop` is the same.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from server.clock import Clock
from server.embedded import leash
from server.embedded.paths import log_path
from server.errors import StartError

LEASH = Path(leash.__file__)
POLL_MS = 20
# A log is set aside as NAME.log.1 when its part starts; only one is kept.
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_BYTES_MAX = 64 * 1024
LOG_LINES_SHOWN_MAX = 5
# How much longer than the program's grace its leash may take to notice and to reap.
LEASH_MARGIN_MS = 5_000

Result = TypeVar("Result")


class Child:
    """One program on a leash. It may be started again after it has ended."""

    def __init__(
        self,
        name: str,
        *,
        data_dir: Path,
        clock: Clock,
        polite: signal.Signals = signal.SIGTERM,
        grace_ms_max: int = 10_000,
        not_root: bool = False,
    ) -> None:
        """Describe the program; nothing starts yet.

        Args:
            name: what people call it; its log is DATA/logs/NAME.log.
            data_dir: where the log's folder is.
            clock: measures waiting.
            polite: the signal that asks it to end.
            grace_ms_max: how long it may take to end before it is killed.
            not_root: it refuses to run as root (see leash.py).
        """
        self.name = name
        self._data_dir = data_dir
        self._clock = clock
        self._polite = polite
        self._grace_ms_max = grace_ms_max
        self._not_root = not_root
        self._log = data_dir / "logs" / f"{name}.log"
        # Where this run's output begins in the log.
        self._log_start = 0
        self._running: asyncio.subprocess.Process | None = None
        # The write end of the leash's pipe, as long as the program shall run.
        self._pipe: int | None = None

    @property
    def pid(self) -> int | None:
        """The leash's process id while it runs."""
        running = self._running
        return running.pid if running is not None and running.returncode is None else None

    async def launch(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start the program and return at once.

        Args:
            command: absolute path of the program, then its arguments.
            environment: variables that it gets on top of ours.

        Raises:
            StartError: its log cannot be written.
        """
        assert self._pipe is None, f"{self.name} runs already; stop it first"
        log = self._open_log()
        read_end, write_end = os.pipe()
        flags = [self._polite.name, str(self._grace_ms_max), *(["--not-root"] if self._not_root else [])]
        try:
            self._running = await asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", str(LEASH), *flags, *command],
                stdin=read_end,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
            os.close(log)
        self._pipe = write_end

    async def until(self, ready: Callable[[], Awaitable[bool]], *, start_ms_max: int) -> None:
        """Wait until the launched program is of use.

        Args:
            ready: asks it; polled every POLL_MS, and returns False for "not yet".
            start_ms_max: after so long it has failed.

        Raises:
            StartError: it ended, or took too long; the program is stopped then.
        """
        try:
            await self._poll(ready, start_ms_max)
        except BaseException:
            # Also when the caller was cancelled: nothing may be left running.
            await self.stop()
            raise

    async def _poll(self, ready: Callable[[], Awaitable[bool]], start_ms_max: int) -> None:
        deadline_ms = self._clock.monotonic_ms() + start_ms_max
        while self.pid is not None:
            left_ms = deadline_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                raise self.failure(f"was not ready after {start_ms_max // 1000} s")
            if await _within(self._clock, left_ms, ready()):
                return
            await self._clock.sleep_ms(POLL_MS)
        raise self.failure("ended while it started")

    async def exited(self) -> int:
        """Wait until the program has ended; returns its exit status (128 + number for a signal)."""
        assert self._running is not None, f"{self.name} was never started"
        return await self._running.wait()

    async def exited_within(self, duration_ms_max: int) -> int | None:
        """Wait like `exited`, but at most `duration_ms_max`; None when it still runs."""
        return await _within(self._clock, duration_ms_max, self.exited())

    async def stop(self) -> None:
        """End the program, or confirm that it has ended. Returns within the grace and LEASH_MARGIN_MS."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._running is None:
            return
        if await self.exited_within(self._grace_ms_max + LEASH_MARGIN_MS) is None:
            # Only a leash that somebody stopped comes here. Without it, the kernel ends the program (leash.py).
            with suppress(ProcessLookupError):
                self._running.kill()
            await self._running.wait()

    def last_lines(self, lines_max: int = LOG_LINES_SHOWN_MAX) -> list[str]:
        """The end of what the program said since it was launched last."""
        with suppress(OSError), self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - LOG_TAIL_BYTES_MAX))
            lines = log.read().decode(errors="replace").splitlines()
            return [line.strip() for line in lines if line.strip()][-lines_max:]
        return []

    def failure(self, what: str) -> StartError:
        """A StartError for the program that `what`, with the end of its log."""
        lines = self.last_lines()
        if self._running is not None and self._running.returncode == leash.REFUSED and lines:
            return StartError(lines[-1])
        reason = " | ".join(lines) or "it said nothing"
        return StartError(f"{self.name} {what}: {reason} (its log: {self._log})")

    def _open_log(self) -> int:
        path = log_path(self._data_dir, self.name)
        try:
            if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
                path.replace(path.with_suffix(".log.1"))
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(f"The log {path} cannot be written: {error.strerror}.") from None
        self._log_start = os.fstat(file).st_size
        return file


async def _within(clock: Clock, duration_ms_max: int, awaitable: Awaitable[Result]) -> Result | None:
    """What `awaitable` gives, or None when the clock says that it took too long."""
    work = asyncio.ensure_future(awaitable)
    alarm = asyncio.ensure_future(clock.sleep_ms(duration_ms_max))
    try:
        await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        alarm.cancel()
