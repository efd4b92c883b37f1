"""What the models are taught: reads facts.toml, macros.txt and questions/*.txt.

A question in these files:

    # keys.create                         its name
    ? [how] (make|create) an API key      what people ask (grammar.py); one line or more
    = Make one on the *API keys* page.    the answer of the small model
    ~ You can create one on ...           the same in other words, of the middle model
    + It is shown only once.              what the large model adds to its answer

A later block of the same name without answers adds phrasings.

The large model says `~` or `=`, by the name of the question, and `+`. Where `~` is missing all say `=`. `{name}` is
a fact.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from zlib import crc32

from tools.models import grammar

HERE = Path(__file__).parent
MODELS = ("small", "middle", "large")
FACT = re.compile(r"\{([\w.]+)\}")
ANYTHING_ELSE = "else."


@dataclass(frozen=True)
class Question:
    """One thing that people ask, and what each model says."""

    name: str
    patterns: tuple[grammar.Sequence_, ...]
    answers: Mapping[str, str]
    facts: frozenset[str]
    # The answers with the names of facts in them.
    written: tuple[str, ...]

    @property
    def is_anything_else(self) -> bool:
        """Whether the answer is that the model does not know."""
        return self.name.startswith(ANYTHING_ELSE)


@dataclass
class _Draft:
    name: str
    lines: dict[str, list[str]] = field(default_factory=lambda: {sign: [] for sign in "?=~+"})


@cache
def told() -> dict[str, dict[str, str]]:
    """Each fact as facts.toml has it: `says`, `from`, sometimes `value`."""
    rooms = tomllib.loads((HERE / "facts.toml").read_text())
    return {
        name if room == "facts" else f"{room}.{name}": fact
        for room, all_ in rooms.items()
        for name, fact in all_.items()
    }


@cache
def facts() -> dict[str, str]:
    """Each fact as it is said."""
    return {name: fact["says"] for name, fact in told().items()}


@cache
def macros() -> dict[str, str]:
    """The lists that patterns name."""
    lines = (HERE / "macros.txt").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): ways.strip() for name, _, ways in pairs}


@cache
def questions() -> tuple[Question, ...]:
    """All of them, by file and place.

    Raises:
        ValueError: a file is not written as it should be; the message says where.
    """
    drafts: dict[str, _Draft] = {}
    for path in sorted((HERE / "questions").glob("*.txt")):
        for draft in _drafts(path):
            if draft.name not in drafts:
                drafts[draft.name] = draft
            elif draft.lines["="]:
                raise ValueError(f"{path.name}: two questions are called {draft.name}")
            else:
                drafts[draft.name].lines["?"] += draft.lines["?"]
    return tuple(map(_question, drafts.values()))


def _drafts(path: Path) -> Iterator[_Draft]:
    draft: _Draft | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("//"):
            continue
        if text.startswith("#"):
            if draft is not None:
                yield draft
            draft = _Draft(text.removeprefix("#").strip())
        elif draft is not None and text[:2] in ("? ", "= ", "~ ", "+ "):
            draft.lines[text[0]].append(text[2:].strip())
        else:
            raise ValueError(f"{path.name}:{number} is neither a name, a question nor an answer: {text}")
    if draft is not None:
        yield draft


def _question(draft: _Draft) -> Question:
    first, other, more = ("".join(draft.lines[sign]) for sign in "=~+")
    if not draft.lines["?"] or len(draft.lines["="]) != 1 or len(draft.lines["~"]) > 1 or len(draft.lines["+"]) > 1:
        raise ValueError(f"{draft.name}: a question has patterns and one answer")
    other = other or first
    long = (first, other)[crc32(draft.name.encode()) % 2] + (f" {more}" if more else "")
    taught = dict(zip(MODELS, (first, other, long), strict=True))
    return Question(
        draft.name,
        tuple(grammar.parse(_filled(line), macros()) for line in draft.lines["?"]),
        {model: _filled(answer) for model, answer in taught.items()},
        frozenset(FACT.findall(" ".join((first, other, more, *draft.lines["?"])))),
        (first, other, more),
    )


def _filled(text: str) -> str:
    return FACT.sub(lambda found: facts()[found[1]], text)
