"""Salts and pins: what keeps the prompt caches of people apart inside an engine.

An engine that finds a prompt's beginning in its cache answers sooner, and that can be measured: whoever shares a cache
can find out what others have asked. So every request carries a salt that only its person's requests to this model share
(vLLM and SGLang mix it into their caches' keys), and no client may name one (api/wire.py strips it). The key is the
box's, in Redis, so that all replicas hit the same cache; if it is lost, caches are cold once. So are pins, which say
whose prompt a slot of llama-server holds.
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from quotas.ledger import Ledger
from server.clock import Clock
from server.engines.isolation import Pin
from server.errors import Unavailable

SALT_BYTES = 24
# A request that may land in any slot waits for those that read one (quotas/lua/pin.lua).
READING, READING_LOOK_EVERY_MS = -2, 20


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
        with _told():
            self._key = self._key or (await self._read_key()).encode()
        # Lengths in front, so that no two pairs read alike.
        parts = b"".join(len(part).to_bytes(4, "big") + part for part in (user.encode(), model.encode()))
        digest = hmac.new(self._key, parts, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:SALT_BYTES]).decode()


class LedgerPins:
    """Pins of all replicas (server/engines/isolation.py), kept by the ledger."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def take(self, place: str, request_id: str, salt: str, slots: int) -> Pin:
        """A slot for a request. Raises Unavailable."""
        with _told():
            while (found := await self._ledger.pin(place, request_id, salt, slots))[0] == READING:
                await self._clock.sleep_ms(READING_LOOK_EVERY_MS)
        slot, is_own = found
        return Pin(None if slot < 0 else slot, is_own)

    async def own(self, place: str, request_id: str, salt: str, slot: int) -> None:
        """The request's prompt is in its slot now. Raises Unavailable."""
        with _told():
            await self._ledger.own(place, request_id, salt, slot)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable("The server is cut off from Redis. Try again.", retry_after_s=1) from error
