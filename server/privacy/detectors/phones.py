"""Phone numbers: what could be dialled, and is not a date, an amount or an address of a machine.

A number with its country (`+49 ...`) needs nothing else. One without is told by the words around it, by a leading zero
or an area code in brackets, by being valid in one of `REGIONS` (the numbering plans of phonenumbers, a port of Google's
libphonenumber), or by the way in which it is grouped.
"""

import re
from collections.abc import Iterator

from server.privacy.detectors.forms import is_near
from server.privacy.detectors.looking import Match

REGIONS = ("US", "DE", "GB", "FR", "CH", "AT")
# ITU-T E.164 allows 15 digits; with fewer than 6 it is an extension.
DIGITS_MIN = 6
DIGITS_MAX = 15
# Without any other sign than its form.
BARE_DIGITS_MIN = 8
BARE_DIGITS_MAX = 13
# Without separators many shorter numbers are valid somewhere.
BARE_VALID_MIN = 10

# Country, area in brackets, the rest; an extension.
_CANDIDATE = re.compile(
    r"(?<![\w.:/+#-])(?<!\d,)(?P<it>(?:\(?(?:\+|00) ?\d{1,3}\)?[ .-]?|1[ .-]?)?(?:\(\d{1,5}\)[ .-]{0,2})?"
    r"\d(?:[ ./-]{0,3}\d){4,16}"
    r"(?:[ ]?(?:x|ext\.?|Durchwahl|Dw\.?)[ ]?\d{1,6})?)(?!\w|[.,:/-]\d)"
)
_WORDS = re.compile(
    r"(?i)(?:phone|tele[fp]|\btel\b|mobile?|\bcell|\bcall|dial|\bfax|handy"
    "|rufnummer|anruf|ruf mich|erreich|reach me|text me|whatsapp"
    r"|signal|contact|answer|\bnumber is\b|\bnummer\b|hotline|durchwahl)"
)
_NOT_ONE = re.compile(
    r"\d{1,2}[./-]\d{1,2}[./-](?:\d{2}|\d{4})(?: \d{1,2}.*)?|\d{4}[./-]\d{1,2}[./-]\d{1,2}(?: .*)?"
    r"|\d{1,3}(?:[ .]000){1,4}"
    r"|(?:\d{1,3}\.){3}\d{1,3}|(?:19|20)\d{2}\s?[-/]\s?(?:19|20)\d{2}|\d+\.\d+"
    r"|\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}|(\d)(?:[ -]?\1)+"
)
_GROUPED = re.compile(r"\d{2,4}(?:[ .-]\d{2,4}){1,4}")
_TYPED_APART = re.compile(r"[ ./()-]")


def found(text: str) -> Iterator[Match]:
    """The phone numbers in `text`."""
    for match in _CANDIDATE.finditer(text):
        score = _score(match["it"], text, *match.span("it"))
        if score:
            yield Match("personal", "PHONE", *match.span("it"), score)


def _score(candidate: str, text: str, start: int, end: int) -> float:
    number = re.split(r" ?(?:x|e|D)", candidate, maxsplit=1)[0].strip()
    digits = sum(map(str.isdecimal, number))
    if not DIGITS_MIN <= digits <= DIGITS_MAX or _NOT_ONE.fullmatch(number):
        return 0.0
    if number.startswith(("+", "(+")) or is_near(_WORDS, text, start, end):
        return 0.8
    if not BARE_DIGITS_MIN <= digits <= BARE_DIGITS_MAX:
        return 0.0
    is_apart = _TYPED_APART.search(number) is not None
    if (number.startswith("(") or (number.startswith("0") and not number.startswith("0."))) and (
        is_apart or digits > BARE_DIGITS_MIN
    ):
        return 0.6
    if (is_apart or digits >= BARE_VALID_MIN) and not _is_power(number) and _is_valid(number):
        return 0.5
    parts = re.split(r"[ .-]", number)
    is_amount = all(len(part) == 3 for part in parts[1:])  # noqa: PLR2004 - thousands
    return 0.4 if is_apart and _GROUPED.fullmatch(number) and len(parts) > 1 and not is_amount else 0.0


def _is_power(number: str) -> bool:
    """Limits of integers, 2147483647 before all, are no numbers to dial."""
    return number.isdecimal() and ((value := int(number)) & (value - 1) == 0 or value & (value + 1) == 0)


def _is_valid(number: str) -> bool:
    import phonenumbers  # noqa: PLC0415 - costly, and needed only where something may leave

    for region in REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False
