"""The one module that reads the clock, sleeps, and makes ids that hold a time.

Everything else takes a `Clock`, so that a test can pass time without waiting for it. Lint bans `time` and
`asyncio.sleep` elsewhere. Redis' own `TIME` rules what replicas share (quotas/lua/shared/keys.lua); this clock only
measures durations within a replica and stamps rows.
"""

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back; only differences mean something."""
        ...

    def monotonic_us(self) -> int:
        """The same in microseconds, to measure what is short."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Let `duration_ms` pass."""
        ...


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return datetime.now(UTC)

    def monotonic_ms(self) -> int:
        """Milliseconds since some moment in the past."""
        return time.monotonic_ns() // 1_000_000

    def monotonic_us(self) -> int:
        """Microseconds since the same moment."""
        return time.monotonic_ns() // 1_000

    async def sleep_ms(self, duration_ms: int) -> None:
        """Let `duration_ms` pass."""
        await asyncio.sleep(duration_ms / 1000)


def uuid7(now: datetime) -> UUID:
    """A UUID that sorts by time: 48 bits of milliseconds, then 74 random bits (RFC 9562, section 5.7)."""
    milliseconds = int(now.timestamp() * 1000)
    chance = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80 | chance
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)
