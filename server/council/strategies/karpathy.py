"""Karpathy's council (github.com/karpathy/llm-council, the idea, not its code): answers, peer ranking, chair.

Every member ranks the others' answers without names and in an order of its own; nobody ranks its own. Ranks are added
up as Borda points, never scores, since some are harsh and some are kind: the best of n gets n - 1 points, the last
none. The chair reads the answers with that ranking as a hint. 2k + 1 calls in three phases, the second of which reads
about k² answers: the dearest strategy, and nobody has shown that the ranking makes the chair's answer better.
"""

from collections.abc import Mapping, Sequence

from server.council import prompts
from server.council.strategies.endings import fused, pairs
from server.council.table import Table

# With two answers everybody would rank one.
RANKED_LEAST = 3


async def karpathy(table: Table) -> None:
    """Answers, ranking, chair."""
    await table.answers(table.seats)
    answers = table.done
    if len(answers) < RANKED_LEAST:
        await fused(table, answers, f"With {len(answers)} answers there is nothing to rank.")
        return
    asked = [(answer.seat, prompts.ranker(table.question, answers, answer.seat, table.chance)) for answer in answers]
    readers = [(seat, prompt) for seat, prompt in asked if prompt is not None]
    ballots = await table.ask_all(
        [(seat, prompt.messages) for seat, prompt in readers], "rank", prompts.RANKING_TOKENS_MAX
    )
    rankings: dict[str, tuple[str, ...]] = {}
    for (seat, prompt), ballot in zip(readers, ballots, strict=True):
        ranks = prompts.ranking_of(ballot.text, len(prompt.order)) if ballot.is_done else None
        if ranks is not None:
            rankings[seat.label] = tuple(prompt.order[rank - 1] for rank in ranks)
    notes = []
    silent = [answer.seat.label for answer in answers if answer.seat.label not in rankings]
    if silent:
        notes.append(f"{' and '.join(silent)} gave no ranking that can be counted.")
    if not rankings:
        await fused(table, answers, *notes)
        return
    points = borda(rankings, [label for label, _ in pairs(answers)])
    ranking = sorted(points, key=lambda label: -points[label])
    told = ", ".join(f"{label} {points[label]:g}" for label in ranking)
    notes.append(f"Points by rank, own answers not counted: {told}.")
    await fused(table, answers, *notes, ranking=ranking, method="rank", winner=ranking[0])


def borda(rankings: Mapping[str, Sequence[str]], labels: Sequence[str]) -> dict[str, float]:
    """Points of each label, on average of those who ranked it.

    The average, since who gave no ranking would else be ranked once more often than the others. A voter's own label in
    its ranking is taken out before points are given.
    """
    given: dict[str, list[int]] = {label: [] for label in labels}
    for voter, ranking in rankings.items():
        others = [label for label in ranking if label != voter and label in given]
        for place, label in enumerate(others):
            given[label].append(len(others) - 1 - place)
    return {label: round(sum(points) / len(points), 2) if points else 0.0 for label, points in given.items()}
