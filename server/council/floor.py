"""Who speaks when: the leader before the others, each until its deadline, and what happens if the leader fails.

    leader   ──■■■■■■■■■■■■■■■■■■■■ done
    member      ··■■■■■■■■■■■■ done               begins after the leader's first token
    member      ··■■■■■■■■■■■■■■■■■■■■■■■■■│ late   1.5 times the leader's time, at least 20 s

A leader that has a slot and says nothing for 30 s is not waited for any longer. One that still stands in a queue is: on
a box that has no slot for the leader its members would only stand in line before other people, or before the leader. If
the asker has set a deadline, they follow when that has passed.

A deadline counts from when the member was asked, its waiting included, like the leader's time. Until the leader is done
nobody is late. The leader itself, and the chair, have ten minutes: engines that say nothing are given up much earlier
(server/engines), this is the last resort.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from server.clock import Clock
from server.council.calls import Ask
from server.council.turns import Turn
from server.deadline import first_of

# How long the others wait for the leader's first token, from when it last stood in a queue.
FIRST_TOKEN_MS_MAX = 30_000
MEMBER_MS_LEAST = 20_000
# Three halves of the leader's time.
MEMBER_FACTOR = (3, 2)
CALL_MS_MAX = 600_000
# How long those who were stopped may take to let go of what they hold.
CLOSE_MS_MAX = 5_000

log = structlog.get_logger(__name__)


class Floor:
    """All turns of a council, in the order in which they came.

    Args:
        deadline_ms: of every member but the leader, instead of the rule above.
    """

    def __init__(self, ask: Ask, clock: Clock, deadline_ms: int | None = None) -> None:
        self.turns: list[Turn] = []
        self.leader: Turn | None = None
        self._ask, self._clock, self._deadline_ms = ask, clock, deadline_ms
        self._tasks: list[asyncio.Task[None]] = []
        self._change: asyncio.Future[None] | None = None

    @property
    def members(self) -> list[Turn]:
        """The turns that are a member's answer."""
        return [turn for turn in self.turns if turn.call.role == "member"]

    @property
    def needs_leader(self) -> bool:
        """Whether nobody has led yet, or who did has failed and there was nobody to follow."""
        return self.leader is None or self.leader.state in {"failed", "revoked", "late"}

    def changed(self) -> None:
        """A turn has begun to answer, or is over."""
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    def start(self, turn: Turn) -> None:
        """Let it speak, if nobody has stopped it before."""
        if not turn.is_over:
            self._tasks.append(turn.start(self._ask))

    async def lead(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Let one begin alone; those of the others that have not begun and may now."""
        for index, turn in enumerate(turns):
            if self.leader is not None:
                self._promote(turn)
            self.leader = turn
            self.start(turn)
            await self._begun(turn)
            if not turn.is_over or turn.state == "done":
                return turns[index + 1 :]
        return ()

    async def _begun(self, turn: Turn) -> None:
        """Until it has begun to answer, or is over, or the others have waited for it long enough."""
        began_ms = self._clock.monotonic_ms()
        latest_ms = began_ms + max(FIRST_TOKEN_MS_MAX, self._deadline_ms or CALL_MS_MAX)
        until_ms = began_ms + FIRST_TOKEN_MS_MAX
        while True:
            await self.wait(lambda: turn.has_begun or turn.is_over, until_ms)
            if turn.has_begun or turn.is_over:
                return
            last_ms = until_ms
            until_ms = min(max(began_ms, turn.queued_ms or 0) + FIRST_TOKEN_MS_MAX, latest_ms)
            if until_ms <= last_ms:
                return

    async def over(self, turn: Turn) -> None:
        """Until it is over."""
        await self.wait(lambda: turn.is_over)

    async def wait(self, is_ready: Callable[[], bool], until_ms: int | None = None) -> None:
        """Until it is ready, at most until then; whoever is late meanwhile is stopped."""
        while True:
            self._succeed()
            now_ms = self._clock.monotonic_ms()
            for turn in self._running():
                if self._due_ms(turn) <= now_ms:
                    turn.end("late", f"It took longer than {(now_ms - (turn.began_ms or 0)) // 1000} s.")
            if is_ready() or (until_ms is not None and until_ms <= now_ms):
                return
            dues_ms = [self._due_ms(turn) for turn in self._running()]
            due_ms = min(dues_ms if until_ms is None else [*dues_ms, until_ms])
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await first_of(self._change, self._clock, max(due_ms - now_ms, 1))

    async def close(self, reason: str) -> None:
        """Stop what runs, all at once, and wait until it has let go, as long as that may take."""
        for turn in self.turns:
            turn.end("dropped", reason)
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        ended = asyncio.gather(*running, return_exceptions=True)
        if running and not await first_of(ended, self._clock, CLOSE_MS_MAX):
            log.error("council members do not let go", count=sum(not task.done() for task in running))

    def _running(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.began_ms is not None and not turn.is_over]

    def _promote(self, turn: Turn) -> None:
        assert self.leader is not None
        turn.lead(f"It leads now: {self.leader.call.seat.label} is {self.leader.state}.")
        self.leader = turn

    def _succeed(self) -> None:
        """If the leader has failed, the next who has begun, and has not, leads."""
        if self.leader is None or not self.needs_leader:
            return
        heirs = [turn for turn in self.members if turn.began_ms is not None]
        heir = next((turn for turn in heirs if not turn.is_over or turn.state == "done"), None)
        if heir is not None:
            self._promote(heir)

    def _due_ms(self, turn: Turn) -> int:
        began_ms = turn.began_ms or 0
        if turn.is_leader or turn.call.role == "chair":
            return began_ms + CALL_MS_MAX
        if self._deadline_ms is not None:
            return began_ms + min(self._deadline_ms, CALL_MS_MAX)
        if self.leader is None or self.leader.state != "done" or self.leader.total_ms is None:
            return began_ms + CALL_MS_MAX
        times, parts = MEMBER_FACTOR
        return began_ms + min(max(self.leader.total_ms * times // parts, MEMBER_MS_LEAST), CALL_MS_MAX)
