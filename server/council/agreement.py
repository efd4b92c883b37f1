"""Who agrees with whom, and whether a majority would hold.

Answers with a value (extraction.py) agree if the values are the same. A short sentence with one number ("A spider has 8
legs") agrees with that number. Of other open answers nobody can say that without a
model that understands them; calling one would cost as much as what agreement is to save. So they are compared by their
words: the cosine of how often each content word occurs (logarithmically, stop words left out, plurals cut), which is
0 for no common word and 1 for the same words. They agree from `ALIKE_LEAST` on, if in addition the same numbers occur
and neither negates where the other does not. A short answer agrees with a long one that holds nearly all of its words.

What this cannot see: the same thing in other words (counted as disagreement, which costs a call, no harm), another
order ("A beats B", "B beats A"), irony, and a different word in a long text that turns it round (counted as agreement,
which is why the threshold is high). Two languages never agree. The thresholds are chosen, not fitted.

Who is in which opinion. "8" is the same as "8 km" and as "8 m", and these are not the same: agreement does not carry
over. So those that say most are grouped first (values that are no bare number, and texts), then bare numbers, then
sentences with one number. Each joins the opinion in which an answer from the groupings before says the same, or where
there are none the first one; of several opinions that with the most answers from before, of equal ones the first. So no
opinion holds two units, and where no two are equally large the order of such answers changes nothing.

Whether to ask on: Adaptive-Consistency (Aggarwal et al., EMNLP 2023). Of the two most frequent answers, seen a and b
times, the first is the majority with P = ∫½..1 xᵃ(1-x)ᵇ dx / ∫0..1 of the same. That is the chance of a Beta(a+1, b+1)
above ½, which for whole a and b is a sum of binomials: at most a heads in a+b+1 throws of a coin. Its authors stop at
0.95, which six votes reach only unanimously from 4 to 0 on; hence three thresholds.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from server.council.events import Opinion
from server.council.extraction import UNSPACED, Value, extract, only_number, spoken

# P from which a vote stops: 2 to 0; 3 to 0 or 5 to 1; 4 to 0.
STOP_AT = {"fast": 0.87, "balanced": 0.93, "careful": 0.95}
ALIKE_LEAST = 0.72
HELD_LEAST = 0.85
SHORT_WORDS_MAX = 12
SHORT_WORDS_LEAST = 2
OPINION_CHARACTERS_MAX = 80
# Of what stands in an answer; more would only make comparing slow.
WORDS_MAX = 20_000

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again all also am an and any are as at be because been before being below between both but
        by can could did do does doing down during each few for from further had has have having he her here hers him
        his how however i if in into is it its itself just may me might more most much must my of off on once only or
        other our out over own same she should so some such than that the their them then there these they this those
        through thus to too under until up use used very was we were what when where which while who whom why will with
        would you your
        """,
    )
)
NEGATIONS = frozenset({"no", "not", "never", "none", "nothing", "neither", "nor", "without", "cannot", "false"})
NEGATED = re.compile(r"n['’]t\b")
WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")

T = TypeVar("T")


class Compared(Struct, frozen=True):
    """An answer as it is compared: its value, or else its words, and its number where it is short and has only one."""

    value: Value | None
    only: Value | None
    words: Counter[str]
    numbers: frozenset[str]
    is_negated: bool


def read(text: str) -> Compared:
    """What of an answer is compared."""
    text = spoken(text)
    words = [_stem(word) for word in _words(text)][:WORDS_MAX]
    counted = Counter(word for word in words if word not in STOP_WORDS)
    is_negated = any(word in NEGATIONS for word in words) or NEGATED.search(text.casefold()) is not None
    value = extract(text)
    is_plain = value is None and not is_negated and _length(counted) <= SHORT_WORDS_MAX
    return Compared(
        value,
        only_number(text) if is_plain else None,
        counted,
        frozenset(word for word in words if word[0].isdigit()),
        is_negated,
    )


def agrees(one: str, other: str) -> bool:
    """Whether two answers say the same, as far as can be told. Symmetric."""
    return are_same(read(one), read(other))


def are_same(one: Compared, other: Compared) -> bool:
    """`agrees`, for answers that were read already."""
    if one.value is not None and other.value is not None:
        return one.value.is_same(other.value)
    for known, text in ((one, other), (other, one)):
        if known.value is not None and known.value.kind == "number" and text.only is not None:
            return known.value.is_same(text.only)
    return is_alike(one, other)


def is_alike(one: Compared, other: Compared) -> bool:
    """Whether two open answers agree by their words."""
    short, long = sorted((one.words, other.words), key=_length)
    if not short:
        return one.words == other.words and one.numbers == other.numbers
    if _length(short) <= SHORT_WORDS_MAX < _length(long):
        of_short = one if one.words is short else other
        held = sum(1 for word in short if word in long) / len(short)
        same_numbers = of_short.numbers <= (other if of_short is one else one).numbers
        return (
            len(short) >= SHORT_WORDS_LEAST
            and held >= HELD_LEAST
            and same_numbers
            and not (of_short.is_negated and not (one.is_negated and other.is_negated))
        )
    if one.numbers != other.numbers and _length(short) <= 10 * SHORT_WORDS_MAX:
        return False
    if one.is_negated != other.is_negated and _length(short) <= 10 * SHORT_WORDS_MAX:
        return False
    return similarity(one.words, other.words) >= ALIKE_LEAST


def similarity(one: Counter[str], other: Counter[str]) -> float:
    """The cosine of two texts' word counts, each as 1 + ln n: 0 to 1, symmetric."""
    if not one or not other:
        return 0.0
    common = sorted(one.keys() & other.keys())
    dot = math.fsum(_weight(one[word]) * _weight(other[word]) for word in common)
    return min(dot / math.sqrt(_square(one) * _square(other)), 1.0)


def opinions(answers: Sequence[tuple[str, str]]) -> tuple[Opinion, ...]:
    """Groups the answers by what they say, the largest group first; every label is in exactly one.

    Args:
        answers: label and text, the leader's first; the labels of an opinion are in the same order.
    """
    compared = [read(text) for _, text in answers]
    looseness = [_looseness(each) for each in compared]
    groups: list[list[int]] = []
    for loose in range(3):
        before = [list(group) for group in groups]
        for index, each in enumerate(compared):
            if looseness[index] != loose:
                continue
            firm = [*before, *([group[0]] for group in groups[len(before) :])]
            homes = [at for at, known in enumerate(firm) if any(are_same(compared[one], each) for one in known)]
            if homes:
                groups[max(homes, key=lambda at: len(before[at]) if at < len(before) else 0)].append(index)
            else:
                groups.append([index])
    groups.sort(key=lambda group: (-len(group), min(group)))
    return tuple(
        Opinion(
            answer=_shown(compared[group[0]], answers[group[0]][1]),
            labels=tuple(answers[index][0] for index in sorted(group)),
        )
        for group in groups
    )


def _looseness(compared: Compared) -> int:
    """How much an answer leaves open: 0 nothing, 1 the unit, 2 it is a sentence."""
    if compared.only is not None:
        return 2
    value = compared.value
    return int(value is not None and value.kind == "number" and value.measure is None)


def countable(answers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those of the answers that have a value of the most frequent kind: the ballots. The others abstain."""
    values = [(label, text, extract(text)) for label, text in answers]
    kinds = Counter(value.kind for _, _, value in values if value is not None)
    if not kinds:
        return ()
    kind = max(kinds, key=lambda each: kinds[each])
    return tuple((label, text) for label, text, value in values if value is not None and value.kind == kind)


def agreement(groups: Sequence[Opinion]) -> float:
    """The largest opinion's share of all answers, rounded to two digits; 0 without any."""
    total = sum(len(group.labels) for group in groups)
    return round(max(len(group.labels) for group in groups) / total, 2) if total else 0.0


def majority_holds(first: int, second: int) -> float:
    """P that the answer seen `first` times is the majority, if the next frequent was seen `second` times."""
    throws = first + second + 1
    return sum(math.comb(throws, heads) for heads in range(first + 1)) / (1 << throws)


def is_settled(counts: Sequence[int], stop_at: float) -> bool:
    """Whether a vote with so many ballots for each opinion needs no more."""
    first, second = _leading(counts)
    return first > 0 and majority_holds(first, second) >= stop_at


def is_out_of_reach(counts: Sequence[int], left: int) -> bool:
    """Whether the leading opinion stays ahead, however the ballots that can still come turn out."""
    first, second = _leading(counts)
    return first - second > left


def ballots_missing(counts: Sequence[int], stop_at: float, ballots_max: int) -> int:
    """How many more ballots settle the vote at the earliest, should all be for the first; at most `ballots_max`."""
    first, second = _leading(counts)
    for more in range(1, ballots_max):
        if majority_holds(first + more, second) >= stop_at:
            return more
    return ballots_max


def _leading(counts: Sequence[int]) -> tuple[int, int]:
    """The two largest."""
    first, second = (*sorted(counts, reverse=True), 0, 0)[:2]
    return first, second


def largest(groups: Sequence[T], size: Callable[[T], int]) -> T | None:
    """The one largest of them; None where two are, or there is none."""
    ranked = sorted(groups, key=size, reverse=True)
    if not ranked or (len(ranked) > 1 and size(ranked[0]) == size(ranked[1])):
        return None
    return ranked[0]


def _words(text: str) -> list[str]:
    text = text.casefold()
    # Writing without spaces between words is taken two signs at a time.
    unspaced = "".join(UNSPACED.findall(text))
    pairs = [unspaced[index : index + 2] for index in range(len(unspaced) - 1)] or ([unspaced] if unspaced else [])
    return WORD.findall(UNSPACED.sub(" ", text)) + pairs


def _stem(word: str) -> str:
    """Plurals and possessives are cut; no more, since that would make different words the same."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word  # noqa: PLR2004


def _length(words: Counter[str]) -> int:
    return sum(words.values())


def _weight(count: int) -> float:
    return 1.0 + math.log(count)


def _square(words: Counter[str]) -> float:
    return math.fsum(sorted(_weight(count) ** 2 for count in words.values()))


def _shown(compared: Compared, text: str) -> str:
    if compared.value is not None:
        return compared.value.text
    line = " ".join(spoken(text).split())
    return line if len(line) <= OPINION_CHARACTERS_MAX else line[: OPINION_CHARACTERS_MAX - 1].rstrip() + "…"
