"""Personal data of a body, replaced by pseudonyms; and the map back, which never leaves the box.

What was found is replaced where it was found, and wherever else it occurs, in any reading (occurrences.py): a value
that is in the body twice and was seen once would leave all the same. Spans that overlap become one, which is then a
value of its own and is looked for as well, until there is nothing new. The words of a person's name are replaced where
they stand alone as they are written in it.

No pseudonym occurs in the body, in any reading, and none contains another; so what an answer says of a pseudonym it
says of the value, and text that only looks like one was never touched. In names of tools and of fields, where only
some characters may stand, each way of writing a value has a pseudonym of its own, of letters and digits.

`leaks` is the last gate before the wire: it looks for every value in the very bytes that would leave.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from server.privacy.findings import Finding
from server.privacy.json_pieces import Piece, clipped, decoded, pieces_of
from server.privacy.normalised import TooWrapped, View
from server.privacy.occurrences import Readings, Value, canonical, plain, squeezed
from server.privacy.payload import Part, TooDeep, parts_of
from server.privacy.surrogates import TITLE, Style, Surrogate, drawn, name_words

UNREADABLE = "UNREADABLE"
# What overlaps grows in few rounds; what still grows then is found by `leaks`.
ROUNDS_MAX = 6
# Fields in which only letters, digits, `_` and `-` may stand.
_IDENTIFIERS = frozenset({"name", "id", "tool_call_id", "tool_use_id"})
_MODEL = ("model",)
_EDGES = " \t\r\n\u00a0\u200b.,;:!?\"'“”„"
_OWNED = ("'s", "’s")


class Pair(Struct, frozen=True):
    """A pseudonym, and what it stands for.

    Attributes:
        original: as it was written where it was found first.
    """

    pseudonym: str
    original: str
    type: str
    style: Style


class Map(Struct, frozen=True):
    """All pseudonyms of one body.

    Attributes:
        pairs: the words of names and other short forms too; longer pseudonyms first.
        values: every value that must not leave, with its type.
    """

    pairs: tuple[Pair, ...]
    values: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many values, by type."""
        types = [type_ for type_, _ in self.values]
        return {type_: types.count(type_) for type_ in sorted(set(types))}


class _Span(Struct, frozen=True):
    """Something to replace: `key` is what has one pseudonym, `written` how it is written here."""

    start: int
    end: int
    type: str
    key: str
    written: str
    is_number: bool
    is_identifier: bool


class Pseudonyms:
    """Those of one conversation.

    Args:
        key: 32 bytes that nobody else has.
        conversation: its id; of a request without one, the request's.
    """

    def __init__(self, key: bytes, conversation: str) -> None:
        self._key = key
        self._conversation = conversation

    def replaced(self, parts: Sequence[Part], findings: Iterable[Finding]) -> tuple[tuple[Part, ...], Map]:
        """The parts with pseudonyms in the place of personal data, at the same paths, and the map back.

        Raises:
            TooWrapped: a part cannot be looked through. Nothing may leave.
            ValueError: there is a secret among the findings; those never leave, in no form.
        """
        found = list(findings)
        if any(finding.kind == "secret" for finding in found):
            raise ValueError("A secret never leaves, in no form.")
        pages = [_Page(part) for part in parts]
        for finding in found:
            if finding.kind == "personal":
                pages[finding.part].add(finding.type, finding.start, finding.end)
        values = _spread(pages)
        _spread_words(pages, values)
        letters = "\n".join(page.readings.letters for page in pages)
        names = _Names(self._key, self._conversation, letters, list(values.values()))
        new = tuple(msgspec.structs.replace(page.part, text=page.written(names)) for page in pages)
        return new, Map(names.pairs(), tuple((value.type, text) for text, value in values.items()))


def leaks(found: Map, body: bytes) -> list[str]:
    """The types of values that still occur in the bytes, in any reading; not empty: do not send.

    UNREADABLE where they cannot be looked through. Values themselves are not told, so this may be logged.
    """
    try:
        readings = [Readings(text) for text in _texts(body)]
    except (TooWrapped, TooDeep, UnicodeDecodeError, TypeError):
        return [UNREADABLE]
    values = [Value(type_, text) for type_, text in found.values]
    return sorted(
        {
            value.type
            for value in values
            if value.is_looked_for and any(next(reading.find(value), None) is not None for reading in readings)
        }
    )


def _texts(body: bytes) -> list[str]:
    try:
        read: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return [body.decode()]
    return [part.text for part in parts_of(read if isinstance(read, dict) else {"": read}) if part.path != _MODEL]


class _Page:
    """One part, and what of it is to be replaced: spans that are sorted and apart."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.readings = Readings(part.text)
        self.pieces = pieces_of(part.text)
        self.spans: list[_Span] = []
        # What was found, also where it is now inside of something longer.
        self.heard: list[tuple[str, str]] = []
        self._is_closed = part.path == _MODEL
        self._is_identifier = _is_identifier(part)

    def add(self, type_: str, start: int, end: int, key: str | None = None) -> bool:
        """Have a span replaced, together with what it overlaps; whether that is new.

        Args:
            key: the value that occurs there; None: what is written there is one.
        """
        if self._is_closed:
            return False
        if key is None:
            first, last = self._trimmed(type_, start, end)
            start, end = self.readings.whole(first, last)
            if (first, last) != (start, end) and self.pieces is None:
                self.heard.append((type_, self.part.text[first:last]))
        if self.pieces is None:
            return self._add(type_, start, end, key, None)
        is_new = False
        for first, last, piece in clipped(self.part.text, self.pieces, start, end):
            is_new |= self._add(type_, first, last, key, piece)
        return is_new

    def _add(self, type_: str, start: int, end: int, key: str | None, piece: Piece | None) -> bool:
        is_number = piece is not None and piece.kind == "number"
        if key is None:
            self.heard.append((type_, self._said(start, end, piece)))
        touched = [span for span in self.spans if span.start < end and start < span.end]
        if any(span.start <= start and end <= span.end for span in touched):
            return False
        longest = max(touched, key=lambda span: span.end - span.start, default=None)
        first, last = min([start, *(each.start for each in touched)]), max([end, *(each.end for each in touched)])
        if (first, last) != (start, end):
            key = None
            type_ = longest.type if longest is not None and longest.end - longest.start > end - start else type_
        written = self._said(first, last, piece)
        span = _Span(
            first,
            last,
            type_,
            canonical(written) if key is None else key,
            written,
            is_number,
            self._is_identifier or (piece is not None and piece.kind == "key"),
        )
        self.spans = sorted([each for each in self.spans if each not in touched] + [span], key=lambda each: each.start)
        return True

    def _said(self, start: int, end: int, piece: Piece | None) -> str:
        text = self.part.text[start:end]
        return text if piece is None else decoded(text)

    def _trimmed(self, type_: str, start: int, end: int) -> tuple[int, int]:
        text = self.part.text[start:end]
        if type_ == "PERSON" and (title := TITLE.match(text)) is not None:
            text, start = text[title.end() :], start + title.end()
        if type_ in {"PERSON", "ORGANISATION", "PLACE"} and text.rstrip(_EDGES).endswith(_OWNED):
            text = text.rstrip(_EDGES)[:-2]
        kept = text.strip(_EDGES)
        if not kept:
            return start, end
        start += len(text) - len(text.lstrip(_EDGES))
        return start, start + len(kept)

    def written(self, names: "_Names") -> str:
        """The text with pseudonyms."""
        done, at = [], 0
        for span in self.spans:
            pseudonym = names.of(span)
            done += [self.part.text[at : span.start], f'"{pseudonym}"' if span.is_number else pseudonym]
            at = span.end
        return "".join([*done, self.part.text[at:]])


def _is_identifier(part: Part) -> bool:
    # What `required` lists are names of fields as well.
    return part.is_key or part.path[-1] in _IDENTIFIERS or "required" in part.path[-2:-1]


def _spread(pages: Sequence[_Page]) -> dict[str, Value]:
    """Find every value wherever else it occurs; all that are to be replaced, by how they were written first."""
    values: dict[str, Value] = {}
    known: set[str] = set()
    seen: set[str] = set()
    for number in range(ROUNDS_MAX + 1):
        new: list[Value] = []
        spans = [(span.type, span.written) for page in pages for span in page.spans]
        for type_, written in [*spans, *(each for page in pages for each in page.heard)]:
            value = Value(type_, written) if written not in seen else None
            seen.add(written)
            if value is not None and value.canonical not in known:
                known.add(value.canonical)
                values[written] = value
                new.append(value)
        if not new or number == ROUNDS_MAX:
            break
        # The longest first: what is inside of them is covered.
        for value in sorted(new, key=lambda each: -len(each.squeezed)):
            if value.is_looked_for:
                for page in pages:
                    _mark(page, value)
    return values


def _mark(page: _Page, value: Value) -> None:
    for start, end, is_encoded in list(page.readings.find(value)):
        page.add("ENCODED" if is_encoded else value.type, start, end, None if is_encoded else value.canonical)


def _spread_words(pages: Sequence[_Page], values: dict[str, Value]) -> None:
    """Find the words of persons' names where they stand alone."""
    words = [word for text, value in values.items() if value.type == "PERSON" for word in name_words(plain(text))]
    spellings = frozenset(
        form for word in words for form in (word.capitalize(), word.upper(), word) if form[0] != form[0].lower()
    )
    for page in pages:
        for start, end, _ in list(page.readings.words(spellings)):
            page.add("PERSON", start, end)


class _Names:
    """Draws pseudonyms that fit, and remembers them.

    Args:
        letters: all that the body reads, squeezed.
        values: what must not occur in a pseudonym either, or it would look like a leak.
    """

    def __init__(self, key: bytes, conversation: str, letters: str, values: Sequence[Value]) -> None:
        self._key = key
        self._conversation = conversation
        self._letters = letters
        self._values = [value for value in values if value.is_looked_for]
        self._cores: list[str] = []
        self._drawn: dict[str, Surrogate] = {}
        self._whole: dict[tuple[bool, str], str] = {}
        self._pairs: dict[str, Pair] = {}

    def of(self, span: _Span) -> str:
        """The pseudonym of what is written there."""
        about = (span.is_identifier, span.written if span.is_identifier else span.key)
        if about not in self._whole:
            # Of the canonical form: however it is written first, it has the same pseudonym.
            words = name_words(span.key) if span.type == "PERSON" and not span.is_identifier else []
            self._whole[about] = self._name(span, words) if words else self._other(span)
        return self._whole[about]

    def pairs(self) -> tuple[Pair, ...]:
        """All of them, the longer ones first."""
        return tuple(sorted(self._pairs.values(), key=lambda pair: (-len(pair.pseudonym), pair.pseudonym)))

    def _name(self, span: _Span, words: list[str]) -> str:
        """A name word by word; what has none of its own, initials and such, has one together, between them."""
        pseudonyms = [self._surrogate("PERSON", word).text for word in words]
        spelled = {canonical(word): word for word in name_words(plain(span.written))}
        for pseudonym, word in zip(pseudonyms, words, strict=True):
            if word in spelled:
                self._pairs.setdefault(pseudonym, Pair(pseudonym, spelled[word], "PERSON", "words"))
        if " ".join(words) != span.key:
            pseudonyms.insert(1, self._surrogate("PERSON", span.key).text)
        name = " ".join(pseudonyms)
        self._pairs.setdefault(name, Pair(name, span.written, "PERSON", "words"))
        return name

    def _other(self, span: _Span) -> str:
        type_, value = ("IDENTIFIER", span.written) if span.is_identifier else (span.type, span.key)
        surrogate = self._surrogate(type_, value)
        for text in (surrogate.text, *surrogate.aliases):
            self._pairs.setdefault(text, Pair(text, span.written, span.type, surrogate.style))
        return surrogate.text

    def _surrogate(self, type_: str, value: str) -> Surrogate:
        about = f"{type_} {value}"
        if about not in self._drawn:
            self._drawn[about] = drawn(self._key, self._conversation, type_, value, self._fits)
            self._cores += self._drawn[about].cores
        return self._drawn[about]

    def _fits(self, surrogate: Surrogate) -> bool:
        letters = squeezed(surrogate.text)
        if any(core in self._letters for core in (*surrogate.cores, letters.text)):
            return False
        view = View("plain", surrogate.text)
        if any(next(value.spans(view, letters), None) is not None for value in self._values):
            return False
        return not any(core in other or other in core for core in surrogate.cores for other in self._cores)
