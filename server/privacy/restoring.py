"""Puts the values back where an answer has pseudonyms, while it streams.

A model does not copy, it writes. So a pseudonym is known in any case, with the endings of a plural or a genitive, with
other blanks, line breaks, hyphens or markup between its words, digits in other groups; what stands between its words is
gone with it, what stands around it stays. In capitals it becomes the value in capitals. A word of a name stands for
that word of the person's name.

What was read is held back only while it may still become a pseudonym: from the first place on at which the letters and
digits that follow are the beginning of one, and no longer than the longest one may be written, with its ending. What
is decided at a place depends on nothing before it but one character, and on nothing behind that length, so the same
text comes out however it was cut into pieces.

What looks like the rest of a pseudonym and is none (a part of it, letters of it with something else between) cannot be
restored. It is left as it is, and told.
"""

import json
import re
from collections.abc import Sequence

from msgspec import Struct

from server.privacy.occurrences import squeezed
from server.privacy.pseudonyms import Map, Pair

# A pseudonym of words is ASCII; next to letters of scripts that put no spaces between words it still is one.
_LETTER = "A-Za-z0-9\u00c0-\u024f\u0370-\u052f"
_BLANK = r"\s\u00a0\u2000-\u200b\u202f\u00ad"
# Markup between the words of a name stays: each is restored by itself. In what has no short forms it is gone.
_BETWEEN_NAMES = rf"[{_BLANK}_-]"
_BETWEEN = rf"[{_BLANK}*_`~\\.,@:/+()-]"
_GAP_MAX = 4
_DIGIT_GAP_MAX = 3
_ENDING = r"(?:['’`´]s|es|s)?"
_ENDING_CHARACTERS = 2
# As much of a pseudonym as makes it sure that something is a part of it.
_REST_MIN = 5
_CORE_MIN = 6
_BEGINNING = 3
_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_RUN = re.compile(r"[A-Za-z0-9]+")
_DATE = re.compile(r"18\d\d-\d\d-\d\d")
_NEUTRAL = re.compile(r"[A-Z]+-[A-Z2-9]{6}")
_COMMON = frozenset({"example", "invalid", "street", "https"})
# In what was left as it is: a place where something was restored.
_RESTORED = "\0"


class _Form(Struct, frozen=True):
    """How one pseudonym may be written.

    Attributes:
        letters: squeezed.
        pattern: without what stands around it, and without endings.
        length_max: of the longest text that it matches.
    """

    pair: Pair
    letters: str
    pattern: str
    length_max: int


class Restorer:
    """One text of an answer: its content, or the arguments of one call of a tool.

    Args:
        in_json: the text is JSON, and values are written as in its strings.

    Attributes:
        unrestored: what could not be restored, each once; complete after `end`.
    """

    def __init__(self, found: Map, *, in_json: bool = False) -> None:
        self._forms = [_form(pair) for pair in found.pairs]
        self._in_json = in_json
        self._window = max((form.length_max for form in self._forms), default=0) + _ENDING_CHARACTERS + 1
        self._beginnings = {form.letters[:length] for form in self._forms for length in range(1, _BEGINNING + 1)}
        self._pattern = _pattern(self._forms)
        # One character that has left already, and what has not.
        self._text = ""
        self._at = 0
        self._kept: list[str] = []
        self.unrestored: list[str] = []

    def feed(self, text: str) -> str:
        """What can be said after this piece of the answer; may be empty."""
        if not self._forms:
            return text
        self._text += text
        return self._restored(self._held_from())

    def end(self) -> str:
        """The rest."""
        if not self._forms:
            return ""
        rest = self._restored(len(self._text))
        left = "".join(self._kept).split(_RESTORED)
        self.unrestored = _traces(self._forms, left)
        if (cut := self._cut(left[-1])) and cut not in self.unrestored:
            self.unrestored.append(cut)
        return rest

    def _restored(self, until: int) -> str:
        """All before `until`, where no pseudonym begins before that is not complete."""
        done: list[str] = []
        while self._at < until:
            match = self._pattern.search(self._text, self._at)
            if match is None or match.start() >= until:
                done.append(self._keep(self._text[self._at : until]))
                self._at = until
                break
            done += [self._keep(self._text[self._at : match.start()]), self._value(match)]
            self._kept.append(_RESTORED)
            self._at = match.end()
        gone = max(0, self._at - 1)
        self._text, self._at = self._text[gone:], self._at - gone
        return "".join(done)

    def _keep(self, text: str) -> str:
        self._kept.append(text)
        return text

    def _held_from(self) -> int:
        """The first place at which a pseudonym may begin that is not decided yet."""
        first = max(self._at, len(self._text) - self._window + 1)
        return next((start for start in range(first, len(self._text)) if self._may_begin(start)), len(self._text))

    def _may_begin(self, start: int) -> bool:
        char = self._text[start]
        if char == "+":  # of a telephone number
            return True
        if not (char.isascii() and char.isalnum()) or (start and _JOINED.match(self._text[start - 1])):
            return False
        return self._is_beginning(squeezed(self._text[start : start + self._window]).text)

    def _is_beginning(self, letters: str) -> bool:
        """Whether this is the beginning of a pseudonym, or begins with one."""
        return letters[:_BEGINNING] in self._beginnings and any(
            form.letters.startswith(letters) or letters.startswith(form.letters) for form in self._forms
        )

    def _value(self, match: re.Match[str]) -> str:
        group = match.lastgroup or ""
        pair = self._forms[int(group[1:])].pair
        written, original = match.group(group), pair.original
        if pair.style == "words" and _is_upper(written) and not _is_upper(pair.pseudonym):
            original = original.upper()
        ending = match.group()[len(written) :]
        return (json.dumps(original, ensure_ascii=False)[1:-1] if self._in_json else original) + ending

    def _cut(self, last: str) -> str:
        """The beginning of a pseudonym with which the text ends."""
        for start in range(max(0, len(last) - self._window), len(last)):
            if last[start].isalnum() and not (start and _JOINED.match(last[start - 1])):
                letters = squeezed(last[start:]).text
                if len(letters) >= _REST_MIN and any(form.letters.startswith(letters) for form in self._forms):
                    return last[start:].strip()
        return ""


def restored(found: Map, text: str, *, in_json: bool = False) -> tuple[str, list[str]]:
    """A whole text with the values in it, and what could not be restored."""
    restorer = Restorer(found, in_json=in_json)
    done = restorer.feed(text) + restorer.end()
    return done, restorer.unrestored


_JOINED = re.compile(f"[{_LETTER}]")


def _form(pair: Pair) -> _Form:
    letters = squeezed(pair.pseudonym).text
    if pair.style == "exact":
        return _Form(pair, letters, re.escape(pair.pseudonym), len(pair.pseudonym))
    words = _WORD.findall(pair.pseudonym)
    if pair.style == "digits":
        gap = f"{_BETWEEN}{{0,{_DIGIT_GAP_MAX}}}"
        return _Form(pair, letters, r"\+?" + gap.join(letters), 1 + len(letters) * (1 + _DIGIT_GAP_MAX))
    between = _BETWEEN_NAMES if pair.type == "PERSON" else _BETWEEN
    pattern = f"{between}{{0,{_GAP_MAX}}}".join(words)
    return _Form(pair, letters, pattern, len(letters) + (len(words) - 1) * _GAP_MAX)


def _pattern(forms: Sequence[_Form]) -> re.Pattern[str]:
    """All of them, the longest first. Only ASCII has no case here, so that no other letter is taken for one of it."""
    order = sorted(range(len(forms)), key=lambda index: -len(forms[index].letters))
    written = [
        f"(?P<p{index}>{forms[index].pattern}){'' if forms[index].pair.style == 'exact' else _ENDING}"
        for index in order
    ]
    return re.compile(f"(?<![{_LETTER}])(?:{'|'.join(written)})(?![{_LETTER}])", re.IGNORECASE | re.ASCII)


def _traces(forms: Sequence[_Form], left: Sequence[str]) -> list[str]:
    """Parts of pseudonyms in what was left as it is."""
    cores = sorted({core for form in forms for core in _cores(form)}, key=lambda core: (-len(core), core))
    found: dict[str, None] = {}
    for text in left:
        letters = squeezed(text)
        for core in cores:
            at = letters.text.find(core)
            while at >= 0:
                found[text[letters.at[at] : letters.at[at + len(core) - 1] + 1]] = None
                at = letters.text.find(core, at + 1)
    return list(found)


def _cores(form: _Form) -> list[str]:
    """What of a pseudonym nobody writes by chance."""
    words = [word.casefold() for word in _RUN.findall(form.pair.pseudonym)]
    cores = [word for word in words if len(word) >= _CORE_MIN and word not in _COMMON]
    if _DATE.fullmatch(form.pair.pseudonym):
        return [form.letters, form.pair.pseudonym[:4]]
    if _NEUTRAL.fullmatch(form.pair.pseudonym):
        return words[-1:]
    return cores or [form.letters]


def _is_upper(text: str) -> bool:
    return sum(map(str.isalpha, text)) > 1 and text.isupper()
