"""Login sessions: what a browser gets for a name and a password."""

from datetime import timedelta

from sqlalchemy import delete, select, update

from server.accounts.access import Access
from server.accounts.passwords import Passwords
from server.accounts.secrets import digest, new_token
from server.accounts.throttle import LoginThrottle
from server.accounts.users import find
from server.clock import Clock
from server.db.models import LoginSession, User
from server.db.session import Database
from server.errors import InvalidRequest, NotAuthenticated
from server.messages import Principal


class Logins:
    """Logs people in and out.

    Args:
        days: how long a session lives without being used; use prolongs it.
    """

    def __init__(
        self,
        database: Database,
        access: Access,
        passwords: Passwords,
        throttle: LoginThrottle,
        clock: Clock,
        *,
        days: int,
    ) -> None:
        self._database = database
        self._access = access
        self._passwords = passwords
        self._throttle = throttle
        self._clock = clock
        self.lifetime = timedelta(days=days)

    async def log_in(self, name: str, password: str, address: str) -> tuple[Principal, str]:
        """Check the password; returns the principal and the cookie's token.

        Raises:
            NotAuthenticated: the same sentence, after the same time, whether the name or the password is wrong.
            TooMany: too many attempts.
        """
        user = await self._proved(name, password, address)
        if user is None:
            raise NotAuthenticated("The name or the password is wrong.", code="wrong_login")
        return await self.open(user)

    async def confirm(self, principal: Principal, password: str, address: str) -> None:
        """Have somebody who is logged in prove it once more; guessing is no cheaper here than at the door.

        Raises:
            InvalidRequest: the password is wrong.
            TooMany: too many attempts.
        """
        if await self._proved(principal.name, password, address) is None:
            raise InvalidRequest("The current password is wrong.", param="current", code="wrong_password")

    async def _proved(self, name: str, password: str, address: str) -> User | None:
        await self._throttle.count(name, address)
        async with self._database.transaction() as session:
            user = await find(session, name)
        stored = user.password_hash if user is not None and user.disabled_at is None else None
        if not await self._passwords.matches(password, stored):
            return None
        await self._throttle.forgive(name, address)
        return user

    async def open(self, user: User) -> tuple[Principal, str]:
        """Start a session for somebody who has proved who they are."""
        token, now = new_token(), self._clock.now()
        async with self._database.transaction(everybody=True) as session:
            await session.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
            session.add(
                LoginSession(token_hash=digest(token), user_id=user.id, created_at=now, expires_at=now + self.lifetime)
            )
        return _principal(user), token

    async def principal(self, token: str) -> Principal | None:
        """Who has this cookie, or None. A session in the second half of its life is prolonged."""
        now = self._clock.now()
        async with self._database.transaction(everybody=True) as session:
            found = (
                await session.execute(
                    select(User, LoginSession.expires_at)
                    .join(LoginSession, LoginSession.user_id == User.id)
                    .where(LoginSession.token_hash == digest(token), LoginSession.expires_at > now)
                    .where(User.disabled_at.is_(None))
                )
            ).first()
            if found is None:
                return None
            user, expires_at = found
            if expires_at - now < self.lifetime / 2:
                await session.execute(
                    update(LoginSession)
                    .where(LoginSession.token_hash == digest(token))
                    .values(expires_at=now + self.lifetime)
                )
        return _principal(user)

    async def log_out(self, token: str) -> None:
        """End a session."""
        async with self._database.transaction(everybody=True) as session:
            ended = await session.scalar(
                delete(LoginSession).where(LoginSession.token_hash == digest(token)).returning(LoginSession.user_id)
            )
        # Not for a made-up cookie: strangers must not make everybody's memory stale.
        if ended is not None:
            await self._access.announce()


def _principal(user: User) -> Principal:
    return Principal(id=user.id, name=user.name, role="admin" if user.role == "admin" else "member")
