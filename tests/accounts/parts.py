"""What tests of accounts share."""

from typing import Literal

from argon2 import PasswordHasher

PASSWORD = "correct horse battery"
HOME = "192.0.2.7"


class CountingHasher(PasswordHasher):
    """Argon2 that counts how often it was asked to verify."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 (argon2's signature)
        """Count, and verify."""
        self.verified += 1
        return super().verify(hash, password)
