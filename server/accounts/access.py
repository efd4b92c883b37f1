"""Access: one version for all that decides what people may do, so that it can be kept in memory.

Theory of operation. Keys, login sessions, roles and quotas live in Postgres, and every request needs them. So each
replica remembers them, under a version: a string that lives in the ledger and is renewed after every change of any of
them. A request is admitted with the version under which its limits were read. If the ledger has another one by then it
says "stale"; the caller forgets, and asks again, from the credential on. So a change holds from the next request, and
nobody asks Postgres while nothing changes.

The version is read before the rest, and renewed after a change is committed: memory may hold what is newer than its
version, which costs one more reading, but never what is older. Should the renewal be lost (Redis was away), memory is
forgotten after FRESH_MS anyway.
"""

import asyncio

from msgspec import Struct
from redis.exceptions import RedisError

from quotas.ledger import Ledger
from server.clock import Clock

FRESH_MS = 10_000


class Epoch(Struct, eq=False, frozen=True):
    """A time in which nothing changed, as far as this replica knows; what was read in it is good until it ends."""

    version: str
    began_ms: int


class Access:
    """The version, for one replica.

    Attributes:
        has_missed_one: whether a change could not be announced.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._epoch: Epoch | None = None
        self._reading = asyncio.Lock()
        self.has_missed_one = False

    async def epoch(self) -> Epoch:
        """The present one. Asks nobody while it is fresh."""
        if (epoch := self._fresh()) is not None:
            return epoch
        async with self._reading:
            if (epoch := self._fresh()) is None:
                began_ms = self._clock.monotonic_ms()
                epoch = self._epoch = Epoch(await self._version(), began_ms)
            return epoch

    def _fresh(self) -> Epoch | None:
        epoch = self._epoch
        return epoch if epoch is not None and self._clock.monotonic_ms() - epoch.began_ms < FRESH_MS else None

    async def _version(self) -> str:
        """The version, or none when Redis is away: once it is back, the ledger finds that stale."""
        try:
            return await self._ledger.policy_version()
        except (RedisError, OSError):
            return ""

    def forget(self, version: str) -> None:
        """That version is stale. Many find out at once; only the first of them ends the epoch."""
        if self._epoch is not None and self._epoch.version == version:
            self._epoch = None

    async def announce(self) -> bool:
        """Something has changed: have every replica read it before its next request.

        False if Redis is away: then they do within FRESH_MS.
        """
        self._epoch = None
        try:
            await self._ledger.renew_policy_version()
        except (RedisError, OSError):
            self.has_missed_one = True
            return False
        return True
