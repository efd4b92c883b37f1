"""What is looked after of clouds, once a day: requests that left and were never ended, questions nobody said yes to."""

from datetime import timedelta

from sqlalchemy import text

from server.privacy.ends import end_abandoned
from server.upkeep.jobs import Job, Turn

# Of a question that was not answered, or with no; one that was used stays as long as its person.
KEPT = timedelta(days=1)
_OLD = "expires_at < :before AND used_at IS NULL"
_COUNT = text(f"SELECT count(*) FROM cloud_consents WHERE {_OLD}")  # noqa: S608 (words of ours)
_REMOVE = text(f"DELETE FROM cloud_consents WHERE {_OLD}")  # noqa: S608


async def end_sent(turn: Turn) -> None:
    """Write the end of what left an hour ago, where the server that sent it is gone."""
    await end_abandoned(turn.connection, turn.clock.now(), turn.tell, is_dry=turn.is_dry)


async def forget_questions(turn: Turn) -> None:
    """Remove questions that nothing has left by."""
    values = {"before": turn.clock.now() - KEPT}
    async with turn.connection.begin():
        if turn.is_dry:
            found = await turn.connection.scalar(_COUNT, values)
            turn.tell(f"would remove {found} questions that nothing has left by")
        else:
            removed = await turn.connection.execute(_REMOVE, values)
            turn.tell(f"removed {removed.rowcount} questions that nothing has left by")


CLOUD_JOBS = (
    Job("cloud ends", "end what left an hour ago and was never ended", end_sent),
    Job("consents", "remove questions about the cloud that nobody said yes to", forget_questions),
)
