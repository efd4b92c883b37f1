"""What is looked after of clouds, once a day: requests that left and were never ended."""

from server.privacy.ends import end_abandoned
from server.upkeep.jobs import Job, Turn


async def end_sent(turn: Turn) -> None:
    """Write the end of what left an hour ago, where the server that sent it is gone."""
    await end_abandoned(turn.connection, turn.clock.now(), turn.tell, is_dry=turn.is_dry)


CLOUD_JOBS = (Job("cloud ends", "end what left an hour ago and was never ended", end_sent),)
