"""People who leave: what a request, or a command, has done about it (departing.py does it).

Whoever is to be removed is locked out first, in one transaction of the app; then everything that runs for them ends,
and the owner's connection does the rest. If upkeep is at work the removal is its last job; if the server is killed, it
is the next run's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from msgspec import Struct
from redis.exceptions import RedisError
from sqlalchemy import delete, insert, select, update

from quotas.ledger import Ledger
from server.clock import Clock, uuid7
from server.db.models import ApiKey, Departure, LoginSession, SetupToken, User
from server.db.session import Database
from server.errors import Conflict, NotFound, Unavailable
from server.upkeep.departing import Done, begun, depart, done_of
from server.upkeep.jobs import Job, run_jobs
from server.upkeep.owner import Owner
from server.upkeep.shelf import Shelf

DEPART = "departures"
# What runs is told to end, and again, since what waits may begin to run.
TELL_AGAIN_MS = 250
END_MS_MAX = 5_000
# What waits in a long queue is told when its turn comes.
END_LATER_MS_MAX = 15 * 60_000
BUSY_TRIES, BUSY_MS = 5, 1_000
RECEIPTS_MAX = 500

log = structlog.get_logger(__name__)


class Receipt(Struct, frozen=True, kw_only=True):
    """The removal of a person.

    Attributes:
        person_id: the id that they had.
        asked_by: an admin's id, or their own; None: the command line.
        done_at: None: it goes on (`done.problems` says what it waits for).
        keeps_usage: whether sums of their usage stay, under no name.
    """

    id: UUID
    person_id: UUID
    asked_by: UUID | None
    asked_at: datetime
    done_at: datetime | None
    keeps_usage: bool
    done: Done


class Departures:
    """Removes people, and remembers what was done.

    Args:
        announce: tells every replica that what people may do has changed.
        keeps_usage: whether sums of their usage stay, unless somebody says otherwise.
    """

    def __init__(
        self,
        owner: Owner,
        shelf: Shelf,
        database: Database,
        ledger: Ledger,
        clock: Clock,
        announce: Callable[[], Awaitable[object]],
        *,
        keeps_usage: bool = True,
    ) -> None:
        self._owner = owner
        self._shelf = shelf
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._announce = announce
        self._keeps_usage = keeps_usage
        self._tasks: set[asyncio.Task[object]] = set()

    async def remove(self, user_id: UUID, *, asked_by: UUID | None, keeps_usage: bool | None = None) -> Receipt:
        """Remove a person; the receipt says whether all of it is done. Whoever asked may leave, it goes on.

        Raises:
            NotFound: there is no such person.
            Conflict: it is the last admin.
            Unavailable: Postgres is away.
        """
        keeps = self._keeps_usage if keeps_usage is None else keeps_usage
        departure_id = await self.begin(user_id, asked_by=asked_by, keeps_usage=keeps)
        task = asyncio.create_task(self._go(user_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        return await self.receipt(departure_id)

    async def begin(self, user_id: UUID, *, asked_by: UUID | None, keeps_usage: bool) -> UUID:
        """Lock a person out for good, and write down that they are to be removed; returns the receipt's id.

        Raises:
            NotFound: there is no such person.
            Conflict: it is the last admin.
        """
        now = self._clock.now()
        async with self._database.transaction(of=user_id) as session:
            # All admins are locked, so that two who leave at once cannot both succeed.
            admins = (await session.scalars(select(User).where(User.role == "admin").with_for_update())).all()
            user = await session.get(User, user_id, with_for_update=True)
            if user is None:
                raise NotFound("There is no such person.")
            if not any(one.disabled_at is None for one in admins if one.id != user_id) and user.role == "admin":
                raise Conflict("The last admin stays: make somebody else admin first.", code="last_admin")
            known = await session.scalar(select(Departure.id).where(Departure.person_id == user_id))
            user.disabled_at = user.disabled_at or now
            gone = {
                table.__tablename__: len((await session.scalars(out.returning(table.user_id))).all())
                for table in (LoginSession, SetupToken)
                for out in (delete(table).where(table.user_id == user_id),)
            }
            own = ApiKey.user_id == user_id
            await session.execute(update(ApiKey).where(own, ApiKey.revoked_at.is_(None)).values(revoked_at=now))
            departure_id = known or uuid7(now)
            if known is None:
                row = {"id": departure_id, "person_id": user_id, "asked_by": asked_by, "asked_at": now}
                done = {"keeps_usage": keeps_usage, "done": begun(gone), "done_at": None}
                await session.execute(insert(Departure).values(**row, **done))
        await self._announce()
        return departure_id

    async def receipt(self, departure_id: UUID) -> Receipt:
        """One receipt. Raises NotFound."""
        async with self._database.transaction() as session:
            row = await session.get(Departure, departure_id)
        if row is None:
            raise NotFound("There is no such receipt.")
        return _receipt(row)

    async def receipts(self) -> Sequence[Receipt]:
        """The newest ones, at most RECEIPTS_MAX."""
        async with self._database.transaction() as session:
            newest = select(Departure).order_by(Departure.id.desc()).limit(RECEIPTS_MAX)
            return [_receipt(row) for row in await session.scalars(newest)]

    async def _go(self, user_id: UUID) -> None:
        if not await self._ended(user_id, END_MS_MAX):
            later = asyncio.create_task(self._ended(user_id, END_LATER_MS_MAX))
            self._tasks.add(later)
            later.add_done_callback(self._tasks.discard)
        job = Job(DEPART, "", lambda turn: depart(turn, self._shelf))
        for _ in range(BUSY_TRIES):
            try:
                ran = [result async for result in run_jobs(self._owner, [job], self._clock, lambda *_: None)]
            except Unavailable as error:
                log.warning("a removal waits", reason=error.message)
                return
            if ran:
                log.info("a removal has run", outcome=ran[0].outcome, note=ran[0].note)
                return
            await self._clock.sleep_ms(BUSY_MS)

    async def _ended(self, user_id: UUID, within_ms: int) -> bool:
        """Have everything end that runs for a person; whether nothing is left."""
        until_ms = self._clock.monotonic_ms() + within_ms
        try:
            while await self._ledger.revoke(str(user_id)):
                if self._clock.monotonic_ms() >= until_ms:
                    return False
                await self._clock.sleep_ms(TELL_AGAIN_MS)
        except (RedisError, OSError) as error:
            log.warning("requests of a person who was removed may go on", error=type(error).__name__)
        return True


def _receipt(row: Departure) -> Receipt:
    return Receipt(
        id=row.id,
        person_id=row.person_id,
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        done_at=row.done_at,
        keeps_usage=row.keeps_usage,
        done=done_of(row.done),
    )
