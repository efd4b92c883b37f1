"""Named councils: members, strategy, chair and rounds under a name that anybody may ask for as `council:NAME`.

They live in Postgres, so that all replicas have the same. Every replica reads them every few seconds, and at once after
a change of its own; a request costs no query.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.council.audit import audited
from server.council.names import MODEL_CHARACTERS_MAX, NAME, NAME_CHARACTERS_MAX, ROUNDS_MAX, is_council
from server.db.models import CouncilRow
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound, Unavailable
from server.messages import Principal

READ_EVERY_MS = 3_000
COUNCILS_MAX = 200
MEMBERS_MAX = 6
# Changes take turns: two first definitions of one name would collide.
_TURN = text("LOCK TABLE councils IN SHARE ROW EXCLUSIVE MODE")

log = structlog.get_logger(__name__)


class Definition(Struct, frozen=True, kw_only=True):
    """What an admin says of a council.

    Attributes:
        members: models; which of them leads is decided for each question.
        chair: the model that makes one answer of all; None: the best at that.
        rounds: of a strategy that has several.
    """

    members: tuple[str, ...]
    strategy: str
    chair: str | None = None
    rounds: int = 1


class NamedCouncil(Struct, frozen=True, kw_only=True):
    """A council that was defined; without `updated_by` the command line did it."""

    name: str
    definition: Definition
    created_at: datetime
    updated_at: datetime
    updated_by: UUID | None


class NamedCouncils:
    """All of them.

    Args:
        strategies: the names of those that there are.
    """

    def __init__(self, database: Database, clock: Clock, *, strategies: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._clock = clock
        self._strategies = strategies
        self._known: dict[str, NamedCouncil] = {}
        self._changes = 0

    def get(self, name: str) -> NamedCouncil | None:
        """As it was last read; asks nobody."""
        return self._known.get(name)

    @property
    def known(self) -> Sequence[NamedCouncil]:
        """All, by name, as they were last read."""
        return list(self._known.values())

    async def all(self) -> list[NamedCouncil]:
        """All, by name, from Postgres. Raises Unavailable."""
        async with self._database.transaction() as session:
            rows = (await session.scalars(select(CouncilRow).order_by(CouncilRow.name))).all()
            return [_council(row) for row in rows]

    async def one(self, name: str) -> NamedCouncil:
        """One of them, from Postgres. Raises NotFound and Unavailable."""
        async with self._database.transaction() as session:
            return _council(await _row(session, name))

    async def put(self, actor: Principal, name: str, definition: Definition) -> NamedCouncil:
        """Define a council, or define it anew. It is in force at once here, and within seconds elsewhere.

        Raises:
            InvalidRequest: the name, a member, the strategy, the chair or the rounds will not do; `param` says which.
            Conflict: there are COUNCILS_MAX.
            Unavailable: Postgres is away.
        """
        check_name(name)
        self._check(definition)
        now = self._clock.now()
        async with self._database.transaction() as session:
            await session.execute(_TURN)
            row = await session.get(CouncilRow, name)
            before = None if row is None else _council(row).definition
            if row is None:
                if (await session.scalar(select(func.count()).select_from(CouncilRow)) or 0) >= COUNCILS_MAX:
                    raise Conflict(f"There are {COUNCILS_MAX} named councils already.")
                row = CouncilRow(name=name, created_at=now)
                session.add(row)
            if before != definition:
                row.members, row.strategy = list(definition.members), definition.strategy
                row.chair, row.rounds = definition.chair, definition.rounds
                row.updated_at, row.updated_by = now, actor.id
                old, new = (None if each is None else _fields(each) for each in (before, definition))
                session.add(audited(actor, now, "council.set", f"council {name}", before=old, after=new))
            found = _council(row)
        self._changes += 1
        self._take([*(council for council in self._known.values() if council.name != name), found])
        return found

    async def remove(self, actor: Principal, name: str) -> None:
        """Forget a council; requests that run go on. Raises NotFound and Unavailable."""
        async with self._database.transaction() as session:
            await session.execute(_TURN)
            row = await _row(session, name)
            before = _fields(_council(row).definition)
            session.add(audited(actor, self._clock.now(), "council.remove", f"council {name}", before=before))
            await session.delete(row)
        self._changes += 1
        self._take([council for council in self._known.values() if council.name != name])

    async def read(self) -> None:
        """Learn what other replicas have changed. Raises Unavailable; then everything stays as it is."""
        while True:
            changes = self._changes
            found = await self.all()
            # What was changed here meanwhile may be missing in it.
            if changes == self._changes:
                self._take(found)
                return

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.read()
            except Unavailable as error:
                log.warning("named councils not read", reason=error.message)
            await self._clock.sleep_ms(READ_EVERY_MS)

    def _take(self, councils: Sequence[NamedCouncil]) -> None:
        self._known = {council.name: council for council in sorted(councils, key=lambda council: council.name)}

    def _check(self, definition: Definition) -> None:
        members = definition.members
        if not 1 <= len(members) <= MEMBERS_MAX:
            raise InvalidRequest(f"A council has 1 to {MEMBERS_MAX} members, not {len(members)}.", param="members")
        for member in members:
            check_model(member, "members")
        if len(set(members)) < len(members):
            twice = next(member for member in members if members.count(member) > 1)
            raise InvalidRequest(
                f"{twice} is named twice. Several answers of one model are what `council:self` is for.", param="members"
            )
        if definition.chair is not None:
            check_model(definition.chair, "chair")
        if definition.strategy not in (known := self._strategies()):
            raise InvalidRequest(
                f"There is no strategy {definition.strategy[:100]!r}. There are: {', '.join(sorted(known))}.",
                param="strategy",
            )
        if not 1 <= definition.rounds <= ROUNDS_MAX:
            raise InvalidRequest(f"rounds is a whole number from 1 to {ROUNDS_MAX}.", param="rounds")


def check_name(name: str) -> None:
    """Raise InvalidRequest for what cannot stand behind `council:`."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"A council's name has up to {NAME_CHARACTERS_MAX} small letters, digits and hyphens, begins with a "
            "letter or digit, is no number, and is not 'self'.",
            code="council_name",
            param="name",
        )


def check_model(model: str, param: str) -> None:
    """Raise InvalidRequest for what is no model, or is a council itself."""
    if not model or len(model) > MODEL_CHARACTERS_MAX or not model.isprintable():
        raise InvalidRequest(f"The name of a model has 1 to {MODEL_CHARACTERS_MAX} printable characters.", param=param)
    if is_council(model):
        raise InvalidRequest(f"{model[:100]} is itself a council: no council is part of another.", param=param)


async def _row(session: AsyncSession, name: str) -> CouncilRow:
    # What is no name is not stored; and Postgres takes no NULs.
    row = await session.get(CouncilRow, name) if NAME.fullmatch(name) else None
    if row is None:
        raise NotFound(f"There is no council that is called {name[:100]!r}.", code="council_not_found")
    return row


def _council(row: CouncilRow) -> NamedCouncil:
    definition = Definition(members=tuple(row.members), strategy=row.strategy, chair=row.chair, rounds=row.rounds)
    return NamedCouncil(
        name=row.name,
        definition=definition,
        created_at=row.created_at,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )


def _fields(definition: Definition) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(definition)
    return fields
