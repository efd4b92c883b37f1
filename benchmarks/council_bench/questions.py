"""Questions with an answer that a program can check, and when an answer is right.

    number   the value that the server would count in a vote (server/council/extraction.py), else the last number in the
             text, equals an accepted one
    yesno    the value that the server would count is the accepted one
    choice   likewise; the text of a choice without its letter is not right
    fact     the text holds an accepted word or phrase, whole, in any case, with or without accents

Thoughts that a model leaves in its answer do not count. A fact is right also if more is said than was asked, and said
wrongly; so the set asks for what nobody names by chance. Who answers nothing is wrong.
"""

import re
import tomllib
import unicodedata
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from server.council.extraction import Value, extract, spoken
from server.errors import InvalidRequest

DATA = Path(__file__).parents[1] / "data"
# The sets that come along, by the name that --questions takes.
SETS = {"general": DATA / "council-general.toml", "server": DATA / "council-server.toml"}
FILE_BYTES_MAX = 4 * 1024 * 1024

NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d+(?:[.,]\d+)*(?:/\d+)?(?: ?%)?")

Text = Annotated[str, Meta(min_length=1, max_length=20_000)]


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked, word for word, and which answers are right."""

    kind: Literal["number", "yesno", "choice", "fact"]
    ask: Text
    answers: Annotated[tuple[Text, ...], Meta(min_length=1)]

    def is_right(self, text: str) -> bool:
        """Whether an answer is right."""
        said = spoken(text)
        if self.kind == "fact":
            plain = _plain(said)
            return any(_holds(plain, _plain(answer)) for answer in self.answers)
        value = extract(said)
        if self.kind == "number" and (value is None or value.kind != "number"):
            value = _last_number(said)
        return value is not None and any(_is_same(value, answer) for answer in self.answers)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[tuple[Question, ...], Meta(min_length=1)]


def load(name: str) -> tuple[Question, ...]:
    """The questions of a set that comes along, or of a file like these.

    Raises:
        InvalidRequest: there is no such file, or it is broken; says where.
    """
    path = SETS.get(name) or Path(name)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InvalidRequest(f"The questions {name} are longer than {FILE_BYTES_MAX >> 20} MiB.")
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).question
    except OSError as error:
        raise InvalidRequest(
            f"The questions {name} cannot be read: {error.strerror}. "
            f"A file, or one of the sets that come along: {', '.join(SETS)}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The questions {name} are no TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The questions {name} cannot be used: {error}") from None
    for number, question in enumerate(found, start=1):
        _check(name, number, question)
    return found


def _check(name: str, number: int, question: Question) -> None:
    """An answer that no answer could equal would make everybody wrong."""
    for answer in question.answers:
        value = extract(answer)
        if question.kind != "fact" and (value is None or value.kind != question.kind):
            raise InvalidRequest(
                f"The questions {name} cannot be used: question {number} is of the kind {question.kind}, "
                f"and its answer {answer[:80]!r} is not."
            )
        if question.kind == "fact" and not _plain(answer).strip():
            raise InvalidRequest(f"The questions {name} cannot be used: question {number} has an empty answer.")


def _is_same(value: Value, answer: str) -> bool:
    accepted = extract(answer)
    return accepted is not None and value.is_same(accepted)


def _last_number(text: str) -> Value | None:
    found = NUMBER.findall(text)
    return extract(f"Answer: {found[-1]}") if found else None


def _plain(text: str) -> str:
    """In small letters, without accents, emphasis and double blanks."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter) and letter not in "*`")
    return " ".join(bare.split())


def _holds(text: str, phrase: str) -> bool:
    """Whether the phrase stands there whole: 10 is neither in 100 nor in 10.5."""
    before = r"(?<!\w)(?<!\d[.,])" if re.match(r"\w", phrase) else ""
    after = r"(?!\w)(?![.,]\d)" if re.search(r"\w\Z", phrase) else ""
    return re.search(f"{before}{re.escape(phrase)}{after}", text) is not None
