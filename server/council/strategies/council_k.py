"""Council-k: two different models first; if they disagree, all that there is room for; the chair joins what they said.

Two calls where they agree, k and the chair's where they do not; up to three phases.
"""

from server.council.strategies.duo import why_more
from server.council.strategies.endings import agreed, fused
from server.council.table import Table

FIRST = 2
# How often the allocator is asked for somebody new, when all who sit here disagree.
MORE_MAX = 2


async def council_k(table: Table) -> None:
    """Two first, the others on disagreement, then the chair."""
    leader = table.seats[0]
    # Another model before another sample of the leader's.
    order = sorted(table.seats[1:], key=lambda seat: seat.model == leader.model)
    await table.answers([leader, *order[: FIRST - 1]])
    if agreed(table, table.done):
        return
    reason = why_more(table)
    if table.unasked:
        await table.answers(table.unasked, reason=f"Asked because {reason}.")
        if agreed(table, table.done):
            return
        reason = "they disagree"
    for _ in range(MORE_MAX):
        seat = await table.more(reason)
        if seat is None:
            break
        await table.answers([seat], reason=f"Asked because {reason}.")
        if agreed(table, table.done):
            return
    await fused(table, table.done)
