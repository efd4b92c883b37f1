"""Passwords: argon2id, off the event loop, and as slow for people who do not exist."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.errors import InvalidRequest

LENGTH_MIN = 10
# Hashing a novel is work that an attacker could order.
LENGTH_MAX = 1024
# A hash takes 64 MiB and some 100 ms of a core: more at once would slow everybody's tokens.
HASHES_AT_ONCE_MAX = 2


class Passwords:
    """Makes and checks hashes, with argon2-cffi's defaults (RFC 9106, low-memory profile)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE_MAX)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """A hash to store.

        Raises:
            InvalidRequest: the password is too short or too long.
        """
        if len(password) < LENGTH_MIN:
            raise InvalidRequest(f"A password has at least {LENGTH_MIN} characters.", param="password")
        if len(password) > LENGTH_MAX:
            raise InvalidRequest(f"A password has at most {LENGTH_MAX} characters.", param="password")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether the password is right. Without a stored hash: no, after the same time."""
        if self._nobody is None:
            self._nobody = await asyncio.to_thread(self._hasher.hash, "nobody has this password")
        async with self._turns:
            is_right = await asyncio.to_thread(self._verify, stored or self._nobody, password[:LENGTH_MAX])
        return is_right and stored is not None and len(password) <= LENGTH_MAX

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
