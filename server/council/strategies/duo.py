"""Duo: two different models. If they agree, the leader's answer is the answer; if not, a third is asked.

Most of what a council gains comes from its second opinion (docs/strategies.md), so this is where it begins, and mostly
ends. Two calls; a third and the chair's where they disagree. Two phases at the least where it needs the chair.
"""

from server.council.strategies.endings import agreed, fused
from server.council.table import Table

DISAGREE = "the first two disagree"


def why_more(table: Table) -> str:
    """Why one more is asked, when no majority has agreed."""
    if len(table.done) > 1:
        return DISAGREE
    return "only one has answered" if len(table.seats) > 1 else "one is no council"


async def duo(table: Table) -> None:
    """Ask the leader and the first of another model; one more if they disagree; then the chair."""
    leader = table.seats[0]
    other = next((seat for seat in table.seats[1:] if seat.model != leader.model), None)
    notes: tuple[str, ...] = ()
    if other is None and len(table.seats) > 1:
        other = table.seats[1]
        notes = ("There was no second model, so it is another sample of the same.",)
    await table.answers([leader, other] if other is not None else [leader])
    if agreed(table, table.done, *notes):
        return
    reason = why_more(table)
    third = await table.more(reason)
    if third is not None:
        await table.answers([third], reason=f"Asked because {reason}.")
        if agreed(table, table.done, *notes):
            return
    await fused(table, table.done, *notes)
