"""The examination: how many questions each model answers with the right facts, run by llama.cpp as people get it.

A right answer holds every fact of its question (heldout.toml). Three answers vote: the vote is right if two of the
three are. What a council makes of them is another matter; this only shows what there is to work with.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

ANSWER_TOKENS_MAX = 120
THREADS = 2
ELSE = "else"


@dataclass(frozen=True)
class Exam:
    """A question, and regular expressions that a right answer holds."""

    room: str
    question: str
    says: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the answer holds every fact."""
        return all(re.search(each, answer, re.IGNORECASE) for each in self.says)


@dataclass(frozen=True)
class Answer:
    """What a model said, how it ended, and how fast."""

    text: str
    reason: str
    tokens: int
    tokens_per_s: float


def exams(path: Path) -> list[Exam]:
    """All questions of a file."""
    rooms = tomllib.loads(path.read_text())
    return [Exam(room, question, tuple(says)) for room, all_ in rooms.items() for question, says in all_.items()]


class Model:
    """A GGUF file in llama.cpp, as `wirthforge up` runs it."""

    def __init__(self, path: Path) -> None:
        chosen = xllamacpp.CommonParams()
        chosen.verbosity = 1
        chosen.model.path = str(path)
        chosen.n_ctx, chosen.n_parallel = 4096, 1
        chosen.cpuparams.n_threads = THREADS
        chosen.ui = False
        self._server = xllamacpp.Server(chosen)

    def answer(self, question: str, **more: Any) -> Answer:  # noqa: ANN401 (fields of the request)
        """Ask, with the samplers' own settings."""
        messages = [{"role": "user", "content": question}]
        said = self._server.handle_chat_completions(
            {"messages": messages, "max_tokens": ANSWER_TOKENS_MAX, "seed": 1, **more}
        )
        choice, timings = said["choices"][0], said["timings"]
        return Answer(
            choice["message"]["content"],
            choice["finish_reason"],
            timings["predicted_n"],
            timings["predicted_per_second"],
        )


def share(exams_: Sequence[Exam], right: Sequence[bool], room: str | None = None) -> float:
    """Percent that are right, of a room or of all."""
    counted = [ok for exam, ok in zip(exams_, right, strict=True) if room is None or exam.room == room]
    return 100 * sum(counted) / len(counted)


def votes(right: Mapping[str, Sequence[bool]]) -> tuple[list[bool], list[bool]]:
    """For each question: whether most models are right, and whether any is."""
    columns = list(zip(*right.values(), strict=True))
    return [2 * sum(column) > len(column) for column in columns], [any(column) for column in columns]
