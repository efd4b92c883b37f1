"""Time that passes when a test says so."""

import asyncio
from datetime import UTC, datetime, timedelta

BEGINNING = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FakeClock:
    """A `server.clock.Clock` that begins at noon and stands still but for `advance`."""

    def __init__(self) -> None:
        self._passed = timedelta()
        self._sleepers: list[tuple[timedelta, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return BEGINNING + self._passed

    def monotonic_ms(self) -> int:
        """Milliseconds since the beginning."""
        return self._passed // timedelta(milliseconds=1)

    def monotonic_us(self) -> int:
        """Microseconds since the beginning."""
        return self._passed // timedelta(microseconds=1)

    async def sleep_ms(self, duration_ms: int) -> None:
        """Wait until a test has let `duration_ms` pass."""
        turn = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._passed + timedelta(milliseconds=duration_ms), turn))
        await turn

    def advance(self, duration: timedelta) -> None:
        """Let time pass, and wake whoever has slept long enough."""
        self._passed += duration
        for wakes, turn in self._sleepers:
            if wakes <= self._passed and not turn.done():
                turn.set_result(None)
        self._sleepers = [(wakes, turn) for wakes, turn in self._sleepers if not turn.done()]
