"""Slows down guessing: attempts to log in are counted in Redis, for all replicas together.

Three counts, because each alone has a hole: per account and address (the ordinary attacker), per address (one who
tries many accounts), per account (one with many addresses; high, since it can lock out the owner). An attempt counts
before the password is checked, so that a burst of parallel ones does not slip through; a success takes its own count
back. An attempt that one count refuses is not counted by those after it: else one address could lock out the owner.
An IPv6 network of 64 bits counts as one address (addresses.py).
"""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.accounts.addresses import counted_as
from server.errors import TooMany, Unavailable

WINDOW_S = 15 * 60
ATTEMPTS_MAX = {"pair": 5, "address": 30, "account": 50}


class LoginThrottle:
    """Counts attempts within WINDOW_S of the first."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def count(self, account: str, address: str) -> None:
        """Count one attempt.

        Raises:
            TooMany: there were too many.
            Unavailable: Redis is away; nobody logs in uncounted.
        """
        for kind, name in _names(account, address).items():
            try:
                count, left_s = await self._count(name)
            except (RedisError, OSError) as error:
                raise Unavailable(
                    "Nobody can log in right now: the server cannot reach Redis.",
                    code="login_unavailable",
                    retry_after_s=5,
                ) from error
            if count > ATTEMPTS_MAX[kind]:
                minutes = -(-left_s // 60)
                raise TooMany(
                    f"Too many attempts to log in. Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
                    code="too_many_logins",
                    retry_after_s=left_s,
                )

    async def _count(self, name: str) -> tuple[int, int]:
        """Attempts under this name in its window, with this one, and the seconds that are left of the window."""
        pipe: Any = self._redis.pipeline(transaction=True)
        async with pipe:
            # The first attempt opens the window; later ones leave its end where it is.
            pipe.set(name, 0, ex=WINDOW_S, nx=True)
            pipe.incr(name)
            pipe.ttl(name)
            _, count, left_s = await pipe.execute()
        if left_s < 0:
            # `forgive` came after the window's end, and made a count without one.
            await self._redis.expire(name, WINDOW_S)
        return count, max(1, left_s)

    async def forgive(self, account: str, address: str) -> None:
        """The attempt was the owner's: forget those of this account from this address."""
        try:
            names = _names(account, address)
            await self._redis.delete(names["pair"])
            await self._redis.decr(names["address"])
            await self._redis.decr(names["account"])
        except (RedisError, OSError):
            return  # the counts expire by themselves


def _names(account: str, address: str) -> dict[str, str]:
    account, address = account.casefold()[:100], counted_as(address)
    return {
        "pair": f"wf:login:pair:{account}:{address}",
        "address": f"wf:login:address:{address}",
        "account": f"wf:login:account:{account}",
    }
