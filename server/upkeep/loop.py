"""Runs the daily jobs as long as a server does: soon after it starts, and then once a day.

Each replica tries; while one is at it the others skip their turn, and what was done is not done again.
"""

from collections.abc import Sequence

import structlog

from server.clock import Clock
from server.errors import Unavailable
from server.upkeep.jobs import Job, run_jobs
from server.upkeep.owner import Owner

FIRST_MS = 60_000
EVERY_MS = 24 * 3_600_000
# After Postgres was away, or a job failed.
AGAIN_MS = 3_600_000

log = structlog.get_logger(__name__)


class Upkeep:
    """One per replica."""

    def __init__(self, owner: Owner, jobs: Sequence[Job], clock: Clock) -> None:
        self._owner = owner
        self._jobs = jobs
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        await self._clock.sleep_ms(FIRST_MS)
        while True:
            is_done = await self.step()
            await self._clock.sleep_ms(EVERY_MS if is_done else AGAIN_MS)

    async def step(self) -> bool:
        """Run all jobs once; whether none failed. Another replica's turn counts as done."""
        is_done = True
        try:
            async for result in run_jobs(self._owner, self._jobs, self._clock, _tell):
                is_done &= result.outcome == "done"
        except Unavailable as error:
            log.warning("upkeep waits", reason=error.message, code=error.code)
            return False
        return is_done


def _tell(job: str, line: str) -> None:
    log.info("upkeep", job=job, said=line)
