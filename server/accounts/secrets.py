"""Secrets that the server makes: cookies, set-up links and API keys.

They are random (256 bits), so a plain SHA-256 of them is a safe thing to store and quick to look up; passwords, which
people choose, need more (passwords.py).
"""

import hashlib
import secrets

API_KEY_PREFIX = "wf-"
SHOWN_CHARACTERS = 8


def new_token() -> str:
    """A token for a cookie or a link."""
    return secrets.token_urlsafe(32)


def new_api_key() -> str:
    """A key that people recognise as ours, and secret scanners too."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def shown_part(key: str) -> str:
    """The beginning of a key, by which its owner recognises it."""
    return key[: len(API_KEY_PREFIX) + SHOWN_CHARACTERS]
