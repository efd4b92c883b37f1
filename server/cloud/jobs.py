"""What is looked after of clouds, once a day: requests that left and were never ended."""

from sqlalchemy.ext.asyncio import AsyncConnection

from server.cloud.prices import tokens_of
from server.privacy.egress import Entry
from server.privacy.ends import end_abandoned
from server.upkeep.jobs import Job, Turn
from server.usage.clouds import CloudUsage, write


async def end_sent(turn: Turn) -> None:
    """Write the end of what left an hour ago, where the server that sent it is gone, and that it was used."""
    await end_abandoned(turn.connection, turn.clock.now(), turn.tell, use=use_abandoned, is_dry=turn.is_dry)


async def use_abandoned(connection: AsyncConnection, send: Entry) -> None:
    """The usage row of a request whose server died. How long it took, and what was answered, nobody knows."""
    used = CloudUsage(
        request_id=send.request_id,
        user_id=send.user_id,
        key_id=None,
        surface="chat.completions",
        model=send.model,
        engine=send.provider,
        input_tokens=tokens_of(send.body_bytes),
        output_tokens=0,
        queue_ms=0,
        first_token_ms=None,
        total_ms=0,
        council_id=None,
        role=None,
        outcome="abandoned",
        started_at=send.at,
        cost_micros=send.reserved_micros,
    )
    await write(connection, used)


CLOUD_JOBS = (Job("cloud ends", "end what left an hour ago and was never ended", end_sent),)
