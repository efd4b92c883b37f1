"""Where a value occurs in a text, however it is written there.

A value is compared by its letters and digits alone, in every reading of the text (normalised.py): case, blanks,
hyphens, invisible characters, letters that look alike, escapes and base64 hide nothing. What is between two words of a
value may be anything short, or nothing; within a word only what is no letter to the reading. Numbers may be grouped at
will. A value is no part of a longer word ("Ann" is not in "Annual"), but for endings like a plural's; in scripts
without spaces it may stand anywhere. Values of up to three letters are compared with their case, for "IN" and "in" are
different, and a single letter or digit, or signs alone, are looked for nowhere.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property

from msgspec import Struct

from server.privacy.normalised import View, views

LENGTH_MIN = 2
_CASED_LENGTH_MAX = 3
# From here on a value that has digits may be grouped anywhere.
_GROUPED_LENGTH_MIN = 8
# From here on words of a value may be written together.
_TOGETHER_LENGTH_MIN = 6
_GAP_MAX = 4
_WORD = re.compile(r"[^\W_]+")
_BEFORE, _AFTER = re.compile(r"\A[\W_]+"), re.compile(r"[\W_]+\Z")
_ENDING = re.compile(r"(?:['’`´]s|es|s)(?![^\W_])", re.IGNORECASE)


def plain(text: str) -> str:
    """The text as it reads: escapes read, invisible characters gone, look-alikes as Latin letters.

    Raises:
        TooWrapped: there is more inside than anybody looks at.
    """
    return _own(views(text))[-1].text


def canonical(text: str) -> str:
    """The same for all ways to write a value: its words, without case."""
    read = plain(text).casefold()
    return " ".join(_WORD.findall(read)) or read.strip()


class Squeezed(Struct, frozen=True):
    """A text without what is no letter or digit, and without case.

    Attributes:
        at: for each of its characters the position in the text.
    """

    text: str
    at: list[int]


def squeezed(text: str) -> Squeezed:
    """Of any text."""
    pieces: list[str] = []
    at: list[int] = []
    for match in _WORD.finditer(text):
        word = match.group()
        folded = word.casefold()
        if len(folded) == len(word):
            at.extend(range(match.start(), match.end()))
        else:
            at.extend(match.start() + index for index, char in enumerate(word) for _ in char.casefold())
        pieces.append(folded)
    return Squeezed("".join(pieces), at)


class Value:
    """Something to look for.

    Args:
        text: as it was found.
    """

    def __init__(self, type_: str, text: str) -> None:
        read = plain(text)
        self.type = type_
        self.canonical = canonical(text)
        self.squeezed = squeezed(read).text
        self._cased = "".join(_WORD.findall(read))
        words = [squeezed(word).text for word in _WORD.findall(read)]
        self._borders = {sum(map(len, words[:count])) for count in range(1, len(words))}
        self._has_digits = any(map(str.isdigit, self.squeezed))
        # What it begins and ends with beside letters: the plus of a telephone number.
        self._before = read[: len(read) - len(_BEFORE.sub("", read))]
        self._after = read[len(_AFTER.sub("", read)) :]

    @property
    def is_looked_for(self) -> bool:
        """Whether it is long enough to mean something by itself."""
        return len(self.squeezed) >= LENGTH_MIN

    def spans(self, view: View, text: Squeezed) -> Iterator[tuple[int, int]]:
        """Where it occurs in a reading, as positions of that."""
        start = text.text.find(self.squeezed)
        while start >= 0:
            places = text.at[start : start + len(self.squeezed)]
            if self._is_it(view.text, places):
                first, last = places[0], places[-1] + 1
                is_led = bool(self._before) and view.text.endswith(self._before, 0, first)
                is_followed = bool(self._after) and view.text.startswith(self._after, last)
                yield first - len(self._before) * is_led, last + len(self._after) * is_followed
            start = text.text.find(self.squeezed, start + 1)

    def _is_it(self, text: str, places: list[int]) -> bool:
        first, last = places[0], places[-1]
        if first and _joins(text[first]) and _joins(text[first - 1]):
            return False
        if last + 1 < len(text) and _joins(text[last]) and _joins(text[last + 1]) and not _ENDING.match(text, last + 1):
            return False
        if len(self.squeezed) <= _CASED_LENGTH_MAX:
            return text[first : last + 1] == self._cased
        return all(self._may_part(index, places[index] - places[index - 1] - 1) for index in range(1, len(places)))

    def _may_part(self, index: int, gap: int) -> bool:
        """Whether so much may be between two characters of it."""
        if index in self._borders:
            return (gap > 0 or len(self.squeezed) >= _TOGETHER_LENGTH_MIN or self._has_digits) and gap <= _GAP_MAX
        return gap <= 0 or (self._has_digits and len(self.squeezed) >= _GROUPED_LENGTH_MIN and gap <= _GAP_MAX)


class Readings:
    """A text, and what it reads.

    Raises:
        TooWrapped: there is more inside than anybody looks at.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        found = views(text)
        self.views = [(view, squeezed(view.text)) for view in found]
        self._own = len(_own(found))

    @cached_property
    def letters(self) -> str:
        """All that it reads, squeezed; readings are apart."""
        return "\n".join(text.text for _, text in self.views)

    def find(self, value: Value) -> Iterator[tuple[int, int, bool]]:
        """Spans of the text that say this value; and whether the value is inside something encoded there."""
        for index, (view, text) in enumerate(self.views):
            for start, end in value.spans(view, text):
                yield *view.span(start, end), index >= self._own

    def whole(self, start: int, end: int) -> tuple[int, int]:
        """The span with the rest of the words that it cuts, as they read; endings like a plural's are no rest."""
        view = self.views[self._own - 1][0]
        first, last = start, end
        if view.starts is not None and view.ends is not None:
            first, last = bisect_right(view.ends, start), bisect_left(view.starts, end)
        if first >= last:
            return start, end
        text = view.text
        while first and _joins(text[first]) and _joins(text[first - 1]):
            first -= 1
        while last < len(text) and _joins(text[last - 1]) and _joins(text[last]) and not _ENDING.match(text, last):
            last += 1
        before, after = view.span(first, last)
        return min(start, before), max(end, after)

    def words(self, words: frozenset[str]) -> Iterator[tuple[int, int, str]]:
        """Where one of these words stands by itself, exactly so written."""
        for view, _ in self.views[: self._own]:
            for match in _WORD.finditer(view.text):
                if match.group() in words:
                    yield *view.span(*match.span()), match.group()


def _own(found: list[View]) -> list[View]:
    """The readings of the text itself, without those of what is encoded in it."""
    names = [view.name for view in found]
    return found[: names.index("decoded")] if "decoded" in names else found


def _joins(char: str) -> bool:
    """Whether it is of those that make a word together: digits, and letters of scripts that put spaces between."""
    return char.isdigit() or (char.isalpha() and char.lower() != char.upper())
