"""Policies as they are kept: one of the box, one bound for each person an admin set one for, one of each person.

A change counts up the version in its own transaction, and holds that row until it commits: so changes take turns, and
whoever sends under the version before either comes first or sees the change (version.py). This replica keeps what it
has read under the version it was read with.

Changes by admins are in the log. What a person says for themselves is not: it is theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock, uuid7
from server.db.models import AuditEntry, CloudPolicy, CloudProvider, User
from server.db.session import Database
from server.errors import InvalidRequest, NotFound, Unavailable
from server.privacy import spend, version
from server.privacy.checks import PolicyError, check, stored
from server.privacy.decision import Budget
from server.privacy.policy import SILENT, Policy, Scope, Scopes
from server.privacy.version import Version

# People whose policies one replica remembers.
REMEMBERED_MAX = 1_000

Said = Mapping[str, object]


class Actor(Struct, frozen=True):
    """Who changes a policy; without an id it is nobody who logs in."""

    name: str
    id: UUID | None = None


class Whose(Struct, frozen=True):
    """Which policy: the box's, an admin's bound for one person, or a person's own."""

    scope: Scope
    user_id: UUID | None = None

    @classmethod
    def cap_of(cls, user_id: UUID) -> "Whose":
        """What an admin allows one person at the most."""
        return cls("cap", user_id)

    @classmethod
    def own_of(cls, user_id: UUID) -> "Whose":
        """What a person says for themselves."""
        return cls("own", user_id)


BOX = Whose("box")


class Standing(Struct, frozen=True):
    """What was said about one person's requests, and the version that it is of; a send must happen under the same."""

    version: int
    scopes: Scopes


class Cap(Struct, frozen=True):
    """A bound, as it is listed."""

    user_id: UUID
    name: str
    policy: Policy


class Target(Struct, frozen=True):
    """A model of a provider that an admin has registered and enabled."""

    provider: str
    model: str


class Policies:
    """All policies of the box."""

    def __init__(self, database: Database, clock: Clock, version: Version) -> None:
        self._database = database
        self._clock = clock
        self._version = version
        self._remembered: dict[UUID, Standing] = {}

    async def of(self, user_id: UUID) -> Standing:
        """What holds for a person, at most version.FRESH_MS old.

        Raises:
            Unavailable: Postgres is away, or what it holds is no policy that this server understands.
        """
        known = await self._version.known()
        standing = self._remembered.get(user_id)
        if standing is not None and standing.version == known:
            return standing
        return await self.read(user_id)

    async def read(self, user_id: UUID) -> Standing:
        """What holds for a person at this moment. Raises as `of`."""
        async with self._database.transaction(everybody=True) as session:
            # Before the rules: see version.py.
            at = await version.read(session)
            mine = (CloudPolicy.scope == BOX.scope) | (CloudPolicy.user_id == user_id)
            said = {row.scope: _policy(row.policy) for row in await session.scalars(select(CloudPolicy).where(mine))}
        scopes = Scopes(box=said.get("box", SILENT), cap=said.get("cap", SILENT), own=said.get("own", SILENT))
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        standing = self._remembered[user_id] = Standing(at, scopes)
        return standing

    async def box(self) -> Policy:
        """What is said for everybody, at this moment. Raises as `of`."""
        async with self._database.transaction(everybody=True) as session:
            row = await _row(session, BOX)
            return SILENT if row is None else _policy(row.policy)

    async def cap(self, user_id: UUID) -> Cap:
        """A person's bound at this moment; silent where none is set. Raises NotFound, and as `of`."""
        async with self._database.transaction(everybody=True) as session:
            user = await _person(session, user_id)
            row = await _row(session, Whose.cap_of(user_id))
            return Cap(user.id, user.name, SILENT if row is None else _policy(row.policy))

    async def caps(self) -> Sequence[Cap]:
        """Every bound, by name. Raises as `of`."""
        async with self._database.transaction(everybody=True) as session:
            found = await session.execute(
                select(CloudPolicy, User)
                .join(User, User.id == CloudPolicy.user_id)
                .where(CloudPolicy.scope == "cap")
                .order_by(User.name)
            )
            return [Cap(user.id, user.name, _policy(row.policy)) for row, user in found]

    async def set(self, actor: Actor, whose: Whose, said: Said) -> Policy:
        """Replace what a scope says; one that says nothing is removed.

        Raises:
            InvalidRequest: a field is none of this scope, or its value will not do; `param` names it.
            NotFound: there is no such person.
        """
        return await self._change(actor, whose, lambda _: said)

    async def amend(self, actor: Actor, whose: Whose, said: Said, silent: Sequence[str] = ()) -> Policy:
        """Set some fields and silence others; the rest stays. Raises as `set`."""
        return await self._change(
            actor,
            whose,
            lambda before: {name: value for name, value in before.items() if name not in silent} | dict(said),
        )

    async def targets(self) -> Sequence[Target]:
        """All models of enabled providers, by provider, in the order in which an admin wrote them."""
        query = (
            select(CloudProvider.name, CloudProvider.models)
            .where(CloudProvider.is_enabled)
            .order_by(CloudProvider.name)
        )
        async with self._database.transaction() as session:
            return [
                Target(provider, str(model["name"]))
                for provider, models in await session.execute(query)
                for model in models
            ]

    async def budget(self, user_id: UUID, limit_cents: int | None) -> Budget:
        """What a person's requests to clouds have cost this month.

        Args:
            limit_cents: their quota `cloud_cents_per_month`; None: unlimited.
        """
        async with self._database.transaction(of=user_id) as session:
            month = await spend.spent(session, user_id, spend.month_of(self._clock.now()))
        return Budget(
            limit_micros=None if limit_cents is None else limit_cents * spend.MICROS_PER_CENT,
            spent_micros=month.spent_micros,
            reserved_micros=month.reserved_micros,
        )

    async def _change(self, actor: Actor, whose: Whose, make: Callable[[Said], Said]) -> Policy:
        async with self._transaction(whose) as session:
            person = None if whose.user_id is None else await _person(session, whose.user_id)
            row = await _row(session, whose)
            before = {} if row is None else row.policy
            if (after := _checked(whose, make(before))) == before:
                return _policy(after)
            await version.bump(session)
            # Others may have changed it before it was this transaction's turn.
            row = await _row(session, whose)
            before = {} if row is None else row.policy
            after = _checked(whose, make(before))
            if after != before:
                await self._write(session, whose, row, after)
                if whose.scope != "own":
                    session.add(self._entry(actor, person, before=before, after=after))
        self._version.forget()
        return _policy(after)

    async def _write(
        self, session: AsyncSession, whose: Whose, row: CloudPolicy | None, after: dict[str, object]
    ) -> None:
        now = self._clock.now()
        if row is None:
            row = CloudPolicy(id=uuid7(now), scope=whose.scope, user_id=whose.user_id)
            session.add(row)
        row.policy, row.updated_at = after, now
        if not after:
            await session.delete(row)

    def _entry(self, actor: Actor, person: User | None, *, before: Said, after: Said) -> AuditEntry:
        now = self._clock.now()
        return AuditEntry(
            id=uuid7(now),
            at=now,
            actor_id=actor.id,
            actor_name=actor.name,
            action="cloud_policy.set" if after else "cloud_policy.clear",
            subject="cloud policy of the box" if person is None else f"cloud policy of user {person.name}",
            subject_id=None if person is None else person.id,
            before=dict(before) or None,
            after=dict(after) or None,
        )

    def _transaction(self, whose: Whose) -> AbstractAsyncContextManager[AsyncSession]:
        """A person's own policy is touched as that person, and the rest as the box."""
        if whose.scope == "own":
            return self._database.transaction(of=whose.user_id)
        return self._database.transaction(everybody=True)


async def _person(session: AsyncSession, user_id: UUID) -> User:
    user = await session.get(User, user_id)
    if user is None:
        raise NotFound("There is no such person.")
    return user


async def _row(session: AsyncSession, whose: Whose) -> CloudPolicy | None:
    query = select(CloudPolicy).where(
        CloudPolicy.scope == whose.scope, CloudPolicy.user_id.is_not_distinct_from(whose.user_id)
    )
    row: CloudPolicy | None = await session.scalar(query.execution_options(populate_existing=True))
    return row


def _checked(whose: Whose, said: Said) -> dict[str, object]:
    try:
        return stored(check(whose.scope, said))
    except PolicyError as error:
        raise InvalidRequest(error.sentence, param=error.field[:100]) from None


def _policy(said: Mapping[str, Any]) -> Policy:
    """What was stored. One that cannot be read is not taken for a silent one: nothing leaves then."""
    try:
        return msgspec.convert(said, Policy)
    except msgspec.ValidationError as error:
        raise Unavailable(
            "A policy on what may leave this box cannot be read; an admin must set it anew.",
            code="cloud_policy_unreadable",
        ) from error
