"""What is left on the wire after pseudonymising, and what comes back of an answer.

    python -m benchmarks.pseudonyms pii_synthetic.json

The file is a list of texts with the spans of personal data in them (`full_text`, `spans` of `entity_type`,
`entity_value`, `start_position`, `end_position`), as presidio-research makes them. Each text is the question of a body
of its own. It is pseudonymised twice: with the spans of the file, which shows what replacing itself leaves over, and
with the findings of the detectors of forms, which shows what they miss. What is left is looked for without the code
that replaces: the value as it stands in the file, in any case, as a word of the text that would leave.

Then a provider says the text back: as it is, in pieces of random size, and with every pseudonym written differently.
Nothing is drawn twice differently: the same file gives the same figures.
"""

import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from server.clock import SystemClock
from server.privacy.detectors.structured import Structured
from server.privacy.findings import Finding, examine
from server.privacy.payload import Part, parts_of, with_texts
from server.privacy.pseudonyms import Map, Pair, Pseudonyms, leaks
from server.privacy.restoring import Restorer, restored

KEY = bytes(32)
DETECTING_MS_MAX = 60_000
PIECE_CHARACTERS_MAX = 12
# What the file calls them, and what our detectors do.
TYPES = {
    "PERSON": "PERSON",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "STREET_ADDRESS": "ADDRESS",
    "ORGANIZATION": "ORGANISATION",
    "GPE": "PLACE",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN",
    "US_SSN": "SOCIAL_SECURITY",
    "US_DRIVER_LICENSE": "DRIVING_LICENCE",
    "IP_ADDRESS": "IP_ADDRESS",
    "DOMAIN_NAME": "URL",
    "DATE_TIME": "BIRTH_DATE",
    "AGE": "AGE",
}
MANGLED: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in capitals": str.upper,
    "in small letters": str.lower,
    "possessive ('s)": lambda text: f"{text}'s",
    "plural or German genitive (s)": lambda text: f"{text}s",
    "bold": lambda text: f"**{text}**",
    "as code": lambda text: f"`{text}`",
    "each word emphasised": lambda text: " ".join(f"*{word}*" for word in text.split()),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "broken over lines": lambda text: text.replace(" ", "\n"),
    "hyphens for spaces": lambda text: text.replace(" ", "-"),
    "first half only": lambda text: text[: len(text) // 2],
    "spelled with dots": ".".join,
}


class Text(NamedTuple):
    """One of the file, as a body."""

    body: dict[str, Any]
    parts: tuple[Part, ...]
    spans: tuple[Finding, ...]

    @property
    def said(self) -> str:
        """The question."""
        return self.parts[-1].text


def texts(path: Path) -> Iterator[Text]:
    """All of the file."""
    for each in json.loads(path.read_text()):
        body = {"model": "m", "messages": [{"role": "user", "content": each["full_text"]}]}
        parts = parts_of(body)
        spans = [
            Finding(
                "personal",
                TYPES.get(span["entity_type"], span["entity_type"]),
                len(parts) - 1,
                span["start_position"],
                span["end_position"],
                "file",
            )
            for span in each["spans"]
        ]
        yield Text(body, parts, tuple(spans))


def values_of(text: Text) -> list[tuple[str, str]]:
    """Type and value of each span."""
    return [(span.type, text.said[span.start : span.end]) for span in text.spans]


def is_left(value: str, said: str) -> bool:
    """Whether a value is a word of a text."""
    return re.search(rf"(?<!\w){re.escape(value.strip())}(?!\w)", said, re.IGNORECASE) is not None


class Sent(NamedTuple):
    """A text as it would leave."""

    said: str
    map: Map
    is_refused: bool


def sent(number: int, text: Text, findings: Sequence[Finding]) -> Sent:
    """Pseudonymised, in a conversation of its own."""
    new, found = Pseudonyms(KEY, str(number)).replaced(text.parts, findings)
    body = with_texts(text.body, text.parts, [part.text for part in new])
    return Sent(body["messages"][0]["content"], found, bool(leaks(found, json.dumps(body).encode())))


def left(everything: Sequence[Text], what: Sequence[Sent]) -> tuple[Counter[str], int, int]:
    """Values that are left, by type; texts with any; texts that the gate would not have sent."""
    count: Counter[str] = Counter()
    texts_left = 0
    for text, each in zip(everything, what, strict=True):
        types = [type_ for type_, value in values_of(text) if is_left(value, each.said)]
        count.update(types)
        texts_left += bool(types)
    return count, texts_left, sum(each.is_refused for each in what)


async def by_forms(text: Text) -> Sequence[Finding]:
    """What the detectors of forms find."""
    verdict = await examine(text.parts, [Structured()], SystemClock(), DETECTING_MS_MAX)
    return verdict.of("personal")


def print_left(everything: Sequence[Text], by_spans: Sequence[Sent], by_detectors: Sequence[Sent]) -> None:
    """The first table."""
    total = Counter(type_ for text in everything for type_, _ in values_of(text))
    spans, detectors = left(everything, by_spans), left(everything, by_detectors)
    print("| Type | values | left, all found | left, forms only |")
    print("|---|---:|---:|---:|")
    for type_, count in total.most_common():
        print(f"| {type_} | {count} | {share(spans[0][type_], count)} | {share(detectors[0][type_], count)} |")
    all_, people = total.total(), sum(bool(text.spans) for text in everything)
    print(f"| all values | {all_} | {share(spans[0].total(), all_)} | {share(detectors[0].total(), all_)} |")
    print(f"| texts with any left | {people} | {share(spans[1], people)} | {share(detectors[1], people)} |")
    print(f"| texts that the last gate refuses | {len(everything)} | {spans[2]} | {detectors[2]} |")


def print_restored(everything: Sequence[Text], what: Sequence[Sent]) -> None:
    """The second table."""
    chance = random.Random(1)  # noqa: S311 (of no secret)
    same = sum(
        in_pieces(each.map, each.said, chance) == restored(each.map, each.said) for each in what for _ in range(3)
    )
    whole = sum(restored(each.map, each.said)[0] == text.said for text, each in zip(everything, what, strict=True))
    print(f"\nIn random pieces the same as in one: {share(same, 3 * len(what), plain=True)}")
    print(f"The text said back is the text that was asked, letter by letter: {share(whole, len(what), plain=True)}\n")
    print("| Every pseudonym written | pseudonyms | restored | told as not restored | neither |")
    print("|---|---:|---:|---:|---:|")
    for name, mangle in MANGLED.items():
        outcomes = Counter(outcome(each.map, pair, mangle) for each in what for pair in whole_pairs(each))
        count = outcomes.total()
        cells = " | ".join(share(outcomes[each], count) for each in ("restored", "told", "neither"))
        print(f"| {name} | {count} | {cells} |")


def whole_pairs(each: Sent) -> list[Pair]:
    """Those that are in what left."""
    return [pair for pair in each.map.pairs if pair.pseudonym in each.said]


def in_pieces(found: Map, said: str, chance: random.Random) -> tuple[str, list[str]]:
    """Restored from a stream."""
    restorer, done, at = Restorer(found), "", 0
    while at < len(said):
        size = chance.randint(1, PIECE_CHARACTERS_MAX)
        done += restorer.feed(said[at : at + size])
        at += size
    return done + restorer.end(), restorer.unrestored


def outcome(found: Map, pair: Pair, mangle: Callable[[str], str]) -> str:
    """What became of one pseudonym in a sentence."""
    said, unrestored = restored(found, f"We asked: {mangle(pair.pseudonym)}, and then left.")
    squeezed = re.sub(r"[\W_]", "", said).casefold()
    if re.sub(r"[\W_]", "", pair.original).casefold() in squeezed:
        return "restored"
    return "told" if unrestored else "neither"


def share(part: int, of: int, *, plain: bool = False) -> str:
    """As a percentage, with its number."""
    told = f"{100 * part / of:.1f} % ({part})" if of else "0"
    return f"{told} of {of}" if plain else told


async def main(path: Path) -> None:
    """Print both tables."""
    everything = list(texts(path))
    by_spans = [sent(number, text, text.spans) for number, text in enumerate(everything)]
    by_detectors = [sent(number, text, await by_forms(text)) for number, text in enumerate(everything)]
    print_left(everything, by_spans, by_detectors)
    print_restored(everything, by_spans)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
