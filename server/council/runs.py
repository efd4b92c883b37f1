"""What councils did, one row each: written when one begins, and again when it has ended.

The answer never waits for it: a run is put into a queue in memory and written as soon as Postgres takes it. While
Postgres is away the queue grows up to QUEUE_MAX; then the oldest are forgotten, and the log says how many. A run that
Postgres refuses is tried by itself ATTEMPTS_MAX times and then left out, so that it does not hold up the others.

A council whose server dies never ends. What it left is told as `abandoned` as soon as it is older than councils get.
Nothing is written for that, so whoever was only slow still ends its row.

A row says who took part, how long it took and how it ended. There is no place in it for what was asked or answered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from server.clock import Clock
from server.council.calls import Seat
from server.council.events import Report, Role, State
from server.db.models import CouncilRun
from server.db.session import Database
from server.errors import Unavailable
from server.telemetry import COUNCIL_MEMBERS, COUNCIL_SIZE, COUNCILS

QUEUE_MAX = 2_000
BATCH_MAX = 100
ATTEMPTS_MAX = 3
RETRY_MS = 1_000
PAGE_MAX = 100
TEXT_CHARACTERS_MAX = 500
# A debate of four rounds, a chair that breaks off and the next one: seven phases of ten minutes (floor.CALL_MS_MAX).
LIFE_MS_MAX = 2 * 3_600_000

MemberRole = Literal["leader"] | Role
Outcome = Literal["running", "completed", "cancelled", "failed", "abandoned"]
RUNNING: Outcome = "running"
ABANDONED: Outcome = "abandoned"

log = structlog.get_logger(__name__)


class RunMember(Struct, frozen=True, kw_only=True):
    """One request of a council, without its text.

    Attributes:
        label: A, B, …; that of whoever ranks, judges, debates or chairs is of the one who answered, or its own.
        state: how it ended; `reason` says why, where it is not done.
        first_token_ms, total_ms: since it was asked; null where it did not come so far.
    """

    label: str
    model: str
    engine: str
    role: MemberRole
    state: State
    reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    first_token_ms: int | None = None
    total_ms: int | None = None


class Run(Struct, frozen=True, kw_only=True):
    """A council, as it is stored.

    Attributes:
        id: of the council's request.
        name: as it was asked for, such as `council:3`.
        kind: of the question.
        wanted: how many members were asked for; None: as many as are worth it.
        size: how many sat.
        reason, binding, steps: of the allocation.
        chair: the model that was to make one answer of all, where there was one.
        verdict_method: how the members' answers became one; null where they did not.
        agreement: 0 to 1; null where it was not measured.
        winner: the label whose answer is the final one; null where the chair wrote it.
        shadow: what another policy would have chosen, where that was asked.
        total_ms: 0 while it runs.
    """

    id: UUID
    user_id: UUID
    name: str
    strategy: str
    kind: str
    wanted: int | None
    size: int
    reason: str
    binding: str
    steps: tuple[str, ...] = ()
    members: tuple[RunMember, ...] = ()
    chair: str | None = None
    verdict_method: str | None = None
    agreement: float | None = None
    winner: str | None = None
    shadow: Mapping[str, Any] | None = None
    outcome: Outcome = "completed"
    started_at: datetime
    total_ms: int


def members_of(reports: Sequence[Report], leader: str) -> tuple[RunMember, ...]:
    """What is stored of the reports: everything but the texts."""
    return tuple(
        RunMember(
            label=report.label,
            model=report.model,
            engine=report.engine,
            role="leader" if report.role == "member" and report.label == leader else report.role,
            state=report.state,
            reason=report.reason,
            prompt_tokens=report.usage.prompt_tokens if report.usage else 0,
            completion_tokens=report.usage.completion_tokens if report.usage else 0,
            cached_tokens=report.usage.cached_tokens if report.usage else 0,
            first_token_ms=report.first_token_ms,
            total_ms=report.total_ms,
        )
        for report in reports
    )


def seated(seats: Sequence[Seat]) -> tuple[RunMember, ...]:
    """Who sits at the beginning, the leader first; nobody has been asked."""
    return tuple(
        RunMember(
            label=seat.label,
            model=seat.model,
            engine=seat.engine,
            role="member" if index else "leader",
            state="waiting",
        )
        for index, seat in enumerate(seats)
    )


class Runs:
    """All of them; one for each replica."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._queue: OrderedDict[UUID, Run] = OrderedDict()
        self._refused: dict[UUID, int] = {}
        self._lost = 0
        self._has_some = asyncio.Event()
        self._writing = asyncio.Lock()

    def record(self, run: Run) -> None:
        """Have it written, in the place of what was recorded of it before. Does not wait, and cannot fail."""
        if run.outcome != RUNNING:
            _count(run)
        self._queue[run.id] = run
        self._has_some.set()
        while len(self._queue) > QUEUE_MAX:
            forgotten, _ = self._queue.popitem(last=False)
            self._refused.pop(forgotten, None)
            self._lost += 1

    @property
    def waiting(self) -> int:
        """How many are not written yet."""
        return len(self._queue)

    async def run(self) -> None:
        """Write until cancelled, and then what is left. Postgres away: wait."""
        is_away = False
        try:
            while True:
                await self._has_some.wait()
                try:
                    await self._write()
                except Unavailable as error:
                    if not is_away:
                        log.warning("council runs wait", reason=error.message, waiting=len(self._queue))
                    is_away = True
                else:
                    is_away = False
                    self._tell_lost()
                if self._queue:  # Postgres is away, or has refused some
                    await self._clock.sleep_ms(RETRY_MS)
        finally:
            await self._close()

    async def settle(self, run_id: UUID) -> None:
        """If this run waits to be written, write it now. Raises Unavailable."""
        if run_id in self._queue:
            await self._write()

    async def newest(self, *, before: UUID | None = None, count_max: int = PAGE_MAX) -> Sequence[CouncilRun]:
        """The newest first, at most PAGE_MAX. Raises Unavailable.

        Args:
            before: the last one of the page before; none follow one that there is not.
        """
        query = select(CouncilRun).order_by(CouncilRun.started_at.desc(), CouncilRun.id.desc())
        async with self._database.transaction(everybody=True) as session:
            if before is not None:
                last = await session.get(CouncilRun, before)
                if last is None:
                    return []
                query = query.where(tuple_(CouncilRun.started_at, CouncilRun.id) < (last.started_at, last.id))
            found = (await session.scalars(query.limit(min(count_max, PAGE_MAX)))).all()
        oldest = self._clock.now() - timedelta(milliseconds=LIFE_MS_MAX)
        for row in found:  # of a session that has ended: this is told, not written
            if row.outcome == RUNNING and row.started_at < oldest:
                row.outcome = ABANDONED
        return found

    async def _close(self) -> None:
        """Write what is there, or say what is lost."""
        try:
            await self._write()
        except Unavailable as error:
            log.error("council runs are lost", count=len(self._queue), reason=error.message)

    def _tell_lost(self) -> None:
        if self._lost:
            log.error("council runs were forgotten while Postgres was away", count=self._lost)
            self._lost = 0

    async def _write(self) -> None:
        """Everything that is there now."""
        async with self._writing:
            left = len(self._queue)
            while left > 0 and self._queue:
                batch = list(self._queue.values())[: min(left, BATCH_MAX)]
                left -= len(batch)
                try:
                    await self._insert(batch)
                except SQLAlchemyError:
                    await self._write_each(batch)
                else:
                    self._forget(batch)

    async def _write_each(self, batch: Sequence[Run]) -> None:
        """One by one, since one of them is refused. That goes to the end of the queue, until it is given up."""
        for run in batch:
            try:
                await self._insert([run])
            except SQLAlchemyError as error:
                attempts = self._refused.get(run.id, 0) + 1
                if attempts < ATTEMPTS_MAX:
                    self._refused[run.id] = attempts
                    if run.id in self._queue:
                        self._queue.move_to_end(run.id)
                    continue
                log.error("a council run cannot be written", council=str(run.id), error=type(error).__name__)
            self._forget([run])

    async def _insert(self, batch: Sequence[Run]) -> None:
        async with self._database.transaction(everybody=True) as session:
            new = insert(CouncilRun)
            query = new.on_conflict_do_update(
                index_elements=[CouncilRun.id],
                set_={name: new.excluded[name] for name in Run.__struct_fields__ if name != "id"},
                where=(CouncilRun.outcome == RUNNING) & (new.excluded.outcome != RUNNING),
            )
            await session.execute(query, [_row(run) for run in batch])

    def _forget(self, written: Sequence[Run]) -> None:
        for run in written:
            if self._queue.get(run.id) is run:  # else it has ended meanwhile
                del self._queue[run.id]
            self._refused.pop(run.id, None)
        if not self._queue:
            self._has_some.clear()


def _count(run: Run) -> None:
    COUNCILS.labels(run.strategy, run.outcome).inc()
    COUNCIL_SIZE.labels(run.strategy).observe(run.size)
    for member in run.members:
        COUNCIL_MEMBERS.labels(member.role, member.state).inc()


def _row(run: Run) -> dict[str, Any]:
    """What Postgres gets. It takes no NULs; reasons may quote an engine, which may say anything at any length."""
    fields: dict[str, Any] = _clean(msgspec.to_builtins(run))
    return fields | {
        "id": run.id,
        "user_id": run.user_id,
        "started_at": run.started_at,
        "steps": list(fields["steps"]),
        "feedback": None,
    }


def _clean(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()[:TEXT_CHARACTERS_MAX]
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
