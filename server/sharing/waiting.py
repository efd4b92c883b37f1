"""Requests that wait in the queue of this replica."""

import asyncio

from server.errors import WirthforgeError
from server.sharing.lease import Asking, Lease


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

    def wake(self) -> None:
        """It may run."""
        if not self.turn.done():
            self.turn.set_result(None)

    def turn_away(self, error: WirthforgeError) -> None:
        """It may not."""
        if not self.turn.done():
            self.turn.set_exception(error)
