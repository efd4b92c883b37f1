"""Keys of providers at rest: sealed with a key that the database does not hold.

A seal is AES-256-GCM (NIST SP 800-38D) over the text, with a random nonce of 12 bytes, and bound to what it is about: a
row's name, kind and URL. So whoever can write into the database can neither read a provider's key nor have it sent to
an address of his own. 2^32 seals with one key would make two equal nonces thinkable; there are some dozens.

The encryption key itself seals nothing. Keys for one purpose each are derived from it (HKDF-SHA-256, RFC 5869), so that
what pseudonyms leak, if anything, says nothing about seals.

    setting encryption_key = NEW             seals with NEW, opens NEW
    setting encryption_key = NEW,OLD         seals with NEW, opens NEW and OLD; derives from NEW
"""

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.errors import StartError, Unavailable

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
# The first byte of a seal, should there ever be another form.
FORM = b"\x01"
PURPOSE = "wirthforge "
HOW_TO_MAKE = "Make one with `openssl rand -base64 32`."


class SealBroken(Unavailable):
    """A seal that none of the keys opens: another key has sealed it, or it was changed, or moved to another row."""

    code = "seal_broken"


class Seal:
    """Seals and opens short secrets.

    Args:
        keys: of KEY_BYTES each; the first seals and derives, all open.
    """

    def __init__(self, *keys: bytes) -> None:
        assert keys, "there is a key"
        assert all(len(key) == KEY_BYTES for key in keys), "keys have their length"
        self._key = keys[0]
        self._ciphers = [AESGCM(_derived(key, "seal", KEY_BYTES)) for key in keys]

    def __repr__(self) -> str:
        return f"Seal({len(self._ciphers)} keys)"

    def seal(self, text: str, about: str) -> bytes:
        """Seal a text; `open` needs the same `about`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FORM + nonce + self._ciphers[0].encrypt(nonce, text.encode(), about.encode())

    def open(self, sealed: bytes, about: str) -> str:
        """The text. Raises SealBroken."""
        return self._opened(sealed, about)[0]

    def is_current(self, sealed: bytes, about: str) -> bool:
        """Whether the first key has sealed it. Raises SealBroken where none has."""
        return self._opened(sealed, about)[1] == 0

    def derived(self, purpose: str, length_bytes: int = KEY_BYTES) -> bytes:
        """A key for something else; the same for the same purpose as long as the first key stays."""
        return _derived(self._key, f"for {purpose}", length_bytes)

    def _opened(self, sealed: bytes, about: str) -> tuple[str, int]:
        if sealed.startswith(FORM) and len(sealed) >= len(FORM) + NONCE_BYTES + TAG_BYTES:
            nonce, rest = sealed[len(FORM) :][:NONCE_BYTES], sealed[len(FORM) + NONCE_BYTES :]
            for place, cipher in enumerate(self._ciphers):
                try:
                    return cipher.decrypt(nonce, rest, about.encode()).decode(), place
                except InvalidTag:
                    continue
        raise SealBroken("A secret was sealed with another encryption key, or was changed since.")


def _derived(key: bytes, purpose: str, length_bytes: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length_bytes, salt=None, info=(PURPOSE + purpose).encode()).derive(key)


def new_key() -> str:
    """A random key, as the setting writes it."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def seal_from(setting: str, source: str = "The setting encryption_key") -> Seal | None:
    """The seal of a setting: keys of 32 bytes as base64, with commas; None where it is empty.

    Args:
        source: what is named where it is wrong.

    Raises:
        StartError: a key is no base64, or has another length. The message never holds it.
    """
    if not setting.strip():
        return None
    return Seal(*(_decoded(part.strip(), source) for part in setting.split(",")))


def _decoded(text: str, source: str) -> bytes:
    # Both alphabets, and also without the signs at the end, which people lose.
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise StartError(f"{source} is wrong: a key is 32 bytes written as base64. {HOW_TO_MAKE}") from None
    if len(key) != KEY_BYTES:
        raise StartError(f"{source} is wrong: a key has {KEY_BYTES} bytes, and this one {len(key)}. {HOW_TO_MAKE}")
    return key
