"""The elements of a JSON array, one after the other, without reading the whole of it.

An export may have a hundred megabytes and one conversation that is broken. So the array is only cut, by its brackets
outside of strings; each element is read by itself, and what is wrong with one does not touch the others. The cut is a
regular expression with possessive quantifiers, which neither goes back nor recurses: time and memory are linear,
however deep the file is nested.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

# A string, or one bracket.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
DEPTH_MAX = 200
BLANK = b" \t\r\n"


class Element(Struct, frozen=True):
    """A piece of the file.

    Attributes:
        fault: why it cannot be read, if that is known already.
    """

    raw: memoryview
    fault: str | None = None


def elements(raw: bytes) -> Iterator[Element]:
    """The objects of an array, or the one object that the file is. What is neither gives nothing."""
    start = len(raw) - len(raw.lstrip(BLANK)) if raw[:1] in (b" ", b"\t", b"\r", b"\n") else 0
    if raw.startswith(b"\xef\xbb\xbf", start):
        start += 3
    whole = memoryview(raw)
    # The depth of what is cut out: 1 in an array, 0 where the file is one object.
    top = 1 if raw[start : start + 1] == b"[" else 0
    depth = deepest = 0
    began = start
    for token in TOKEN.finditer(raw, start):
        bracket = raw[token.start()]
        if bracket in b"[{":
            if depth == top:
                began, deepest = token.start(), 0
            depth += 1
            deepest = max(deepest, depth - top)
        elif bracket in b"]}":
            depth -= 1
            if depth == top:
                fault = f"it is nested deeper than {DEPTH_MAX} levels" if deepest > DEPTH_MAX else None
                yield Element(whole[began : token.end()], fault)
            if depth <= 0:
                return
    if depth > top:
        yield Element(whole[began:], "the file ends in the middle of it")
