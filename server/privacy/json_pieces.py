"""The pieces of a text that is JSON itself (a tool's arguments), so that what is replaced leaves it JSON."""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*')
# A character beyond U+FFFF is two escapes (RFC 8259, section 7).
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")
_KEY = re.compile(r"\s*:")


class Piece(Struct, frozen=True):
    """A string without its quotes, or a number; `key` is the name of a field."""

    start: int
    end: int
    kind: Literal["string", "key", "number"]


def pieces_of(text: str) -> list[Piece] | None:
    """Its strings and numbers, in order; None where it is no JSON object or list."""
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return list(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    for match in _TOKEN.finditer(text):
        if match.group()[0] != '"':
            yield Piece(match.start(), match.end(), "number")
        else:
            is_key = _KEY.match(text, match.end()) is not None
            yield Piece(match.start() + 1, match.end() - 1, "key" if is_key else "string")


def clipped(text: str, pieces: list[Piece], start: int, end: int) -> Iterator[tuple[int, int, Piece]]:
    """What of a span lies in each piece: whole escapes, whole numbers."""
    for piece in pieces:
        if piece.start >= end or piece.end <= start:
            continue
        if piece.kind == "number":
            yield piece.start, piece.end, piece
            continue
        first, last = max(start, piece.start), min(end, piece.end)
        for escape in _ESCAPE.finditer(text, piece.start, piece.end):
            if escape.start() < first < escape.end():
                first = escape.start()
            if escape.start() < last < escape.end():
                last = escape.end()
        yield first, last, piece


def decoded(written: str) -> str:
    """What a part of a JSON string says, with its escapes read."""
    try:
        return msgspec.json.decode(f'"{written}"', type=str)
    except msgspec.DecodeError:  # half of a surrogate pair
        return written
