"""Quotas: the rules that admins set, what they make of each person's limits, and the log of who changed them.

Rules live in Postgres; each replica keeps all of them, which are few, in memory for as long as nothing changes
(access.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from quotas.policy import Limits, PolicyError, Resolved, Rule, check, resolve
from server.accounts.access import Access, Epoch
from server.clock import Clock, uuid7
from server.db.models import AuditEntry, Quota, User
from server.db.session import Database
from server.errors import InvalidRequest, NotFound
from server.messages import Principal, Role

# Changes take turns, while everybody reads: they are rare, and two first rules of one person would collide.
_TURN = text("LOCK TABLE quotas IN SHARE ROW EXCLUSIVE MODE")


class Scope(Struct, frozen=True):
    """Whom a rule is for: everybody, a role, or a person."""

    kind: Literal["default", "role", "user"] = "default"
    role: Role | None = None
    user_id: UUID | None = None

    @classmethod
    def of_role(cls, role: Role) -> "Scope":
        """Everybody with that role."""
        return cls("role", role=role)

    @classmethod
    def of_user(cls, user_id: UUID) -> "Scope":
        """One person."""
        return cls("user", user_id=user_id)


DEFAULT = Scope()


class Actor(Struct, frozen=True):
    """Who changes a rule; without an id it is nobody who logs in."""

    name: str
    id: UUID | None = None


class Change(Struct, frozen=True):
    """What came of setting a rule.

    Attributes:
        rule: as it is now; empty where there is none.
        is_announced: whether every replica knows at once; else (Redis is away) within FRESH_MS, which is the caller's
            to tell.
    """

    rule: Rule
    is_announced: bool


class Standing(Struct, frozen=True):
    """A scope's own rule (empty where there is none), and what is in force there.

    Attributes:
        subject: what the scope is called: `default`, `role member`, `user ann`.
        user: the person, where it is one.
    """

    subject: str
    user: User | None
    rule: Rule
    resolved: Resolved


class Entry(Struct, frozen=True):
    """A rule, as it is listed."""

    scope: Scope
    subject: str
    user: User | None
    rule: Rule
    updated_at: datetime


class _Snapshot(Struct):
    """All rules as they were read, and the limits that were resolved from them so far: some for each active person."""

    epoch: Epoch
    rules: Mapping[Scope, Rule]
    limits: dict[tuple[UUID, Role], Limits]


class Quotas:
    """All quotas of the box.

    Args:
        counts: is told of a change in its transaction, so that what was decided by the rules before can be refused.
    """

    def __init__(
        self, database: Database, access: Access, clock: Clock, counts: Callable[[AsyncSession], Awaitable[object]]
    ) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._counts = counts
        self._snapshot: _Snapshot | None = None
        self._reading = asyncio.Lock()

    async def of(self, principal: Principal) -> tuple[Limits, str]:
        """The limits of a principal, and the version of the rules that they follow from.

        Asks nobody while the rules are fresh. Raises Unavailable when they are not, and Postgres is away.
        """
        epoch = await self._access.epoch()
        snapshot = self._snapshot
        if snapshot is None or snapshot.epoch is not epoch:
            snapshot = await self._read(epoch)
        who = (principal.id, principal.role)
        limits = snapshot.limits.get(who)
        if limits is None:
            limits = snapshot.limits[who] = _resolved(snapshot.rules, *who, "user").limits
        return limits, epoch.version

    async def set_rule(self, actor: Actor, scope: Scope, rule: Mapping[str, object]) -> Change:
        """Replace the rule of a scope. An empty rule is none; one that is there already is no change.

        Raises:
            InvalidRequest: a limit does not exist, or its value will not do; `param` names it.
            NotFound: there is no such person.
        """
        return await self._change(actor, scope, lambda _: rule)

    async def amend_rule(
        self, actor: Actor, scope: Scope, values: Mapping[str, object], inherited: Sequence[str] = ()
    ) -> Change:
        """Set some limits of a scope's rule, and take some out; the others stay. Raises as `set_rule`."""
        return await self._change(
            actor,
            scope,
            lambda before: {name: value for name, value in before.items() if name not in inherited} | dict(values),
        )

    async def clear_rule(self, actor: Actor, scope: Scope) -> Change:
        """Remove the rule of a scope, if it has one. Raises NotFound when there is no such person."""
        return await self._change(actor, scope, lambda _: {})

    async def rules(self) -> Sequence[Entry]:
        """Every rule: the default, roles, then people by name."""
        async with self._database.transaction() as session:
            found = await session.execute(
                select(Quota, User)
                .outerjoin(User, User.id == Quota.user_id)
                .order_by(Quota.scope, Quota.role, User.name)
            )
            return [
                Entry(scope := _scope(row), _subject(scope, user), user, row.rule, row.updated_at)
                for row, user in found
            ]

    async def standing(self, scope: Scope) -> Standing:
        """What is in force for a scope at this moment, read from Postgres. Raises NotFound for an unknown person."""
        async with self._database.transaction() as session:
            user = await _person(session, scope)
            rules = await _all_rules(session)
        subject = _subject(scope, user)
        if user is not None:
            role: Role = "admin" if user.role == "admin" else "member"
            resolved = _resolved(rules, user.id, role, subject)
        else:
            weaker = [] if scope == DEFAULT else [(subject, rules.get(scope, {}))]
            resolved = resolve(*weaker, ("default", rules.get(DEFAULT, {})))
        return Standing(subject, user, rules.get(scope, {}), resolved)

    async def in_force(self, user_id: UUID) -> Resolved:
        """What holds for a person, and why. Raises NotFound."""
        return (await self.standing(Scope.of_user(user_id))).resolved

    async def audit(self, count_max: int = 100) -> Sequence[AuditEntry]:
        """The newest changes, newest first."""
        async with self._database.transaction() as session:
            query = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(count_max)
            return (await session.scalars(query)).all()

    async def _read(self, epoch: Epoch) -> _Snapshot:
        """All rules, read once for everybody who waits for them."""
        async with self._reading:
            if self._snapshot is not None and self._snapshot.epoch is epoch:
                return self._snapshot
            async with self._database.transaction() as session:
                rules = await _all_rules(session)
            self._snapshot = snapshot = _Snapshot(epoch, rules, {})
            return snapshot

    async def _change(self, actor: Actor, scope: Scope, make: Callable[[Rule], Mapping[str, object]]) -> Change:
        async with self._database.transaction() as session:
            await session.execute(_TURN)
            user = await _person(session, scope)
            row = await session.scalar(
                select(Quota).where(
                    Quota.scope == scope.kind,
                    Quota.role.is_not_distinct_from(scope.role),
                    Quota.user_id.is_not_distinct_from(scope.user_id),
                )
            )
            before: Rule = row.rule if row is not None else {}
            after = _checked(make(before))
            if after == before:
                return Change(before, is_announced=True)
            now = self._clock.now()
            if row is None:
                row = Quota(id=uuid7(now), scope=scope.kind, role=scope.role, user_id=scope.user_id)
                session.add(row)
            row.rule, row.updated_at, row.updated_by = after, now, actor.id
            if not after:
                await session.delete(row)
            await self._counts(session)
            session.add(
                AuditEntry(
                    id=uuid7(now),
                    at=now,
                    actor_id=actor.id,
                    actor_name=actor.name,
                    action="quota.set" if after else "quota.clear",
                    subject=_subject(scope, user),
                    subject_id=scope.user_id,
                    before=before or None,
                    after=after or None,
                )
            )
        return Change(after, await self._access.announce())


def _resolved(rules: Mapping[Scope, Rule], user_id: UUID, role: Role, subject: str) -> Resolved:
    return resolve(
        (subject, rules.get(Scope.of_user(user_id), {})),
        (f"role {role}", rules.get(Scope.of_role(role), {})),
        ("default", rules.get(DEFAULT, {})),
    )


async def _all_rules(session: AsyncSession) -> dict[Scope, Rule]:
    return {_scope(row): row.rule for row in (await session.scalars(select(Quota))).all()}


async def _person(session: AsyncSession, scope: Scope) -> User | None:
    if scope.user_id is None:
        return None
    user = await session.get(User, scope.user_id)
    if user is None:
        raise NotFound("There is no such person.")
    return user


def _scope(row: Quota) -> Scope:
    if row.user_id is not None:
        return Scope.of_user(row.user_id)
    return DEFAULT if row.role is None else Scope.of_role("admin" if row.role == "admin" else "member")


def _subject(scope: Scope, user: User | None) -> str:
    if user is not None:
        return f"user {user.name}"
    return "default" if scope.role is None else f"role {scope.role}"


def _checked(rule: Mapping[str, object]) -> dict[str, int | list[str] | None]:
    try:
        return check(rule)
    except PolicyError as error:
        raise InvalidRequest(error.sentence, param=error.field[:100]) from None
