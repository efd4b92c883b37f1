"""Slows down guessing: attempts to log in are counted in Redis, for all replicas together.

Three counts, because each alone has a hole: per account and address (the ordinary attacker), per address (one who
tries many accounts), per account (one with many addresses; high, since it can lock out the owner). An attempt counts
before the password is checked, so that a burst of parallel ones does not slip through; a success takes its own count
back.
"""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

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
        names = _names(account, address)
        try:
            pipe: Any = self._redis.pipeline(transaction=True)
            async with pipe:
                for name in names.values():
                    pipe.incr(name)
                    pipe.ttl(name)
                results = await pipe.execute()
            counts = dict(zip(names, results[::2], strict=True))
            left_s = dict(zip(names, results[1::2], strict=True))
            for kind, name in names.items():
                # No expiry yet: this attempt opened the window.
                if left_s[kind] < 0:
                    await self._redis.expire(name, WINDOW_S)
        except (RedisError, OSError) as error:
            raise Unavailable(
                "Nobody can log in right now: the server cannot reach Redis.", code="login_unavailable", retry_after_s=5
            ) from error
        for kind, count in counts.items():
            if count > ATTEMPTS_MAX[kind]:
                wait_s = left_s[kind] if left_s[kind] > 0 else WINDOW_S
                raise TooMany(
                    f"Too many attempts to log in. Try again in {-(-wait_s // 60)} minutes.",
                    code="too_many_logins",
                    retry_after_s=wait_s,
                )

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
    account = account.casefold()[:100]
    return {
        "pair": f"wf:login:pair:{account}:{address}",
        "address": f"wf:login:address:{address}",
        "account": f"wf:login:account:{account}",
    }
