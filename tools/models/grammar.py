"""Questions as small grammars: one line stands for many phrasings.

    ? [how] (make|create) (an API key|a key) (for a program|)

`(a|b)` is one of several, also nothing; `[name]` is a list from `macros.txt`. A line can be spoken (one phrasing,
chosen by chance), listed (all phrasings, up to a bound) and recognised (does it stand for this text?).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

PARTS = re.compile(r"[(|)]|[^(|)]+")
MACRO = re.compile(r"\[([\w-]+)\]")


@dataclass(frozen=True)
class Choice:
    """One of several sequences."""

    ways: tuple["Sequence_", ...]


Sequence_ = tuple["str | Choice", ...]


def parse(line: str, macros: Mapping[str, str]) -> Sequence_:
    """Read a line.

    Raises:
        ValueError: its brackets do not match.
        KeyError: it names a list that is not there.
    """
    while MACRO.search(line):
        line = MACRO.sub(lambda found: f"({macros[found[1]]})", line)
    stack: list[list[list[str | Choice]]] = [[[]]]
    for part in PARTS.findall(line):
        match part:
            case "(":
                stack.append([[]])
            case ")" if len(stack) > 1:
                ways = stack.pop()
                stack[-1][-1].append(Choice(tuple(tuple(way) for way in ways)))
            case "|" if len(stack) > 1:
                stack[-1].append([])
            case "|" | ")":
                raise ValueError(f"Brackets do not match: {line}")
            case _:
                stack[-1][-1].append(part)
    if len(stack) > 1:
        raise ValueError(f"Brackets do not match: {line}")
    return tuple(stack[0][0])


def tidy(text: str) -> str:
    """One space between words, none before a full stop or comma."""
    return re.sub(r" ([?.,!])", r"\1", " ".join(text.split()))


def speak(sequence: Sequence_, chance: Random) -> str:
    """One phrasing."""
    return tidy("".join(_spoken(sequence, chance)))


def _spoken(sequence: Sequence_, chance: Random) -> Iterator[str]:
    for part in sequence:
        if isinstance(part, Choice):
            yield from _spoken(chance.choice(part.ways), chance)
        else:
            yield part


def count(sequence: Sequence_) -> int:
    """How many phrasings it stands for."""
    total = 1
    for part in sequence:
        if isinstance(part, Choice):
            total *= sum(count(way) for way in part.ways)
    return total


def phrasings(sequence: Sequence_, at_most: int) -> list[str]:
    """The first phrasings, in order."""
    return list(dict.fromkeys(tidy(text) for text in islice(_listed(sequence), at_most)))


def _listed(sequence: Sequence["str | Choice"]) -> Iterator[str]:
    if not sequence:
        yield ""
        return
    first, rest = sequence[0], sequence[1:]
    heads: Iterator[str] = (
        (text for way in first.ways for text in _listed(way)) if isinstance(first, Choice) else iter([first])
    )
    for head in heads:
        for tail in _listed(rest):
            yield head + tail


def recogniser(sequence: Sequence_) -> str:
    """A regular expression for `plain` texts that it stands for; words are divided by one space."""
    return r"\s*".join(_recognised(sequence))


def _recognised(sequence: Sequence_) -> Iterator[str]:
    for part in sequence:
        if isinstance(part, Choice):
            yield "(?:" + "|".join(recogniser(way) for way in part.ways) + ")"
        else:
            yield r"\s+".join(re.escape(word) for word in plain(part).split())


def plain(text: str) -> str:
    """A text without what phrasings may differ in for free: case, signs, spaces."""
    return " ".join(re.findall(r"[^\W_]+(?:_[^\W_]+)*", text.lower().replace("'", "")))
