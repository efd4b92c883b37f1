"""What stands in for a value: of the same type, of nobody, and drawn with a key.

A pseudonym is drawn by HMAC-SHA256 from the key, the conversation and the value, so the same value has the same one
within a conversation, another one in the next, and without the key nothing of the value follows from it but its type
(and of a name, how many words it has: each word has its own, so that "Jane Doe" and "Ms Doe" still belong together).

None can be anybody's: mail and web addresses under `example.invalid` and `.example` (RFC 2606), telephone numbers of
country code 999 and bank accounts of country ZZ, which nobody has (ITU E.164, ISO 3166), card numbers that begin with
0000 and fail Luhn's check, social security numbers of area 000, IP addresses for benchmarks and documentation (RFC
2544, RFC 3849), birthdays of the 19th century. Words are put together of syllables and have one length, so that none
is the beginning of another. All of it is ASCII without quotes or backslashes: it stands in JSON as it is.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

# How a pseudonym may be written differently by a model: words keep their letters together, digits are regrouped at
# will, and what is exact is restored exactly.
Style = Literal["words", "digits", "exact"]

_ONSETS = ["br", "dr", "fr", "gr", "kr", "pr", "tr", "vr", "bl", "fl", "gl", "kl", "vl", "sk", "sv", "st", "zl", "zw"]
_VOWELS = "aeiou"
_SINGLES = "lmnrvzdk"
_PAIRS = ["nd", "ld", "rn", "lm", "rk", "nt", "lk", "rd", "nk", "mb"]
_LAST = "aeio"
_NEUTRAL = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_NEUTRAL_LETTERS = 6
# Where somebody is called Street, no address fits; then it is a token.
TRIES_MAX = 200
_CARD_DIGITS = 12
_DATE_DIGITS_MIN = 6

# Types of the detectors, by how their values look. Those that are not here get a neutral token.
_LOOKS: dict[str, str] = {
    "PERSON": "name", "EMAIL": "mail", "PHONE": "phone", "IBAN": "account", "BANK_ACCOUNT": "account",
    "CREDIT_CARD": "card", "SOCIAL_SECURITY": "social", "IP_ADDRESS": "ip", "URL": "web", "ADDRESS": "address",
    "PLACE": "place", "ORGANISATION": "organisation", "BIRTH_DATE": "date", "USER_NAME": "handle",
    "IDENTIFIER": "handle",
}  # fmt: skip

_TITLES = frozenset(
    [
        *("mr", "mrs", "ms", "miss", "mx", "dr", "prof", "sir", "madam", "lady", "lord", "herr", "frau", "fräulein"),
        *("señor", "señora", "monsieur", "madame", "mme", "mlle", "dott"),
    ]
)
# Titles before a name stay where they are.
TITLE = re.compile(rf"(?:(?:{'|'.join(sorted(_TITLES))})\b\.?[^\S\n]*)+(?=\w)", re.IGNORECASE)
_NAME_WORDS_MAX = 4
_NAME_CHARACTERS_MAX = 80
_WORD_LETTERS_MIN = 3
_NAME_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


class Surrogate(Struct, frozen=True):
    """A pseudonym.

    Attributes:
        cores: pieces of it that must occur nowhere else, for they are what it is known by.
        aliases: shorter forms that a model may use, and that still mean the whole value.
    """

    text: str
    style: Style
    cores: tuple[str, ...]
    aliases: tuple[str, ...] = ()


class Chance:
    """Numbers drawn for one value; the same ones each time."""

    def __init__(self, key: bytes, *about: str) -> None:
        encoded = [each.encode(errors="surrogatepass") for each in about]
        message = b"".join(len(each).to_bytes(4) + each for each in encoded)
        self._left = int.from_bytes(hmac.digest(key, message, hashlib.sha512))

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1."""
        self._left, drawn = divmod(self._left, count)
        return drawn

    def of(self, choices: str | list[str]) -> str:
        """One of them."""
        return choices[self.below(len(choices))]

    def digits(self, count: int) -> str:
        """So many decimal digits."""
        return f"{self.below(10**count):0{count}d}"

    def word(self) -> str:
        """Eight letters that sound like a name and are none; the last is a vowel, so endings can be told from it."""
        parts = (_ONSETS, _VOWELS, _SINGLES, _VOWELS, _PAIRS, _LAST)
        return "".join(self.of(each) for each in parts)


Fits = Callable[[Surrogate], bool]


def drawn(key: bytes, conversation: str, type_: str, value: str, fits: Fits) -> Surrogate:
    """The first pseudonym of a value that fits.

    Args:
        value: in its canonical form: its words, in lower case.
        fits: whether it occurs nowhere, and is like no other.
    """
    for each in _all(key, conversation, type_, value):
        if fits(each):
            return each
    raise AssertionError("unreachable: there are always more")


def _all(key: bytes, conversation: str, type_: str, value: str) -> Iterator[Surrogate]:
    look = _LOOKS.get(type_, "neutral")
    if look == "date" and sum(map(str.isdigit, value)) < _DATE_DIGITS_MIN:
        look = "neutral"
    number = 0
    while True:
        chance = Chance(key, conversation, look if look != "neutral" else type_, value, str(number))
        if number >= TRIES_MAX:
            yield _neutral(chance, "")
        elif look == "neutral":
            yield _neutral(chance, type_)
        elif look == "ip":
            yield _ip(chance, is_long=not value.replace(" ", "").isdecimal())
        elif look == "web":
            yield _web(chance, has_scheme=value.startswith(("http ", "https ")))
        else:
            yield _DRAWS[look](chance)
        number += 1


def _name(chance: Chance) -> Surrogate:
    word = chance.word()
    return Surrogate(word.capitalize(), "words", (word,))


def _mail(chance: Chance) -> Surrogate:
    local = chance.word() + chance.digits(3)
    return Surrogate(f"{local}@example.invalid", "words", (local,))


def _phone(chance: Chance) -> Surrogate:
    digits = chance.digits(10)
    return Surrogate(f"+999 {digits[:2]} {digits[2:6]} {digits[6:]}", "digits", ("999" + digits,))


def _account(chance: Chance) -> Surrogate:
    digits = chance.digits(16)
    groups = " ".join(digits[at : at + 4] for at in range(0, 16, 4))
    return Surrogate(f"ZZ00 {groups}", "digits", ("zz00" + digits,))


def _card(chance: Chance) -> Surrogate:
    digits = "0000" + chance.digits(_CARD_DIGITS)
    if _luhn(digits) == 0:
        digits = digits[:-1] + str((int(digits[-1]) + 1) % 10)
    groups = " ".join(digits[at : at + 4] for at in range(0, 16, 4))
    return Surrogate(groups, "digits", (digits,))


def _luhn(digits: str) -> int:
    """0 where a card could have this number (ISO/IEC 7812-1)."""
    doubled = (2 * int(each) for each in digits[-2::-2])
    return (sum(int(each) for each in digits[::-2]) + sum(each - 9 * (each > 9) for each in doubled)) % 10  # noqa: PLR2004


def _social(chance: Chance) -> Surrogate:
    digits = chance.digits(6)
    return Surrogate(f"000-{digits[:2]}-{digits[2:]}", "digits", ("000" + digits,))


def _ip(chance: Chance, *, is_long: bool) -> Surrogate:
    if is_long:
        pieces = [f"{chance.below(0xF000) + 0x1000:x}" for _ in range(3)]
        return Surrogate(f"2001:db8:{':'.join(pieces)}::1", "words", ("2001db8" + "".join(pieces),))
    text = f"198.{18 + chance.below(2)}.{chance.below(256)}.{1 + chance.below(254)}"
    return Surrogate(text, "words", (text.replace(".", ""),))


def _web(chance: Chance, *, has_scheme: bool) -> Surrogate:
    name = chance.word() + chance.digits(3)
    aliases = (f"{name}.example",) if has_scheme else ()
    return Surrogate(f"{'https://' * has_scheme}{name}.example", "words", (name,), aliases)


def _address(chance: Chance) -> Surrogate:
    word, number = chance.word(), 1000 + chance.below(9000)
    street = f"{word.capitalize()} Street"
    return Surrogate(f"{number} {street}", "words", (word,), (street,))


def _place(chance: Chance) -> Surrogate:
    word = chance.word()[:-1] + "burg"
    return Surrogate(word.capitalize(), "words", (word,))


def _organisation(chance: Chance) -> Surrogate:
    word = chance.word()
    return Surrogate(f"{word.capitalize()} Ltd", "words", (word,), (word.capitalize(),))


def _date(chance: Chance) -> Surrogate:
    year, month, day = 1800 + chance.below(100), 1 + chance.below(12), 1 + chance.below(28)
    text = f"{year}-{month:02d}-{day:02d}"
    return Surrogate(text, "words", (text.replace("-", ""),))


def _handle(chance: Chance) -> Surrogate:
    name = chance.word() + chance.digits(3)
    return Surrogate(name, "exact", (name,))


def _neutral(chance: Chance, type_: str) -> Surrogate:
    token = "".join(chance.of(_NEUTRAL) for _ in range(_NEUTRAL_LETTERS))
    label = re.sub(r"[^A-Z]", "", type_.upper())[:16] or ("PERSONAL" if type_ else "")
    return Surrogate(f"{label}-{token}" if label else token, "words", (token.lower(),))


_DRAWS: dict[str, Callable[[Chance], Surrogate]] = {
    "name": _name,
    "mail": _mail,
    "phone": _phone,
    "account": _account,
    "card": _card,
    "social": _social,
    "address": _address,
    "place": _place,
    "organisation": _organisation,
    "date": _date,
    "handle": _handle,
}


def name_words(name: str) -> list[str]:
    """The words of a name that have a pseudonym each; none where it is no name of words.

    Titles, initials, and small words like "van" have none.
    """
    if len(name) > _NAME_CHARACTERS_MAX:
        return []
    words = [word for word in _NAME_WORD.findall(name) if len(word) >= _WORD_LETTERS_MIN]
    words = [word for word in words if word.casefold() not in _TITLES]
    if any(word[0].isupper() for word in words):
        words = [word for word in words if not word[0].islower()]
    return words if len(words) <= _NAME_WORDS_MAX else []
