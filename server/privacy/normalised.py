r"""Views of a text in which hidden things show, each with a map back to the original.

A detector looks for forms, and a form is easily broken without a reader noticing: a zero-width space inside an e-mail
address, a Cyrillic letter that looks Latin, `%40` for `@`, `\u0040` in a tool's JSON, a whole key in base64. The model
at the other end reads all of these. So every text is looked at several times:

- plain: as it is;
- open: escapes of JSON, URLs and HTML are read, invisible characters are gone, compatibility forms are folded (NFKC),
  dashes are one dash, "(at)" is "@"; again and again, until nothing changes;
- latin: as open, with letters of other scripts that look like Latin ones written as those;
- decoded: what base64 and hexadecimal pieces say, looked at in the same way, down to a few layers.

A view keeps for each of its characters the span of the original that it came from. What is found in it therefore
covers at least everything that made the finding, and for a decoded piece all of the piece: half of it is no base64.

What is wrapped deeper than `LAYERS_MAX`, or grows beyond bounds, raises `TooWrapped`; nobody looked at the rest.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# Layers of base64 or hexadecimal within each other, and rounds of reading escapes.
LAYERS_MAX = 3
ROUNDS_MAX = 4
# Decoded text beyond this multiple of the original, plus a little, is no longer looked at.
GROWTH_MAX = 8
GROWTH_FREE = 64 * 1024

# Characters that show nothing but are no format characters (Cf) to Unicode: fillers of Hangul and Khmer, Braille blank.
_BLANKS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u034f")
# Invisible copies of ASCII, which a model reads nevertheless; and characters that only choose a glyph.
_TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
_SELECTORS = frozenset({*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)})
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-")

# Letters that look like a Latin one (Unicode's confusables.txt, the ones of Cyrillic, Greek and Armenian that fonts
# draw alike).
_LOOKALIKES = str.maketrans(
    "аАвВсСеЕнНіІїјЈкКмМоОрРѕЅтТхХуУԁԛԝһʏɡαΑΒεΕΖηΗιΙκΚΜνΝοΟρΡτΤυΥχΧγօսոա",
    "aAbBcCeEhHiIijJkKmMoOpPsStTxXyYdqwhygaABeEZnHiIkKMvNoOpPtTuYxXyouna",
)

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[nrtbf\"/\\]"
)
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){1,64}")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_SPOKEN = re.compile(r" ?[\[({<] ?(?:at|ät|AT|dot|punkt|DOT) ?[\])}>] ?")
# What may remain after the last round is a row of backslashes in a drawing, but none of these.
_NESTED = re.compile(r"\\[ux][0-9a-fA-F]{2}|%[0-9a-fA-F]{2}|&#[0-9xX]")
_SINGLE = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "/": "/", "\\": "\\"}

# A run of the alphabet; mail and PEM break it into lines of at least 60.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{60,80}(?:\r?\n[A-Za-z0-9+/_-]{1,80})+={0,2}|[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?<![0-9a-zA-Z])(?:0x)?(?:[0-9a-fA-F]{2}){8,}(?![0-9a-zA-Z])")
# Decoded bytes are text where so many in a row can be printed; by chance that happens once in twenty thousand.
_READABLE = re.compile(r"[\x20-\x7e\t\r\n\u00a0-\u024f\u0370-\u052f]{10,}")


class TooWrapped(ValueError):
    """There is more inside than anybody looks at."""


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text.

    Attributes:
        name: which one it is.
        text: what it reads.
        starts: for each character of `text`, where its span of the original starts; None in the plain view.
        ends: where it ends. Both never decrease.
    """

    name: str
    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that `text[start:end]` came from; needs `start < end`."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def views(text: str) -> list[View]:
    """All readings of `text`, the plain one first; those that would read the same are left out.

    Raises:
        TooWrapped: something is wrapped deeper, or is larger inside, than is looked at.
    """
    result: list[View] = []
    budget = GROWTH_MAX * len(text) + GROWTH_FREE
    seen: set[str] = set()
    waiting = [(View("plain", text), 0)]
    while waiting:
        view, layer = waiting.pop(0)
        for reading in _readings(view):
            if reading.text in seen:
                continue
            seen.add(reading.text)
            budget -= len(reading.text)
            if budget < 0:
                raise TooWrapped("There is more inside the text than is looked at.")
            result.append(reading)
            inside = list(_decoded(reading))
            if inside and layer == LAYERS_MAX:
                raise TooWrapped("Something in the text is wrapped in too many layers.")
            waiting.extend((piece, layer + 1) for piece in inside)
    return result


def _readings(view: View) -> Iterator[View]:
    yield view
    opened = _opened(view)
    if opened is not view:
        yield opened
    latin = opened.text.translate(_LOOKALIKES)
    if latin != opened.text:
        starts, ends = _edges(opened)
        yield View("latin", latin, tuple(starts), tuple(ends))


def _opened(view: View) -> View:
    """`view` with everything read that is written in another way."""
    now = view
    for _ in range(ROUNDS_MAX):
        before = now
        for pattern, read in ((_ESCAPE, _escape), (_ENTITY, _entity), (_PERCENT, _percent), (_SPOKEN, _spoken)):
            now = _replaced(now, pattern, read)
        now = _folded(now)
        if now is before:
            return now
    if _NESTED.search(now.text):
        raise TooWrapped("Something in the text is escaped too many times.")
    return now


def _edges(view: View) -> tuple[Iterable[int], Iterable[int]]:
    if view.starts is None or view.ends is None:
        return range(len(view.text)), range(1, len(view.text) + 1)
    return view.starts, view.ends


def _replaced(view: View, pattern: re.Pattern[str], read: Callable[[str], str]) -> View:
    """`view` with every match of `pattern` as `read` says; each new character maps to the whole match."""
    if pattern.search(view.text) is None:
        return view
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    known = None if view.starts is None or view.ends is None else (view.starts, view.ends)
    at = 0

    def keep(start: int, end: int) -> None:
        pieces.append(view.text[start:end])
        starts.extend(range(start, end) if known is None else known[0][start:end])
        ends.extend(range(start + 1, end + 1) if known is None else known[1][start:end])

    for match in pattern.finditer(view.text):
        keep(at, match.start())
        new = read(match.group())
        start, end = view.span(*match.span())
        pieces.append(new)
        starts.extend([start] * len(new))
        ends.extend([end] * len(new))
        at = match.end()
    keep(at, len(view.text))
    text = "".join(pieces)
    return view if text == view.text else View("open", text, tuple(starts), tuple(ends))


def _folded(view: View) -> View:
    """`view` without invisible characters and in one form of each character."""
    if view.text.isascii():
        return view
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end in _clusters(view.text):
        new = _fold(view.text[start:end])
        first, last = view.span(start, end)
        pieces.append(new)
        starts.extend([first] * len(new))
        ends.extend([last] * len(new))
    text = "".join(pieces)
    return view if text == view.text else View("open", text, tuple(starts), tuple(ends))


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Spans of a character with the marks that combine with it."""
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or not unicodedata.combining(text[at]):
            yield start, at
            start = at


def _fold(cluster: str) -> str:
    if cluster.isascii():
        return cluster
    visible = "".join(map(_visible, cluster))
    return "".join(map(_visible, unicodedata.normalize("NFKC", visible))).translate(_DASHES)


def _visible(char: str) -> str:
    code = ord(char)
    if code in _TAGS:
        return _TAGS[code]
    return "" if code in _SELECTORS or char in _BLANKS or unicodedata.category(char) == "Cf" else char


def _escape(written: str) -> str:
    if written[1] in "ux" and len(written) > 2:  # noqa: PLR2004 - more than the backslash and the letter
        codes = [int(piece, 16) for piece in re.split(r"\\[ux]", written)[1:]]
        if len(codes) == 1:
            return chr(codes[0])
        return chr(0x10000 + ((codes[0] - 0xD800) << 10) + (codes[1] - 0xDC00))
    return _SINGLE[written[1]]


def _percent(written: str) -> str:
    return bytes.fromhex(written.replace("%", "")).decode(errors="replace")


def _entity(written: str) -> str:
    return html.unescape(written)


def _spoken(written: str) -> str:
    return "@" if "t" in written.lower() and "dot" not in written.lower() and "punkt" not in written.lower() else "."


def _decoded(view: View) -> Iterator[View]:
    """What the encoded pieces of `view` say; every character maps to the whole piece."""
    for pattern, read in ((_BASE64, _from_base64), (_HEX, _from_hex)):
        for match in pattern.finditer(view.text):
            text = read(match.group())
            if text:
                start, end = view.span(*match.span())
                yield View("decoded", text, (start,) * len(text), (end,) * len(text))


def _from_base64(written: str) -> str:
    """The readable runs in it. It may begin anywhere in a run of the alphabet (after a path), so four starts count."""
    letters = re.sub(r"[\r\n=]", "", written).replace("-", "+").replace("_", "/")
    runs: list[str] = []
    for first in range(4):
        cut = letters[first:]
        cut = cut[:-1] if len(cut) % 4 == 1 else cut
        try:
            runs.extend(_readable(base64.b64decode(cut + "=" * (-len(cut) % 4))))
        except binascii.Error:  # cannot be: only letters of the alphabet, padded
            continue
    return "\n".join(runs)


def _from_hex(written: str) -> str:
    return "\n".join(_readable(bytes.fromhex(written.removeprefix("0x"))))


def _readable(content: bytes) -> list[str]:
    """Runs of text in `content`; zero bytes are left out, so that UTF-16 reads like ASCII."""
    return _READABLE.findall(content.replace(b"\0", b"").decode(errors="replace"))
