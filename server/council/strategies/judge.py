"""Judge: all answer, and one model picks the best of them. The answer is that member's own, word for word.

k calls and the judge's, which is short; two phases. Synthesis beats it where answers can be joined
(docs/strategies.md); it is for what must not be mixed, such as code. A judge that sits at the table does not read its
own answer; where that would leave it no choice, it does, and the verdict says so.
"""

from server.council import prompts
from server.council.agreement import agreement, opinions
from server.council.calls import Answer, Seat
from server.council.events import Verdict
from server.council.strategies.endings import alone, pairs
from server.council.table import CHAIRS_MAX, Table

CHOICE_LEAST = 2


async def judge(table: Table) -> None:
    """Let all answer and the best judge choose; the next, if it dies or names none."""
    await table.answers(table.seats)
    answers = table.done
    if len(answers) < CHOICE_LEAST:
        alone(table, answers[0], f"Only {answers[0].seat.label} has answered, so there was nothing to choose.")
        return
    notes: list[str] = []
    for seat in _judges(table, answers)[:CHAIRS_MAX]:
        choice, note = _choice(answers, seat)
        prompt = prompts.judge(table.question, choice, seat, table.chance)
        if prompt is None:
            notes.append(f"The answers do not fit into the context of {seat.model}, so it is not the judge.")
            continue
        ballot = await table.ask(seat, prompt.messages, "judge", prompts.RANKING_TOKENS_MAX)
        number = prompts.best_of(ballot.text, len(choice)) if ballot.is_done else None
        if number is not None:
            _conclude(table, seat, prompt.order[number - 1], [*notes, *note])
            return
        notes.append(f"The judge {seat.model} {_fault(ballot)}.")
    alone(table, answers[0], *notes, f"Nobody chose, so this is the answer of {answers[0].seat.label}.")


def _judges(table: Table, answers: list[Answer]) -> list[Seat]:
    """The chairs; who would have to judge over itself comes last."""
    return sorted(
        table.chairs,
        key=lambda seat: any(answer.seat.model == seat.model for answer in _choice(answers, seat)[0]),
    )


def _choice(answers: list[Answer], seat: Seat) -> tuple[list[Answer], list[str]]:
    others = [answer for answer in answers if answer.seat.model != seat.model]
    if len(others) >= CHOICE_LEAST or len(others) == len(answers):
        left_out = [answer.seat.label for answer in answers if answer not in others]
        return others, [f"{' and '.join(left_out)} is the judge's own and was left out."] if left_out else []
    return answers, [f"The judge {seat.model} had an answer of its own among them."]


def _conclude(table: Table, seat: Seat, label: str, notes: list[str]) -> None:
    answers = table.done
    groups = opinions(pairs(answers))
    chosen = next(answer for answer in answers if answer.seat.label == label)
    table.conclude(
        chosen.text,
        Verdict(
            method="judge",
            agreement=agreement(groups),
            opinions=groups,
            winner=label,
            by=seat.label,
            reason=" ".join((f"The judge {seat.model} chose {label}.", *notes)),
        ),
    )


def _fault(ballot: Answer) -> str:
    return "named none of the answers" if ballot.is_done else f"gave no answer ({ballot.reason})"
