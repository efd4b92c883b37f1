"""The end of a request that left: its entry in the ledger and what it cost, both or neither, and once."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from server.privacy.egress import Connected, End, Entry, append_end, sent
from server.privacy.spend import hold, month_of, settle

# Longer than any answer takes.
ABANDONED_AFTER = timedelta(hours=1)


async def end(session: Connected, ended: End, at: datetime) -> Entry | None:
    """Write the end of a request, and settle what it reserved; None where that was done already.

    Args:
        session: of the person, or of everybody; in a transaction.
        at: now, by the clock.

    Raises:
        Conflict: it never left.
        Unavailable: the ledger does not fit together.
    """
    send = await sent(session, ended.request_id)
    if send is not None:
        await hold(session, send.user_id, month_of(send.at))
    entry = await append_end(session, ended, at)
    if entry is not None and send is not None:
        await settle(session, send.user_id, month_of(send.at), send.reserved_micros, ended.spent_micros)
    return entry


async def end_abandoned(
    connection: AsyncConnection,
    now: datetime,
    tell: Callable[[str], None],
    *,
    use: Callable[[AsyncConnection, Entry], Awaitable[None]],
    is_dry: bool = False,
) -> None:
    """End what left an hour ago and has no end, because the server that sent it is gone: upkeep's job `cloud ends`.

    Nobody knows what it cost, so what was reserved for it counts as spent.

    Args:
        connection: as the tables' owner; between transactions.
        tell: takes a line about what was done.
        use: writes down what was used by the one that was sent, in the transaction of its end.
    """
    async with connection.begin():
        rows = (await connection.execute(_OPEN, {"before": now - ABANDONED_AFTER})).all()
    count = 0
    for row in rows:
        if not is_dry:
            async with connection.begin():
                send = await sent(connection, row.request_id)
                if send is not None and await end(connection, _abandoned(send), now) is not None:
                    await use(connection, send)
                    count += 1
    if is_dry and rows:
        tell(f"would end {len(rows)} requests to clouds that nobody ended")
    elif count:
        tell(f"ended {count} requests to clouds that nobody ended; what they reserved counts as spent")
    else:
        tell("every request that left has its end")


def _abandoned(send: Entry) -> End:
    return End(
        request_id=send.request_id,
        outcome="abandoned",
        answer_bytes=0,
        input_tokens=None,
        output_tokens=None,
        spent_micros=send.reserved_micros,
    )


_OPEN = text("""
    SELECT request_id FROM egress AS sent
    WHERE kind = 'send' AND at < :before
        AND NOT EXISTS (SELECT FROM egress WHERE request_id = sent.request_id AND kind = 'end')
    ORDER BY seq
""")
