"""Personal data that has a form: addresses, numbers with check digits, announced names.

The recognisers of presidio-analyzer 2.2.366 are used one by one, for what has a check digit or a national form; our own
forms (`forms`, `phones`, `addresses`) for the rest. Its analyzer engine is not used: it wants a language model (and
fetches one over the network unless told otherwise), and all that a blank one would add are words near a match, which
`is_near` finds on its own. Its e-mail and URL recognisers are not used either: they ask tldextract, which fetches the
list of public suffixes at its first use.

Two traps: a recogniser whose expression runs out of time logs a warning and finds nothing, and some log the text that
they looked at. So its log is cut off here, and a warning in it makes the detector say that it is not sure.

By forms alone only a part of what people write about people is found (docs/privacy-figures.md). This is no gate.
"""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from threading import Event
from typing import Any

from server.privacy.detectors import addresses, phones
from server.privacy.detectors.forms import FIELDS, FORMS, found, is_near
from server.privacy.detectors.looking import Match, in_thread, looked_through
from server.privacy.findings import Finding, Kind, Unclear
from server.privacy.payload import Part

# With a valid check digit, in presidio's words.
SURE = 1.0
# Names of tools are written like this, names of people are not.
_IDENTIFIER = re.compile(r"[a-z0-9]+(?:[_.-][a-z0-9]+)+|[a-z]+[A-Z]\w*|.*[0-9_].*")
FIELD_MAX = 200

# presidio's classes, what is found called here, and whether a valid check digit is enough; otherwise a word close by
# must say what the number is (many numbers of so many digits are valid by chance). InPanRecognizer is left out: hostile
# text keeps its expression busy for a second every 8 kB.
_NATIONAL = (
    ("CreditCardRecognizer", "CREDIT_CARD", True),
    ("IbanRecognizer", "IBAN", True),
    ("CryptoRecognizer", "WALLET", True),
    ("DeTaxIdRecognizer", "TAX_ID", False),
    ("DeTaxNumberRecognizer", "TAX_ID", False),
    ("DeIdCardRecognizer", "ID_CARD", False),
    ("DePassportRecognizer", "ID_CARD", False),
    ("DeSocialSecurityRecognizer", "SOCIAL_SECURITY", True),
    ("DeHealthInsuranceRecognizer", "HEALTH_INSURANCE", True),
    ("DeFuehrerscheinRecognizer", "DRIVING_LICENCE", False),
    ("DeKfzRecognizer", "LICENCE_PLATE", False),
    ("UsItinRecognizer", "TAX_ID", False),
    ("UsPassportRecognizer", "ID_CARD", False),
    ("UsBankRecognizer", "BANK_ACCOUNT", False),
    ("UsLicenseRecognizer", "DRIVING_LICENCE", False),
    ("NhsRecognizer", "HEALTH_INSURANCE", False),
    ("UkNinoRecognizer", "SOCIAL_SECURITY", True),
    ("UkPassportRecognizer", "ID_CARD", False),
    ("UkDrivingLicenceRecognizer", "DRIVING_LICENCE", True),
    ("EsNifRecognizer", "ID_CARD", True),
    ("EsNieRecognizer", "ID_CARD", True),
    ("ItFiscalCodeRecognizer", "TAX_ID", True),
    ("FiPersonalIdentityCodeRecognizer", "SOCIAL_SECURITY", True),
    ("PlPeselRecognizer", "SOCIAL_SECURITY", False),
    ("SePersonnummerRecognizer", "SOCIAL_SECURITY", False),
    ("InAadhaarRecognizer", "ID_CARD", False),
    ("AuTfnRecognizer", "TAX_ID", False),
    ("AuMedicareRecognizer", "HEALTH_INSURANCE", False),
    ("SgFinRecognizer", "ID_CARD", False),
    ("TrNationalIdRecognizer", "ID_CARD", False),
)


class Structured:
    """Finds personal data by its form; needs no network and no model, keeps nothing."""

    name = "structured"
    kinds: frozenset[Kind] = frozenset({"personal"})

    @property
    def version(self) -> str:
        """Our own number, and those of the libraries."""
        return f"1+presidio-{version('presidio-analyzer')}+phonenumbers-{version('phonenumbers')}"

    async def prepare(self) -> None:
        """Load the rules, which takes seconds, before the first request needs them."""
        await in_thread(lambda _: recognisers())

    async def find(self, parts: Sequence[Part]) -> list[Finding]:
        """The personal data in `parts`.

        Raises:
            Unclear: something is wrapped too deeply, or a rule did not finish.
        """
        return await in_thread(lambda stop: self._find(parts, stop))

    def _find(self, parts: Sequence[Part], stop: Event) -> list[Finding]:
        fields = list(_fields(self.name, parts))
        _watch.failed = False
        try:
            matches = looked_through(self.name, parts, look, stop)
        except Unclear as fault:
            raise Unclear(fault.sentence, [*fault.findings, *fields]) from None
        if _watch.failed:
            raise Unclear("A rule of the detector structured did not finish.", [*matches, *fields])
        return [*matches, *fields]


def look(text: str) -> Iterator[Match]:
    """The personal data in one piece of text."""
    for form in FORMS:
        yield from found(form, text)
    yield from phones.found(text)
    yield from addresses.found(text)
    if any(map(str.isdecimal, text)):  # every national form has digits
        for recogniser in recognisers():
            yield from _by(recogniser, text)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One of presidio's, with what we call its findings."""

    type: str
    rule: Any
    is_enough: bool
    near: re.Pattern[str]


@cache
def recognisers() -> tuple[Recogniser, ...]:
    """Those of presidio that are asked; built once, which takes a second."""
    from presidio_analyzer import predefined_recognizers  # noqa: PLC0415 - costly, needed only where something may leave

    log = logging.getLogger("presidio-analyzer")
    log.propagate = False
    log.addHandler(_Fuse())
    built = []
    for name, type_, is_enough in _NATIONAL:
        rule = getattr(predefined_recognizers, name)()
        near = re.compile("(?i)(?<![a-zäöü])(?:" + "|".join(map(re.escape, rule.context or ["(?!)"])) + ")")
        built.append(Recogniser(type_, rule, is_enough, near))
    return tuple(built)


def _by(recogniser: Recogniser, text: str) -> Iterator[Match]:
    for result in recogniser.rule.analyze(text, recogniser.rule.supported_entities):
        is_sure = result.score >= SURE and recogniser.is_enough
        if is_sure or is_near(recogniser.near, text, result.start, result.end):
            yield Match("personal", recogniser.type, result.start, result.end, 0.9 if is_sure else 0.6)


class _Watch(threading.local):
    """Whether a rule gave up in this thread."""

    failed = False


_watch = _Watch()


class _Fuse(logging.Handler):
    """Takes presidio's log out of ours, and remembers that there was a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and "timed out" in str(record.msg):
            _watch.failed = True


def _fields(name: str, parts: Sequence[Part]) -> Iterator[Finding]:
    """Whole values of fields that hold personal data, as in `{"surname": "..."}` of a tool call, and people's names."""
    for index, part in enumerate(parts):
        key = part.path[-1] if part.path else None
        if part.is_key or not isinstance(key, str) or not 1 < len(part.text) <= FIELD_MAX:
            continue
        if key == "name" and part.path[:1] == ("messages",) and "function" not in part.path:
            if not _IDENTIFIER.fullmatch(part.text):
                yield Finding("personal", "PERSON", index, 0, len(part.text), name, 0.6)
            continue
        for pattern, type_ in FIELDS:
            if pattern.match(key):
                yield Finding("personal", type_, index, 0, len(part.text), name, 0.8)
                break
