"""Secrets: tokens, keys, passwords, addresses with a password in them.

Three sources, each of which sees what the others do not:

- `token_shapes`, our own list of marks and frames, with loose lengths;
- the rules of detect-secrets 1.5.0, taken as expressions. Its own ways in are not used: `scan_line` searches strings
  without quotes and reports them below the limit of entropy ("hello how are you" is a hit); settings, also transient
  ones, are one object of the process, so that two requests would change each other's; `verify` asks the vendor over
  the network; and `findall` gives the group of an expression instead of the token (`ghp` of a GitHub token). The
  expressions need none of that;
- names: a value that stands at `password`, `api_key`, `Passwort`, in code, in JSON, in an `.env`, in a sentence, or as
  the field of a tool call.

A string in quotes, or a long one without, that is as random as a key is one too. Words, UUIDs, templates (`${X}`) and
values that stand for one (`changeme`) are none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from threading import Event
from typing import Any

from server.privacy.detectors.looking import Match, in_thread, looked_through
from server.privacy.detectors.token_shapes import NAMED_WITH, SHAPES
from server.privacy.findings import Finding, Kind, Unclear
from server.privacy.payload import Part

# Bits per character above which a string looks drawn by chance; detect-secrets has 4.5 for base64 and 3.0 for hex.
ENTROPY_MIN = 4.5
HEX_ENTROPY_MIN = 3.0
HEX_LENGTH_MIN = 16
# Without quotes only what is longer than any word; with letters of both cases and digits in it.
BARE_LENGTH_MIN = 32
BARE_DIGITS_MIN = 3
PASSWORD_LENGTH_MIN = 4
TOKEN_LENGTH_MIN = 8

# What the rules of detect-secrets are called here. Left out: public IP addresses (personal data, found there), its two
# entropy rules (own ones, with their limits), and rules of which ours are a superset.
_RULES = {
    "ArtifactoryDetector": "API_KEY",
    "CloudantDetector": "API_KEY",
    "IbmCloudIamDetector": "API_KEY",
    "IbmCosHmacDetector": "API_KEY",
    "MailchimpDetector": "API_KEY",
    "SoftlayerDetector": "API_KEY",
    "SquareOAuthDetector": "API_KEY",
    "AWSKeyDetector": "AWS_KEY",
    "AzureStorageKeyDetector": "AZURE_KEY",
    "GitHubTokenDetector": "GITHUB_TOKEN",
    "GitLabTokenDetector": "GITLAB_TOKEN",
    "NpmDetector": "NPM_TOKEN",
    "OpenAIDetector": "OPENAI_KEY",
    "PypiTokenDetector": "PYPI_TOKEN",
    "SendGridDetector": "SENDGRID_KEY",
    "SlackDetector": "SLACK_TOKEN",
    "StripeDetector": "STRIPE_KEY",
    "TelegramBotTokenDetector": "TELEGRAM_TOKEN",
    "TwilioKeyDetector": "TWILIO_KEY",
}
# detect-secrets' expressions are written for lines; a longer one is no line that somebody wrote.
LINE_MAX = 2000

_ASSIGNED = re.compile(
    rf"(?i)(?<![a-z])(?P<name>[A-Z0-9_.-]{{0,40}}?{NAMED_WITH}[A-Z0-9_]{{0,20}}|token|pass|pw|pin)[\"'`\])]{{0,3}}"
    r"\s{0,3}(?:=>|:=|={1,3}|!=|:)\s{0,3}(?P<quote>[\"'`])?"
    # In quotes to the closing one, blanks and other quotes included; without one a word.
    r"(?P<secret>(?(quote)(?:(?!(?P=quote))[^\n]){1,300}(?=(?P=quote))|(?!))|[^\s\"'`]{1,300})"
)
_ENV = re.compile(
    r"(?m)^\s{0,8}(?:export\s{1,3}|set\s{1,3}|-\s{1,3})?(?P<name>[A-Z][A-Z0-9_]{0,60}(?:KEY|TOKEN|SECRET|PASS|PASSWORD|PWD|PW"
    r"|CREDENTIALS|DSN|AUTH|SALT|PIN)(?:_[A-Z0-9]{1,20})?)\s?=\s?(?P<quote>[\"']?)(?P<secret>[^\s\"'#]{3,300})"
)
_SAID = re.compile(
    r"(?i)(?<![a-z])(?P<name>password|passphrase|passcode|passwort|kennwort|api[ -]?key|api[ -]?schlüssel"
    r"|access[ -]?token|secret(?: key)?|login code|pin(?: code|-code)?|tan|contraseña|mot de passe)"
    r"(?: (?:for|für|von|of|to|zu[mr]?) [^\n:]{1,40}?)?[ \t]{1,3}(?:is|was|lautet|ist|war|heißt|es|est|would be)"
    r"(?: now| jetzt)?[ \t]{0,9}:?[ \t]{0,9}(?P<quote>[\"'`„“]?)(?P<secret>[^\s\"'`“”]{4,200})"
)
_QUOTED = re.compile(r"([\"'`])([A-Za-z0-9+/=_-]{20,400})\1")
_BARE = re.compile(r"(?<![A-Za-z0-9+/=_.%-])[A-Za-z0-9+/_-]{32,400}={0,2}(?![A-Za-z0-9+/_=-])")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INDIRECT = re.compile(r"[A-Za-z_][\w.]*(?:\[|\(|\.\w|->|::)|[A-Za-z_]\w*[,;)]*$|\$\w+|%\w+%?$|[{<]")
_STANDS_FOR = re.compile(
    r"(?i)^(?:\$\{.*|<.*>?|\{.*|\[.*|%.*%|\*+|x{3,}|\.{2,}|-+|_+|(?:your|my|the|mein|dein|ihr)[-_ ].*"
    r"|.*example.*|.*placeholder.*|change[-_]?me|changeit|none|null|nil|true|false|undefined|string|str|password|passwort|secret|token|redacted|hidden|todo|tbd"
    r"|required|optional|unknown|invalid|wrong|empty|missing)$"
)
_FIELD = re.compile(rf"(?i)^(?:[a-z0-9_.-]{{0,40}}?{NAMED_WITH}[a-z0-9_]{{0,20}}|token|pass|pw|pin)$")
_SHORT_NAMES = re.compile(r"(?i)pass|kennwort|pwd|pw$|pin|contrase|mot.?de")
_KEY_END = re.compile(r"-{2,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{2,5}")
# A private key of 16 384 bits with its lines is shorter.
KEY_MAX = 16_000


class Secrets:
    """Finds secrets; needs no network, keeps nothing."""

    name = "secrets"
    kinds: frozenset[Kind] = frozenset({"secret"})

    @property
    def version(self) -> str:
        """Our own number, and that of the library."""
        return f"1+detect-secrets-{version('detect-secrets')}"

    async def prepare(self) -> None:
        """Load the rules, which takes a moment, before the first request needs them."""
        await in_thread(lambda _: _expressions())

    async def find(self, parts: Sequence[Part]) -> list[Finding]:
        """The secrets in `parts`.

        Raises:
            Unclear: something is wrapped too deeply to be looked at.
        """
        return await in_thread(lambda stop: self._find(parts, stop))

    def _find(self, parts: Sequence[Part], stop: Event) -> list[Finding]:
        fields = list(_fields(self.name, parts))
        try:
            found = looked_through(self.name, parts, look, stop)
        except Unclear as fault:
            raise Unclear(fault.sentence, [*fault.findings, *fields]) from None
        return [_whole_key(finding, parts) for finding in [*found, *fields]]


def look(text: str) -> Iterator[Match]:
    """The secrets in one piece of text."""
    yield from _by_shapes(text)
    yield from _by_rules(text)
    yield from _by_names(text)
    for match in _QUOTED.finditer(text):
        if _looks_drawn(match[2]):
            yield Match("secret", "SECRET", *match.span(2), 0.5)
    for match in _BARE.finditer(text):
        if _looks_drawn(match[0]) and _is_mixed(match[0]):
            yield Match("secret", "SECRET", *match.span(), 0.5)


def entropy(text: str) -> float:
    """Shannon's entropy of its characters, in bits per character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def is_secret_value(value: str, name: str, *, is_quoted: bool, is_said: bool = False) -> bool:
    """Whether `value`, which stands at a secret's `name`, is one, and not a word, a template, or an expression."""
    value = value.rstrip(",;)]}") if not is_quoted else value
    value = value.rstrip(".!?") if is_said else value
    is_password = _SHORT_NAMES.search(name) is not None
    if len(value) < (PASSWORD_LENGTH_MIN if is_password else TOKEN_LENGTH_MIN) or _STANDS_FOR.match(value):
        return False
    if is_quoted and not is_said:
        return is_password or not (value.isalpha() or " " in value)
    if not is_said and _INDIRECT.match(value) and not (re.search(r"[0-9]", value) and re.fullmatch(r"\w+", value)):
        return False
    has_digit = any(map(str.isdigit, value))
    if value.isdigit():
        return re.search(r"(?i)^pin|tan$|code|pass|pw", name) is not None
    has_sign = re.search(r"[^\w\s.,:;'’-]", value) is not None
    is_upright = value[:1].isalpha() and value.isalpha()
    return (has_digit or has_sign) and not is_upright


def _by_shapes(text: str) -> Iterator[Match]:
    lower = text.lower()
    for shape in SHAPES:
        if any(mark in lower for mark in shape.marks):
            for match in shape.pattern.finditer(text):
                group = next((name for name, value in match.groupdict().items() if value is not None), 0)
                yield Match("secret", shape.type, *match.span(group), 0.9)


def _by_names(text: str) -> Iterator[Match]:
    for pattern, score in ((_ENV, 0.8), (_ASSIGNED, 0.8), (_SAID, 0.7)):
        for match in pattern.finditer(text):
            value, name = match["secret"], match["name"]
            if is_secret_value(value, name, is_quoted=bool(match["quote"]), is_said=pattern is _SAID):
                yield Match("secret", _type_of(name), *match.span("secret"), score)


def _by_rules(text: str) -> Iterator[Match]:
    """What the expressions of detect-secrets match, line by line."""
    at = 0
    for line in text.splitlines(keepends=True):
        if len(line) <= LINE_MAX:
            for type_, pattern in _expressions():
                for match in pattern.finditer(line):
                    yield Match("secret", type_, at + match.start(), at + match.end(), 0.9)
        at += len(line)


@cache
def _expressions() -> tuple[tuple[str, re.Pattern[str]], ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class  # noqa: PLC0415 - costly

    known: dict[str, type[Any]] = get_mapping_from_secret_type_to_class()
    classes = {rule.__name__: rule for rule in known.values()}
    # A rule that went away with another version would be a silent hole.
    return tuple((type_, pattern) for rule, type_ in _RULES.items() for pattern in classes[rule]().denylist)


def _fields(name: str, parts: Sequence[Part]) -> Iterator[Finding]:
    """Whole values of fields that are called like a secret, as in `{"password": "..."}` of a tool call."""
    for index, part in enumerate(parts):
        keys = [key for key in part.path[-2:] if isinstance(key, str)]
        if part.is_key or not keys or "description" in keys:
            continue
        for key in keys:
            if _FIELD.match(key) and part.text and is_secret_value(part.text, key, is_quoted=True):
                yield Finding("secret", _type_of(key), index, 0, len(part.text), name, 0.8)
                break


def _type_of(name: str) -> str:
    return "PASSWORD" if _SHORT_NAMES.search(name) else "SECRET"


def _looks_drawn(text: str) -> bool:
    if _UUID.fullmatch(text):
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", text):
        return len(text) >= HEX_LENGTH_MIN and not text.isdigit() and entropy(text) > HEX_ENTROPY_MIN
    return entropy(text) > ENTROPY_MIN or (entropy(text) > ENTROPY_MIN - 0.5 and _is_mixed(text))


def _is_mixed(text: str) -> bool:
    """Capitals, small letters and digits, not only where words begin or numbers end, as in a path or a file name."""
    changes = len(re.findall(r"[A-Z][0-9]|[0-9][A-Za-z]|[a-z][0-9]", text))
    has_all = all(re.search(one, text) for one in ("[A-Z]", "[a-z]", "[0-9]"))
    return has_all and changes >= BARE_DIGITS_MIN


def _whole_key(finding: Finding, parts: Sequence[Part]) -> Finding:
    """A private key to its end, where its beginning was found."""
    if finding.type != "PRIVATE_KEY":
        return finding
    text = parts[finding.part].text
    end = _KEY_END.search(text, finding.end, finding.end + KEY_MAX)
    if end is None:
        return finding
    return Finding(finding.kind, finding.type, finding.part, finding.start, end.end(), finding.detector, finding.score)
