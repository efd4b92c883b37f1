"""Requests that wait in the queue of this replica."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from redis.exceptions import RedisError

from quotas.ledger import Progress
from server.clock import Clock
from server.errors import WirthforgeError
from server.sharing.lease import Asking, Lease
from server.sharing.outlook import Outlook

# How often a waiting request is told where it stands, and how soon for the first time.
TELL_MS = 1_000
TELL_FIRST_MS = 250


def heed_cancellation() -> None:
    """Raise a cancellation that an await swallowed: before Python 3.12 asyncio.wait_for does, and redis-py uses it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class QuotasChanged(Exception):
    """The limits that a request came with are not those in force."""


class Waiting:
    """A request in the queue; `turn` is set when it may run, or why it may not after all."""

    def __init__(self, of: Asking | Lease) -> None:
        self.entry = of.entry
        self.limits = of.limits
        # One that has run before, and is paused.
        self.lease = of if isinstance(of, Lease) else None
        # Until then the ledger may not have heard of it.
        self.has_entered = False
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def progress(self) -> Progress:
        """What the ledger is told while it waits; a paused answer stays charged with what it has written."""
        return Progress(self.entry.id, 0, -1) if self.lease is None else self.lease.progress

    def wake(self) -> None:
        """It may run."""
        if not self.turn.done():
            self.turn.set_result(None)

    def turn_away(self, error: WirthforgeError) -> None:
        """It may not."""
        if not self.turn.done():
            self.turn.set_exception(error)
            self.turn.exception()  # whoever waits may leave in this moment


async def stand_by(
    waiting: Waiting, asking: Asking, headers: Mapping[str, str], *, outlook: Outlook, clock: Clock
) -> None:
    """Until it is this one's turn; its client is told meanwhile, and the outlook learns how good its estimate was.

    Raises:
        WirthforgeError: it may not run after all.
    """
    pause_ms, entry = TELL_FIRST_MS, asking.entry
    # The first estimate, and when it was made.
    told: tuple[int, int] | None = None
    while not (await asyncio.wait([waiting.turn], timeout=pause_ms / 1000))[0]:
        heed_cancellation()
        pause_ms = TELL_MS
        with suppress(RedisError, OSError):
            standing = await outlook.standing(entry.id, entry.user)
            if told is None and (estimate_ms := outlook.estimate_ms(entry.id)) is not None:
                told = estimate_ms, clock.monotonic_ms()
            if asking.tell is not None and standing is not None:
                await asking.tell(standing, headers)
    waiting.turn.result()
    if told is not None:
        estimate_ms, then_ms = told
        outlook.learn(entry.user, estimate_ms, clock.monotonic_ms() - then_ms)
