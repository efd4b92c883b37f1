"""API keys: what a person gives to a program. Shown once, stored hashed."""

import re
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import bindparam, func, select, update

from server.accounts.access import Access
from server.accounts.secrets import digest, new_api_key, shown_part
from server.clock import Clock, uuid7
from server.db.models import ApiKey, User
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from server.messages import Principal

LABEL_LENGTH_MAX = 100
# One line, of what Postgres can hold.
LABEL = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{LABEL_LENGTH_MAX}}}")
KEYS_PER_USER_MAX = 100
DAYS_MAX = 3650
# How exact the last use is: one write a minute for a busy key, not one a request.
LAST_USE_RESOLUTION = timedelta(minutes=1)

_BY_HASH = (
    select(ApiKey.id, ApiKey.last_used_at, ApiKey.expires_at, User.id, User.name, User.role)
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.key_hash == bindparam("key_hash"), ApiKey.revoked_at.is_(None), User.disabled_at.is_(None))
)


class ApiKeys:
    """All keys of the box."""

    def __init__(self, database: Database, access: Access, clock: Clock) -> None:
        self._database = database
        self._access = access
        self._clock = clock

    async def create(self, user_id: UUID, label: str, days: int | None = None) -> tuple[ApiKey, str]:
        """Make a key; returns its row and the key itself, which cannot be had again.

        Args:
            days: how long it is good; None: until it is revoked.

        Raises:
            InvalidRequest: the label or the expiry will not do.
            Conflict: the person has KEYS_PER_USER_MAX keys already.
        """
        if not LABEL.fullmatch(label.strip()):
            raise InvalidRequest(f"A label has 1 to {LABEL_LENGTH_MAX} characters on one line.", param="label")
        if days is not None and not 1 <= days <= DAYS_MAX:
            raise InvalidRequest(f"A key expires after 1 to {DAYS_MAX} days, or never.", param="expires_in_days")
        key, now = new_api_key(), self._clock.now()
        row = ApiKey(
            id=uuid7(now),
            user_id=user_id,
            label=label.strip(),
            prefix=shown_part(key),
            key_hash=digest(key),
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
            last_used_at=None,
            revoked_at=None,
        )
        async with self._database.transaction(of=user_id) as session:
            # Locked, so that keys that are made at once are counted one after the other.
            await session.get(User, user_id, with_for_update=True)
            count = await session.scalar(
                select(func.count()).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
            )
            if count is not None and count >= KEYS_PER_USER_MAX:
                raise Conflict(f"You have {KEYS_PER_USER_MAX} keys: revoke one first.", code="too_many_keys")
            session.add(row)
        return row, key

    async def of(self, user_id: UUID) -> Sequence[ApiKey]:
        """The keys of a person that were not revoked, newest first; expired ones are among them."""
        async with self._database.transaction(of=user_id) as session:
            query = select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
            return (await session.scalars(query.order_by(ApiKey.created_at.desc()))).all()

    async def revoke(self, key_id: UUID, user_id: UUID) -> None:
        """End a key of this person, at once. Raises NotFound when they have no such key."""
        async with self._database.transaction(of=user_id) as session:
            ended = await session.scalar(
                update(ApiKey)
                .where(ApiKey.id == key_id, ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
                .returning(ApiKey.id)
            )
        if ended is None:
            raise NotFound("There is no such key.")
        await self._access.announce()

    async def principal(self, key: str) -> Principal | None:
        """Who gave this key to a program, or None: unknown, revoked, expired, or its owner is disabled."""
        now = self._clock.now()
        found = await self._database.first(_BY_HASH, key_hash=digest(key))
        if found is None:
            return None
        key_id, last_used_at, expires_at, user_id, name, role = found
        if expires_at is not None and expires_at <= now:
            return None
        if last_used_at is None or now - last_used_at > LAST_USE_RESOLUTION:
            async with self._database.transaction(of=user_id) as session:
                await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now))
        return Principal(id=user_id, name=name, role="admin" if role == "admin" else "member", key_id=key_id)
