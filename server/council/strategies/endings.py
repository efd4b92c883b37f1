"""How councils end: they agree, a majority decides, or the chair makes one answer of several.

Every ending tells all opinions, the minority's too, and says in plain sentences how it came about. `notes` are what a
strategy wants said besides, such as why it did something else than its name promises.
"""

from collections.abc import Sequence
from functools import partial

from server.council import prompts
from server.council.agreement import agreement, countable, is_out_of_reach, is_settled, largest, opinions
from server.council.calls import Answer, Prompt, Seat
from server.council.events import Method, Opinion, Verdict
from server.council.table import Table

# Less than a majority of the answers with something to count is no vote.
BALLOTS_SHARE = 0.5
NOTHING_BUT_TEXTS = "They hold no short answer that could be counted, and were compared as texts."
NOTHING_TO_COUNT = "The answers hold no short answer that could be counted, so they went to the chair."


def pairs(answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """Label and text of each."""
    return [(answer.seat.label, answer.text) for answer in answers]


def alone(table: Table, answer: Answer, *notes: str, method: Method = "solo") -> None:
    """Conclude with the answer that there is."""
    groups = opinions(pairs(table.done))
    reason = " ".join(notes) or f"{answer.seat.label} answered alone."
    table.conclude(
        answer.text,
        Verdict(
            method=method,
            agreement=agreement(groups),
            opinions=groups,
            winner=answer.seat.label,
            reason=reason,
        ),
    )


def agreed(table: Table, answers: Sequence[Answer], *notes: str) -> bool:
    """Conclude if more than half of at least two answers say the same; tells whether it did."""
    groups = opinions(pairs(answers))
    first = largest(groups, lambda group: len(group.labels))
    if first is None or len(first.labels) < 2 or 2 * len(first.labels) <= len(answers):  # noqa: PLR2004
        return False
    said = speaker(answers, first)
    told = f"{len(first.labels)} of {len(answers)} agree, so {said.seat.label}'s answer is the answer."
    table.conclude(
        said.text,
        Verdict(
            method="agreement",
            agreement=agreement(groups),
            opinions=groups,
            winner=said.seat.label,
            reason=" ".join((told, *notes)),
        ),
    )
    return True


def speaker(answers: Sequence[Answer], group: Opinion) -> Answer:
    """Who speaks for an opinion: the first of the answers that holds it, so the leader if it does."""
    return next(answer for answer in answers if answer.seat.label in group.labels)


async def fused(
    table: Table,
    answers: Sequence[Answer],
    *notes: str,
    ranking: Sequence[str] = (),
    method: Method = "chair",
    winner: str | None = None,
) -> None:
    """Let the chair join the answers; a single one needs no chair."""
    if len(answers) == 1:
        alone(table, answers[0], *notes, f"Only {answers[0].seat.label} has answered.")
        return
    prompt_of = partial(_chair_prompt, table, answers, ranking)
    groups = opinions(pairs(answers))
    most = largest(groups, lambda group: len(group.labels))
    otherwise = answers[0] if most is None else speaker(answers, most)
    spoken = await table.chair_says(prompt_of, otherwise=otherwise)
    by = None if spoken.by is None else spoken.by.label
    told = [] if spoken.by is None else [f"The chair {spoken.by.model} joined {len(answers)} answers."]
    fallback = otherwise.seat.label if spoken.by is None else None
    table.tell(
        Verdict(
            method=method if spoken.by is not None else "solo",
            agreement=agreement(groups),
            opinions=groups,
            winner=fallback or winner,
            by=by,
            reason=" ".join((*notes, *spoken.notes, *told)),
        )
    )


def _chair_prompt(table: Table, answers: Sequence[Answer], ranking: Sequence[str], seat: Seat) -> Prompt | None:
    return prompts.chair(
        table.question,
        answers,
        seat,
        table.chance,
        answer_tokens=table.brief.answer_tokens,
        ranking=ranking,
    )


def ballots(answers: Sequence[Answer]) -> list[Answer] | None:
    """Those of the answers that can be counted; None if they are too few for a vote."""
    labels = {label for label, _ in countable(pairs(answers))}
    counted = [answer for answer in answers if answer.seat.label in labels]
    return counted if len(counted) > BALLOTS_SHARE * len(answers) else None


async def counted(table: Table, answers: Sequence[Answer], *notes: str) -> None:
    """Conclude by majority of the ballots; the chair decides a tie, and what cannot be counted."""
    votes = ballots(answers)
    if votes is None and agreed(table, answers, *notes, NOTHING_BUT_TEXTS):
        return
    if votes is None:
        await fused(table, answers, *notes, *([NOTHING_TO_COUNT] if len(answers) > 1 else []))
        return
    groups = opinions(pairs(votes))
    first = largest(groups, lambda group: len(group.labels))
    if first is None or len(votes) == 1:
        sentence = "The vote is a tie." if first is None else "Only one of them can be counted."
        await fused(table, answers, *notes, sentence)
        return
    said = speaker(votes, first)
    abstained = [answer for answer in answers if answer not in votes]
    told = f"{len(first.labels)} of {len(votes)} votes are for {first.answer!r}."
    if abstained:
        told += f" {' and '.join(answer.seat.label for answer in abstained)} gave no answer that can be counted."
    shown = tuple(sorted((*groups, *opinions(pairs(abstained))), key=lambda group: -len(group.labels)))
    table.conclude(
        said.text,
        Verdict(
            method="vote",
            agreement=agreement(shown),
            opinions=shown,
            winner=said.seat.label,
            reason=" ".join((told, *notes)),
        ),
    )


def settled(table: Table, answers: Sequence[Answer], left: int | None = None) -> bool:
    """Whether a vote among these answers needs no more; `left` are those that can still come, if that is known."""
    votes = ballots(answers)
    if votes is None or len(votes) < 2:  # noqa: PLR2004
        return False
    counts = [len(group.labels) for group in opinions(pairs(votes))]
    return is_settled(counts, table.brief.stop_at) or (left is not None and is_out_of_reach(counts, left))
