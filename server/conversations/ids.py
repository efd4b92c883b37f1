"""Ids that never go back, though clocks do.

A message's id is larger than its conversation's and its parent's: they are sorted by it, and looked for from the
conversation's id on. Where the clock is behind them, by a step or because ids are made faster than it ticks, an id
follows the last one by a random step instead of beginning with the time.
"""

from datetime import datetime
from uuid import UUID

from server.clock import uuid7

# Random steps of this many bits: two that follow the same id at the same time are told apart.
STEP_BITS = 40


def id_after(now: datetime, *before: UUID) -> UUID:
    """An id that is larger than all of `before`."""
    made = uuid7(now)
    last = max(before, default=made)
    if made > last:
        return made
    step = 1 + (made.int & (1 << STEP_BITS) - 1)
    return UUID(int=last.int + step)
