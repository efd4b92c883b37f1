"""Waits until somebody else has migrated the database, as a server's init container does."""

from collections.abc import Callable

from server.clock import Clock
from server.db.migrate import SchemaIsNewer, require_newest
from server.errors import StartError

EVERY_MS = 1_000


async def wait_for_newest(url: str, clock: Clock, *, wait_ms_max: int, tell: Callable[[str], None]) -> str:
    """Wait for Postgres to answer and for its schema to be the newest.

    Args:
        tell: told what is waited for, whenever that changes.

    Returns:
        The revision.

    Raises:
        StartError: it took too long, or the schema is of a newer version, which no waiting changes.
    """
    began_ms, last = clock.monotonic_ms(), ""
    while True:
        try:
            return await require_newest(url)
        except SchemaIsNewer:
            raise
        except StartError as error:
            if clock.monotonic_ms() - began_ms >= wait_ms_max:
                raise StartError(f"Waited for {wait_ms_max // 1000} seconds. {error.message}") from error
            if error.message != last:
                tell(last := error.message)
        await clock.sleep_ms(EVERY_MS)
