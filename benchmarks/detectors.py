"""What the detectors of forms and secrets find in a data set, what they miss, and what they find that is none.

    python -m benchmarks.detectors pii_synthetic.json

The file is the one of `benchmarks.pseudonyms`: texts with the spans of personal data in them. Each text is the question
of a body of its own, and every detector looks through the whole body. A span is found whole if every character of it
that is not white space is in some finding, in part if only some are, and missed if none is. What type a finding has
does not count for that, since it would keep the request here, or be replaced, under any name.

A false alarm is a finding that touches no span. The file marks no secrets and no code, so what `secrets` and `code`
find in it tells how much they block without need, and nothing of what they miss.

"Both" unites the findings of `secrets` and `structured`, as `examine` does. The model tier is not measured here: it
needs a model that can list the pieces of a text. Times are of this machine, the rest is the same with every run.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from benchmarks.pseudonyms import Text, share, texts
from server.clock import SystemClock
from server.privacy.detectors.code import Code
from server.privacy.detectors.secrets import Secrets
from server.privacy.detectors.structured import Structured
from server.privacy.findings import Detector, Finding, examine, merged
from server.privacy.payload import parts_of

DETECTING_MS_MAX = 60_000
# Of a hundred texts, ninety-five take no longer.
SLOW_SHARE = 0.95
# The rules were written with the file at hand. These were written after the rules, and no rule was changed for them:
# made-up sentences with something personal in each, and everyday ones without.
OTHERS_PERSONAL = (
    "I'm 34 and I live in Leeds with my daughter Sophie.",
    "Can you write a letter to my landlord, Mr Thompson, 14 Park View, Bristol?",
    "Meine Nachbarin Inge Kowalski hat Krebs.",
    "call me on 07700 900123 tonight",
    "Tom from accounting was fired because of his drinking",
    "my girlfriend's birthday is on the 4th of May 1997",
    "Our client Hartmann GmbH & Co. KG owes us 40,000 euros",
    "Patient, 56 J., männlich, Diabetes Typ 2, Aufnahme am 3.4.",
    "Wohne in der Goethestr. 7 in 80336 München",
    "reach me: sophie dot miller at gmail dot com",
    "My student number is 4471920",
    "Kind regards,\nSophie",
    "Konto 532013000, BLZ 37040044",
    "My husband works at Siemens in Erlangen as an engineer",
    "geb. 12.03.85 in Köln",
    "@sophie_m on instagram",
    "My passport no. is 533380006",
    "steam id STEAM_0:1:1234567",
    "NI number QQ 12 34 56 C",
    "my plate is M-AB 1234",
)
OTHERS_CLEAN = (
    "Explain the difference between TCP and UDP in 200 words.",
    "Was kostet ein Ticket der Deutschen Bahn von A nach B, wenn man 3 Wochen vorher bucht?",
    "Write a haiku about Mount Fuji in spring.",
    "Compare Kant and Hume on causality.",
    "Solve 3x + 7 = 22 and show each step.",
    "Give me 10 ideas for a birthday party for a 5 year old.",
    "What happened in 1989 in Berlin?",
    "Was ist der Unterschied zwischen GmbH und AG?",
    "How many people lived in Rome in 100 AD?",
    "Recipe: 2 cups flour, 1 tsp salt, bake at 350 F for 25 min.",
    "Summarise chapter 12, pages 230-245 of the book.",
    "Who wrote Pride and Prejudice?",
    "Convert 1500000 seconds to days.",
    "What does error 0x80070005 mean?",
    "The meeting is on 2026-12-01 at 10:30 in room 4.12.",
    "My token budget is 4096 tokens per request.",
    "Is the passphrase approach safer than a random password?",
    "Define the secret of success: hard work.",
    "Explain RFC 9110 section 15.4.",
    "ratio 16:9 and 1920x1080 at 60 Hz",
    "See Main Street by Sinclair Lewis.",
    "Der Weg 5 ist steil, aber Platz 3 ist frei.",
    "Liebe Kolleginnen und Kollegen,",
    "I am Iron Man is a line from which movie?",
    "Call 112 in an emergency.",
    "UTC+02:00 means what?",
    "The number is 1234567890 in base ten.",
    "pin: how do I pin a tab?",
    "ISO 8601: 20261124T101500Z",
    "DNA ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGT",
)
Outcome = Literal["whole", "part", "missed"]


class Looked(NamedTuple):
    """What one tier says of one text."""

    findings: tuple[Finding, ...]
    is_unclear: bool
    took_us: int


class Tier(NamedTuple):
    """A tier and what it says of all texts, in their order."""

    name: str
    looked: Sequence[Looked]

    def outcomes(self, everything: Sequence[Text]) -> list[list[Outcome]]:
        """For each text, for each of its spans, how much of it was found."""
        return [
            [outcome(text, span, each.findings) for span in text.spans]
            for text, each in zip(everything, self.looked, strict=True)
        ]


async def tier(detector: Detector, everything: Sequence[Text]) -> Tier:
    """One detector, asked about every text."""
    clock, looked = SystemClock(), []
    # Rules are loaded before anything is timed.
    await examine(parts_of({"messages": [{"content": "1"}]}), [detector], clock, DETECTING_MS_MAX)
    for text in everything:
        began_us = clock.monotonic_us()
        verdict = await examine(text.parts, [detector], clock, DETECTING_MS_MAX)
        took_us = clock.monotonic_us() - began_us
        looked.append(Looked(verdict.findings, verdict.unclear is not None, took_us))
    return Tier(detector.name, looked)


def both(first: Tier, second: Tier) -> Tier:
    """Two tiers as one; they take turns at the interpreter, so their times add up."""
    return Tier(
        "both",
        [
            Looked(
                merged([*one.findings, *other.findings]),
                one.is_unclear or other.is_unclear,
                one.took_us + other.took_us,
            )
            for one, other in zip(first.looked, second.looked, strict=True)
        ],
    )


def outcome(text: Text, span: Finding, findings: Sequence[Finding]) -> Outcome:
    """How much of a span was found."""
    covered = {at for one in findings if one.part == span.part for at in range(one.start, one.end)}
    wanted = {at for at in range(span.start, span.end) if not text.said[at].isspace()}
    if wanted <= covered:
        return "whole"
    return "part" if wanted & covered else "missed"


def touched(finding: Finding, spans: Sequence[Finding]) -> list[Finding]:
    """The spans of which a finding has at least one character."""
    return [
        span for span in spans if span.part == finding.part and span.start < finding.end and finding.start < span.end
    ]


def print_spans(everything: Sequence[Text], secrets: Tier, structured: Tier, united: Tier) -> None:
    """The first table: spans by their type."""
    outcomes = [each.outcomes(everything) for each in (secrets, structured, united)]
    types = [span.type for text in everything for span in text.spans]
    counts = [
        Counter((type_, one) for type_, one in zip(types, (one for row in rows for one in row), strict=True))
        for rows in outcomes
    ]
    print("| Type | spans | secrets: missed | structured: whole | in part | missed | both: missed |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for type_, count in [*Counter(types).most_common(), ("all", len(types))]:

        def cell(tier_: int, which: Outcome, type_: str = type_, count: int = count) -> str:
            number = sum(many for (one, how), many in counts[tier_].items() if type_ in (one, "all") and how == which)
            return share(number, count)

        cells = [cell(0, "missed"), cell(1, "whole"), cell(1, "part"), cell(1, "missed"), cell(2, "missed")]
        print(f"| {type_} | {count} | {' | '.join(cells)} |")


def print_texts(everything: Sequence[Text], tiers: Sequence[Tier]) -> None:
    """The second table: what becomes of whole texts, and how long it takes."""
    people = sum(bool(text.spans) for text in everything)
    clean = len(everything) - people
    print(f"\n| Of texts | {' | '.join(each.name for each in tiers)} |")
    print(f"|---|{'---:|' * len(tiers)}")
    rows: dict[str, list[str]] = {
        f"{people} with personal data: every span found whole": [],
        "… some of it found": [],
        "… nothing of it found (missed)": [],
        f"{clean} clean: something found (blocked without need)": [],
        f"all {len(everything)}: unclear": [],
        "all findings": [],
        "… of these false alarms": [],
        "ms per text: median": [],
        f"… {SLOW_SHARE:.0%} take at most": [],
        "… the slowest": [],
    }
    for each in tiers:
        of_texts = [row for row in each.outcomes(everything) if row]
        whole = sum(set(row) == {"whole"} for row in of_texts)
        missed = sum(set(row) == {"missed"} for row in of_texts)
        pairs = list(zip(everything, each.looked, strict=True))
        blocked = sum(bool(looked.findings) for text, looked in pairs if not text.spans)
        total = sum(len(looked.findings) for looked in each.looked)
        alarms = sum(not touched(finding, text.spans) for text, looked in pairs for finding in looked.findings)
        times = sorted(looked.took_us / 1000 for looked in each.looked)
        cells = [
            share(whole, people),
            share(people - whole - missed, people),
            share(missed, people),
            share(blocked, clean),
            share(sum(looked.is_unclear for looked in each.looked), len(everything)),
            str(total),
            share(alarms, total),
            f"{median(times):.1f}",
            f"{times[int(SLOW_SHARE * (len(times) - 1))]:.1f}",
            f"{times[-1]:.1f}",
        ]
        for row, said in zip(rows.values(), cells, strict=True):
            row.append(said)
    for label, row in rows.items():
        print(f"| {label} | {' | '.join(row)} |")


def print_alarms(everything: Sequence[Text], tiers: Sequence[Tier]) -> None:
    """The third table: findings by their type, and where they lie."""
    print(
        "\n| Found as | by | findings | on a span of this type | on another | false alarms | of these in clean texts |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for each in tiers:
        counts: Counter[tuple[str, str]] = Counter()
        for text, looked in zip(everything, each.looked, strict=True):
            for finding in looked.findings:
                types = {span.type for span in touched(finding, text.spans)}
                counts[finding.type, "all"] += 1
                counts[finding.type, "this" if finding.type in types else "another" if types else "none"] += 1
                counts[finding.type, "clean"] += not text.spans
        for type_ in sorted({type_ for type_, _ in counts}, key=lambda one: (-counts[one, "all"], one)):
            count = counts[type_, "all"]
            cells = [share(counts[type_, where], count) for where in ("this", "another", "none")]
            print(f"| {type_} | {each.name} | {count} | {' | '.join(cells)} | {counts[type_, 'clean']} |")


async def found_in(said: Sequence[str]) -> int:
    """In how many texts the detectors of secrets and forms find anything."""
    bodies = [parts_of({"messages": [{"role": "user", "content": each}]}) for each in said]
    detectors: list[Detector] = [Secrets(), Structured()]
    verdicts = [await examine(parts, detectors, SystemClock(), DETECTING_MS_MAX) for parts in bodies]
    return sum(bool(verdict.findings) for verdict in verdicts)


async def main(path: Path) -> None:
    """Print the three tables, and how other sentences fare."""
    everything = list(texts(path))
    secrets, structured, code = [await tier(one, everything) for one in (Secrets(), Structured(), Code())]
    united = both(secrets, structured)
    print_spans(everything, secrets, structured, united)
    print_texts(everything, [secrets, structured, united, code])
    print_alarms(everything, [secrets, structured, code])
    for name, said in (("with something personal", OTHERS_PERSONAL), ("without", OTHERS_CLEAN)):
        print(f"\nOther sentences {name}, something found: {share(await found_in(said), len(said), plain=True)}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
