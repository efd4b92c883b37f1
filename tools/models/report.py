"""`python -m tools.models examine`: the table of docs/models.md."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tools.models.examine import ELSE, Exam, Model, exams, share, votes

Row = tuple[str, Sequence[bool]]


def examine(paths: dict[str, Path], questions: Path, tell: Callable[[str], None], *, wrong: bool = False) -> None:
    """Ask every model everything, and tell the table.

    Args:
        paths: the models' files by name.
        questions: a file of questions (heldout.toml).
        wrong: also tell the answers that are wrong.
    """
    asked = exams(questions)
    right: dict[str, list[bool]] = {}
    speed: dict[str, float] = {}
    stopped: dict[str, float] = {}
    for name, path in paths.items():
        model = Model(path)
        answers = [model.answer(exam.question) for exam in asked]
        right[name] = [exam.is_right(answer.text) for exam, answer in zip(asked, answers, strict=True)]
        speed[name] = median(answer.tokens_per_s for answer in answers)
        stopped[name] = 100 * sum(answer.reason == "stop" for answer in answers) / len(answers)
        if wrong:
            for exam, answer, ok in zip(asked, answers, right[name], strict=True):
                if not ok:
                    tell(f"{name}: {exam.question}\n    {answer.text}")
    _tell_table(asked, right, speed, stopped, tell)


def _tell_table(
    asked: Sequence[Exam],
    right: dict[str, list[bool]],
    speed: dict[str, float],
    stopped: dict[str, float],
    tell: Callable[[str], None],
) -> None:
    most, any_ = votes(right)
    rooms = list(dict.fromkeys(exam.room for exam in asked))
    rows: list[Row] = [*right.items(), ("two of three", most), ("any of three", any_)]
    tell("| | " + " | ".join(name for name, _ in rows) + " |")
    tell("| --- |" + " --- |" * len(rows))
    about = [room for room in rooms if room != ELSE]
    for room in about:
        number = sum(exam.room == room for exam in asked)
        tell(f"| {room} ({number}) | " + " | ".join(f"{share(asked, ok, room):.0f} %" for _, ok in rows) + " |")
    known = [number for number, exam in enumerate(asked) if exam.room != ELSE]
    figures = [100 * sum(ok[number] for number in known) / len(known) for _, ok in rows]
    tell(f"| **about this server ({len(known)})** | " + " | ".join(f"**{figure:.1f} %**" for figure in figures) + " |")
    if ELSE in rooms:
        number = sum(exam.room == ELSE for exam in asked)
        tell(
            f"| **anything else ({number})** | "
            + " | ".join(f"**{share(asked, ok, ELSE):.1f} %**" for _, ok in rows)
            + " |"
        )
    tell(f"| all ({len(asked)}) | " + " | ".join(f"{share(asked, ok):.1f} %" for _, ok in rows) + " |")
    tell("| stopped by itself | " + " | ".join(f"{stopped[name]:.0f} %" for name in right) + " | | |")
    tell("| tokens/s, two threads | " + " | ".join(f"{speed[name]:.0f}" for name in right) + " | | |")
