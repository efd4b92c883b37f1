"""Solo: the leader answers. What everything else falls back to when there is no room.

One call, one phase.
"""

from server.council.strategies.endings import alone
from server.council.table import Table


async def solo(table: Table) -> None:
    """Ask the leader; the next, if it fails."""
    await table.answers(table.seats[:1])
    first = table.done[0]
    alone(table, first)
