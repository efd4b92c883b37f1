"""Race: everybody begins at once, and the first acceptable answer is the answer; the others are stopped.

For answers that must be quick, across engines that do not slow each other down: of several seats at one engine only the
first runs. Up to k calls, one phase; the calls that are stopped cost what they had done.
"""

from server.council.calls import Answer, Seat
from server.council.strategies.endings import alone
from server.council.table import Table

WON = "Another answer was there first."


async def race(table: Table) -> None:
    """Ask one seat of each engine at once, and take the first that is whole; a cut one if there is no other."""
    runners: list[Seat] = []
    for seat in table.seats:
        if seat.engine in {runner.engine for runner in runners}:
            table.drop(seat, f"A race asks each engine once, and {seat.engine} runs already.")
        else:
            runners.append(seat)

    def enough(answers: list[Answer]) -> str | None:
        return WON if any(_is_acceptable(answer) for answer in answers) else None

    await table.answers(runners, enough=enough, leader_first=False)
    done = table.done
    winner = min(done, key=lambda answer: (not _is_acceptable(answer), answer.total_ms or 0))
    sentence = f"{winner.seat.label} was the first of {len(runners)}."
    if not _is_acceptable(winner):
        sentence = f"No answer is whole; {winner.seat.label}'s was there first."
    alone(table, winner, sentence, method="race")


def _is_acceptable(answer: Answer) -> bool:
    """Whether it is whole. It is not empty: that would be a failure."""
    return not answer.is_cut
