"""Vote: short answers are counted, and asked for until the majority would hold (agreement.py).

Two first. As long as the vote is not settled, as many more are asked at once as could settle it, should they all agree.
So the calls depend on how much they disagree: 2 to 6 and more. Where the answers hold nothing that can be counted, the
chair joins those that are there, and the verdict says so; a tie is the chair's, too.
"""

from server.council.agreement import ballots_missing, countable, is_out_of_reach, opinions
from server.council.calls import Seat
from server.council.strategies.endings import ballots, counted, pairs, settled
from server.council.table import Table

FIRST = 2
UNSETTLED = "the vote is open"


async def vote(table: Table) -> None:
    """Ask, count, and ask more until it is settled or there is nobody left."""
    await table.answers(table.seats[:FIRST])
    while not settled(table, table.done):
        answers = pairs(table.done)
        votes = countable(answers)
        # An essay: more of them would not make it countable. One of two may just have missed the form.
        if ballots(table.done) is None and len(answers) > (FIRST if votes else FIRST - 1):
            break
        counts = [len(group.labels) for group in opinions(votes)]
        if table.unasked and is_out_of_reach(counts, len(table.unasked)):
            break
        seats = await _next(table, ballots_missing(counts, table.brief.stop_at, len(table.seats)))
        if not seats:
            break
        await table.answers(seats, reason=f"Asked because {UNSETTLED}.")
    await counted(table, table.done)


async def _next(table: Table, wanted: int) -> list[Seat]:
    """So many of those who were not asked; somebody new if there is none."""
    seats = list(table.unasked[:wanted])
    if not seats:
        seat = await table.more(UNSETTLED)
        seats = [] if seat is None else [seat]
    return seats
