"""Salts: what keeps the prompt caches of people apart inside an engine.

An engine that finds a prompt's beginning in its cache answers sooner, and that can be measured: whoever shares a cache
can find out what others have asked. So every request carries a salt that only its person's requests to this model share
(vLLM and SGLang mix it into their caches' keys), and no client may name one (api/wire.py strips it). The key is the
box's, in Redis, so that all replicas hit the same cache; if it is lost, caches are cold once.
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from server.errors import Unavailable

SALT_BYTES = 24


class Salts:
    """Salts of one box.

    Args:
        key: gives the box's key; asked once. Raises redis.RedisError.
    """

    def __init__(self, key: Callable[[], Awaitable[str]]) -> None:
        self._read_key = key
        self._key = b""

    async def of(self, user: str, model: str) -> str:
        """For this person's requests to this model; says nothing of either. Raises Unavailable."""
        try:
            self._key = self._key or (await self._read_key()).encode()
        except (RedisError, OSError) as error:
            raise Unavailable("The server is cut off from Redis. Try again.", retry_after_s=1) from error
        # Lengths in front, so that no two pairs read alike.
        parts = b"".join(len(part).to_bytes(4, "big") + part for part in (user.encode(), model.encode()))
        digest = hmac.new(self._key, parts, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:SALT_BYTES]).decode()
