"""Self-k: samples of one model, which its engine computes in one batch; then they vote, or the chair joins them.

Nearly free beside one answer where the engine batches, and better than a mixed council where one model is clearly the
best (docs/strategies.md). k calls in one phase; the chair's is a second, unless they can be counted or agree.
"""

from server.council.calls import Answer
from server.council.strategies.endings import agreed, ballots, counted, fused, settled
from server.council.table import Table

ENOUGH = "Enough samples say the same."


async def self_k(table: Table) -> None:
    """Ask one model as often as there are seats."""
    leader = table.seats[0]
    others = [seat for seat in table.seats if seat.model != leader.model]
    samples = [seat for seat in table.seats if seat.model == leader.model]
    for seat in others:
        table.drop(seat, f"This strategy asks {leader.model} alone.")
        samples.append(table.add_sample(leader, f"Another sample instead of {seat.label}."))

    def enough(answers: list[Answer]) -> str | None:
        return ENOUGH if settled(table, answers, len(samples) - len(answers)) else None

    await table.answers(samples, enough=enough)
    answers = table.done
    if len(answers) > 1 and ballots(answers) is not None:
        await counted(table, answers)
    elif not agreed(table, answers):
        await fused(table, answers)
