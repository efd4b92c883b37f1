"""Debate: different models answer, read each other's answers, and answer again; then they vote, or the chair decides.

Experimental: across models and tasks, debate gains nothing over a vote of as many answers, unless the models are
different ones (docs/strategies.md). So it asks one sample of each model, once round by default, and stops as soon as
they agree. 2k calls and the chair's, three phases. With one model only, it is a vote of its samples, and says so.
"""

from server.council import prompts
from server.council.calls import Answer, Seat
from server.council.strategies.endings import agreed, ballots, counted, fused
from server.council.table import Table

ONE_MODEL = "A debate needs different models; there was one, so its samples were compared instead."


async def debate(table: Table) -> None:
    """Answer, read, answer again; at most `table.rounds` times."""
    seats: list[Seat] = []
    for seat in table.seats:
        if seat.model not in {other.model for other in seats}:
            seats.append(seat)
    if len(seats) == 1:
        await table.answers(table.seats)
        await _close(table, table.done, ONE_MODEL if len(table.seats) > 1 else "There was nobody to debate with.")
        return
    for seat in table.seats:
        if seat not in seats:
            table.drop(seat, "A debate asks each model once.")
    await table.answers(seats)
    answers = table.done
    notes: list[str] = []
    for _ in range(table.rounds):
        if len(answers) == 1:
            break
        if agreed(table, answers, *notes):
            return
        answers = await _round(table, answers, notes)
    await _close(table, answers, *notes)


async def _round(table: Table, answers: list[Answer], notes: list[str]) -> list[Answer]:
    """All answer again. Who cannot keeps its answer."""
    asked = []
    for answer in answers:
        prompt = prompts.debate(table.question, answers, answer, table.chance, answer_tokens=table.brief.answer_tokens)
        if prompt is None:
            notes.append(f"The others' answers do not fit into the context of {answer.seat.model}.")
        else:
            asked.append((answer.seat, prompt.messages))
    again = {answer.seat.label: answer for answer in await table.ask_all(asked, "debate")}
    kept = [again[label] if label in again and again[label].is_done else answer for label, answer in _labelled(answers)]
    silent = [answer.seat.label for answer in kept if answer.role == "member"]
    if silent:
        notes.append(f"{' and '.join(silent)} did not answer again.")
    return kept


def _labelled(answers: list[Answer]) -> list[tuple[str, Answer]]:
    return [(answer.seat.label, answer) for answer in answers]


async def _close(table: Table, answers: list[Answer], *notes: str) -> None:
    if len(answers) > 1 and ballots(answers) is not None:
        await counted(table, answers, *notes)
    elif not agreed(table, answers, *notes):
        await fused(table, answers, *notes)
