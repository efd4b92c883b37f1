"""People: added and changed by admins, and by themselves through a one-time set-up link."""

import re
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.access import Access
from server.accounts.passwords import Passwords
from server.accounts.secrets import digest, new_token
from server.clock import Clock, uuid7
from server.db.models import LoginSession, SetupToken, User
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from server.messages import Role

NAME = re.compile(r"[^\W_][\w.@-]{0,63}")
SETUP_HOURS = 24


class Users:
    """All people of the box."""

    def __init__(self, database: Database, access: Access, passwords: Passwords, clock: Clock) -> None:
        self._database = database
        self._access = access
        self._passwords = passwords
        self._clock = clock

    async def add(self, name: str, role: Role, password: str | None = None) -> User:
        """Add a person; without a password they need a set-up link.

        Raises:
            InvalidRequest: the name or the password will not do.
            Conflict: the name is taken.
        """
        _check_name(name)
        password_hash = None if password is None else await self._passwords.hash(password)
        now = self._clock.now()
        user = User(id=uuid7(now), name=name, role=role, password_hash=password_hash, created_at=now, disabled_at=None)
        try:
            async with self._database.transaction() as session:
                session.add(user)
        except IntegrityError:
            raise _taken(name) from None
        return user

    async def all(self) -> Sequence[User]:
        """Everybody, oldest first."""
        async with self._database.transaction() as session:
            return (await session.scalars(select(User).order_by(User.created_at))).all()

    async def named(self, name: str) -> User:
        """The person of that name, whatever its upper and lower case. Raises NotFound."""
        async with self._database.transaction() as session:
            user = await find(session, name)
        if user is None:
            raise NotFound(f"There is nobody named {name!r}. `wirthforge user list` shows everybody.")
        return user

    async def change(self, user_id: UUID, *, role: Role | None = None, is_disabled: bool | None = None) -> User:
        """Change what a person may do. Disabling ends their logins at once; their keys stop working with it.

        Raises:
            NotFound: there is no such person.
            Conflict: it would take the last admin away.
        """
        async with self._database.transaction(of=user_id) as session:
            # All admins are locked, so that two admins who demote each other at once cannot both succeed.
            admins = (await session.scalars(select(User).where(User.role == "admin").with_for_update())).all()
            user = await session.get(User, user_id, with_for_update=True)
            if user is None:
                raise NotFound("There is no such person.")
            was_admin = _administers(user)
            user.role = role or user.role
            if is_disabled is not None:
                user.disabled_at = self._clock.now() if is_disabled else None
            if was_admin and not any(map(_administers, admins)):
                raise Conflict("The last admin stays: make somebody else admin first.", code="last_admin")
            if user.disabled_at is not None:
                await session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
        await self._access.announce()
        return user

    async def set_password(self, user_id: UUID, password: str) -> None:
        """Set a password, and log the person out everywhere."""
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction(of=user_id) as session:
            await self._settle_password(session, user_id, password_hash)
        await self._access.announce()

    async def invite(self, user_id: UUID) -> str:
        """A token for a set-up link, good for SETUP_HOURS and one use. It replaces an earlier one."""
        token, now = new_token(), self._clock.now()
        async with self._database.transaction(of=user_id) as session:
            user = await session.get(User, user_id, with_for_update=True)
            if user is None:
                raise NotFound("There is no such person.")
            if user.disabled_at is not None:
                raise Conflict(f"{user.name} is disabled: enable them first.", code="disabled")
            await session.execute(delete(SetupToken).where(SetupToken.user_id == user_id))
            session.add(
                SetupToken(user_id=user_id, token_hash=digest(token), expires_at=now + timedelta(hours=SETUP_HOURS))
            )
        return token

    async def invited(self, token: str) -> User:
        """Whom a set-up link is for. Raises NotFound when it was used or has expired."""
        async with self._database.transaction(everybody=True) as session:
            return await self._invited(session, token)

    async def accept(self, token: str, name: str | None, password: str) -> User:
        """Use a set-up link: choose the password, and the name if wanted.

        Raises:
            NotFound: the link was used or has expired.
            InvalidRequest, Conflict: the name or the password will not do; the link stays good.
        """
        if name is not None:
            _check_name(name)
        await self.invited(token)
        password_hash = await self._passwords.hash(password)
        try:
            async with self._database.transaction(everybody=True) as session:
                user = await self._invited(session, token)
                user.name = name or user.name
                await self._settle_password(session, user.id, password_hash)
        except IntegrityError:
            raise _taken(name or "") from None
        await self._access.announce()
        return user

    async def awaits_first_admin(self) -> User | None:
        """The admin whom `up` created and who has not chosen a password yet, if nobody else can administer."""
        async with self._database.transaction() as session:
            admins = (await session.scalars(select(User).where(User.role == "admin", User.disabled_at.is_(None)))).all()
        return admins[0] if len(admins) == 1 and admins[0].password_hash is None else None

    async def has_any(self) -> bool:
        """Whether there is anybody yet."""
        async with self._database.transaction() as session:
            return await session.scalar(select(User.id).limit(1)) is not None

    async def _settle_password(self, session: AsyncSession, user_id: UUID, password_hash: str) -> None:
        """A new password ends what the old one opened: login sessions and set-up links."""
        found = await session.execute(update(User).where(User.id == user_id).values(password_hash=password_hash))
        if not found.rowcount:  # type: ignore[attr-defined]
            raise NotFound("There is no such person.")
        await session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
        await session.execute(delete(SetupToken).where(SetupToken.user_id == user_id))

    async def _invited(self, session: AsyncSession, token: str) -> User:
        user: User | None = await session.scalar(
            select(User)
            .join(SetupToken, SetupToken.user_id == User.id)
            .where(SetupToken.token_hash == digest(token), SetupToken.expires_at > self._clock.now())
            .where(User.disabled_at.is_(None))
            # The person's row too, and first, as everywhere else: no two ways to lock means no deadlock.
            .with_for_update()
        )
        if user is None:
            raise NotFound("This set-up link was used already, or has expired.", code="setup_link_invalid")
        return user


async def find(session: AsyncSession, name: str) -> User | None:
    """The person of that name. Postgres compares, since its idea of a lower case is the one that the index holds."""
    if not NAME.fullmatch(name):
        return None  # also spares Postgres what no text of it can hold
    user: User | None = await session.scalar(select(User).where(func.lower(User.name) == func.lower(name)))
    return user


def _administers(user: User) -> bool:
    return user.role == "admin" and user.disabled_at is None


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "A name begins with a letter or digit, goes on with letters, digits, '.', '@', '_' or '-', "
            "and has at most 64 characters.",
            param="name",
        )


def _taken(name: str) -> Conflict:
    return Conflict(f"The name {name!r} is taken.", param="name", code="name_taken")
