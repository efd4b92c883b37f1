"""Slows down wrong keys, cookies and set-up links, by the address that they come from, before Postgres is asked.

Theory of operation. They hold 256 random bits, so nobody guesses one; what they can do is make the server ask Postgres
for each. So a look at a credential is an attempt, and one that finds nobody counts for its address. After so many in a
minute the address is barred until the minute ends: its credentials get a 429 and nobody is asked.

Behind one address there may be many people (a NAT, a proxy that is not trusted), and one of them may be the attacker.
So a credential that was good within GOOD_S passes at a barred address too, and is asked for as always. Each server
remembers in memory which those are, and tells Redis once an hour for each; only at a barred address is Redis asked, so
that a server that has just started, or another of several, lets them pass as well. What is kept there is half of a
SHA-256 of the credential. One that is refused (revoked, expired) is no longer among them, and counts.

Redis counts for all servers together: each knows what it counted itself and hears the sum with each refusal. So with
n servers an address has n - 1 attempts more at most, and LOOKUPS_AT_ONCE_MAX - 1 on each that were under way. While
Redis is away each server counts for itself: nothing stops, and an address has as many attempts at each.

A good credential costs one look into a dict, and only where Postgres is asked anyway (authentication.py keeps
principals in memory for the requests that are many).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.accounts.addresses import counted_as
from server.accounts.secrets import digest
from server.clock import Clock
from server.errors import NotFound, TooMany

WINDOW_MS = 60_000
# Credentials of one address that are unknown and asked for at once, by each server.
LOOKUPS_AT_ONCE_MAX = 8
# What a server keeps in memory; the oldest go first.
ADDRESSES_MAX = 10_000
GOOD_MAX = 10_000
GOOD_S = 24 * 3600
GOOD_TOLD_AGAIN_MS = 3_600_000
# Nobody waits longer than this for a Redis that hangs.
REDIS_S_MAX = 0.5

log = structlog.get_logger(__name__)


@dataclass
class Attempt:
    """One look at a credential.

    Attributes:
        is_good: whether it was somebody's; None: nobody knows, since the answer did not come.
    """

    is_good: bool | None = None


@dataclass
class _Minute:
    """What an address did in a minute that began with its first refusal."""

    count: int
    ends_ms: int


class Refusals:
    """Counts what was wrong, for each address.

    Args:
        per_minute_max: so many bar an address until the minute ends; 0: nothing is counted.
    """

    def __init__(self, redis: Redis, clock: Clock, *, per_minute_max: int) -> None:
        self._redis = redis
        self._clock = clock
        self._per_minute_max = per_minute_max
        self._minutes: dict[str, _Minute] = {}
        # By the digest of the credential: when Redis was told.
        self._good: dict[str, int] = {}
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def attempt(self, address: str, secret: str) -> AsyncIterator[Attempt]:
        """Around a look at a credential; the block sets `is_good`, and NotFound out of it means that it is not.

        Raises:
            TooMany: the address is barred and the credential is not known as good; the block does not run.
        """
        attempt = Attempt()
        if not self._per_minute_max:
            yield attempt
            return
        line, name = counted_as(address), _named(secret)
        is_known = name in self._good
        # A burst of unknown ones passes few at a time, and each looks at what those before it did.
        turn = self._turns.setdefault(line, asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)) if not is_known else None
        try:
            if turn is not None:
                await turn.acquire()
                await self._pass(line, name)
            try:
                yield attempt
            except NotFound:
                attempt.is_good = False
                raise
            except asyncio.CancelledError:
                self._tally(line)  # whoever hangs up at once has asked all the same
                raise
            finally:
                if attempt.is_good is False:
                    await self._count(line, name)
            if attempt.is_good:
                await self._remember(name)
        finally:
            if turn is not None:
                turn.release()

    async def trust(self, secret: str) -> None:
        """A credential was made just now: it is good at a barred address too."""
        if self._per_minute_max:
            await self._remember(_named(secret))

    async def _pass(self, line: str, name: str) -> None:
        minute = self._present(line)
        if minute is None or minute.count < self._per_minute_max or await self._is_good(name):
            return
        left_s = max(1, -(-(minute.ends_ms - self._clock.monotonic_ms()) // 1000))
        raise TooMany(
            f"Too many wrong keys, logins or links came from this address. Try again in {left_s} "
            f"second{'s' if left_s > 1 else ''}.",
            code="too_many_refusals",
            retry_after_s=left_s,
        )

    async def _is_good(self, name: str) -> bool:
        try:
            async with asyncio.timeout(REDIS_S_MAX):
                return bool(await self._redis.exists(_good_key(name)))
        except (RedisError, OSError):
            return False

    def _present(self, line: str) -> _Minute | None:
        minute = self._minutes.get(line)
        return minute if minute is not None and minute.ends_ms > self._clock.monotonic_ms() else None

    def _tally(self, line: str) -> _Minute:
        """One more, as far as this server knows."""
        minute = self._present(line)
        if minute is None:
            self._minutes.pop(line, None)  # so that the newest stand last
            if len(self._minutes) >= ADDRESSES_MAX:
                del self._minutes[next(iter(self._minutes))]
            minute = self._minutes[line] = _Minute(0, self._clock.monotonic_ms() + WINDOW_MS)
        minute.count += 1
        return minute

    async def _count(self, line: str, name: str) -> None:
        """One more, for all servers; if it was good once, it is so no longer."""
        self._good.pop(name, None)
        minute = self._tally(line)
        key = f"wf:refused:{line}"
        pipe: Any = self._redis.pipeline(transaction=True)
        try:
            async with asyncio.timeout(REDIS_S_MAX), pipe:
                # The first opens the minute; later ones leave its end where it is.
                pipe.set(key, 0, px=WINDOW_MS, nx=True)
                pipe.incr(key)
                pipe.pttl(key)
                pipe.delete(_good_key(name))
                _, count, left_ms, _ = await pipe.execute()
        except (RedisError, OSError):
            pass  # counted here alone
        else:
            minute.count = max(minute.count, count)
            minute.ends_ms = self._clock.monotonic_ms() + max(1, left_ms)
        if minute.count == self._per_minute_max:
            log.warning("address barred for wrong credentials", address=line, count=minute.count)

    async def _remember(self, name: str) -> None:
        now_ms = self._clock.monotonic_ms()
        told_ms = self._good.get(name)
        if told_ms is not None and now_ms - told_ms < GOOD_TOLD_AGAIN_MS:
            return
        self._good.pop(name, None)
        if len(self._good) >= GOOD_MAX:
            del self._good[next(iter(self._good))]
        self._good[name] = now_ms
        try:
            async with asyncio.timeout(REDIS_S_MAX):
                await self._redis.set(_good_key(name), 1, ex=GOOD_S)
        except (RedisError, OSError):
            return  # this server knows


def _named(secret: str) -> str:
    return digest(secret).hex()[:32]


def _good_key(name: str) -> str:
    return f"wf:good:{name}"
