"""The registry of providers: what admins add, change and remove while the server runs.

Keys are sealed (server/privacy/sealed.py) and given back to nobody. Each change is in the audit log, and counts up the
version of the rules in the same transaction (server/privacy/version.py): what was decided on before it does not leave.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock, uuid7
from server.cloud.addresses import check_url
from server.cloud.protocol import ProviderSpec
from server.db.models import AuditEntry, CloudProvider
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from server.messages import Principal
from server.privacy.sealed import Seal, SealBroken
from server.privacy.version import Version, bump

CHANGEABLE = frozenset(ProviderSpec.__struct_fields__) - {"name", "kind"}
API_KEY_CHARACTERS_MAX = 2000
PROVIDERS_MAX = 32
NO_SEAL = (
    "The server has no encryption key, so that no provider's key can be kept: set WIRTHFORGE_ENCRYPTION_KEY, or start "
    "with `wirthforge up`, which makes one."
)


class Kept(Struct, frozen=True):
    """A provider as it is kept.

    Attributes:
        key: None where the box cannot open it.
        problem: why nothing is sent there, where that is so.
    """

    spec: ProviderSpec
    key: str | None
    problem: str | None


def about(spec: ProviderSpec) -> str:
    """What a key's seal is bound to: a key that is moved to another row or address opens no more."""
    return f"cloud_providers\n{spec.name}\n{spec.kind}\n{spec.url}"


def kept(row: CloudProvider, seal: Seal | None) -> Kept:
    """A row, read."""
    spec = _spec({name: getattr(row, name) for name in ProviderSpec.__struct_fields__})
    if seal is None:
        return Kept(spec, None, NO_SEAL)
    try:
        return Kept(spec, seal.open(row.sealed_key, about(spec)), None)
    except SealBroken:
        return Kept(spec, None, f"The key of {spec.name} was sealed with another encryption key: enter it again.")


class CloudRegistry:
    """All registered providers.

    Args:
        seal: without one they can be looked at and removed, but not added or changed.
    """

    def __init__(self, database: Database, clock: Clock, seal: Seal | None, version: Version) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._version = version

    async def all(self) -> list[Kept]:
        """By name. Raises Unavailable when Postgres is away."""
        async with self._database.transaction() as session:
            rows = (await session.scalars(select(CloudProvider).order_by(CloudProvider.name))).all()
            return [kept(row, self._seal) for row in rows]

    async def one(self, name: str) -> Kept:
        """One of them. Raises NotFound."""
        async with self._database.transaction() as session:
            return kept(await _row(session, name), self._seal)

    async def add(self, actor: Principal, spec: ProviderSpec, api_key: str) -> Kept:
        """Register a provider.

        Raises:
            InvalidRequest: the URL or the key is none.
            Conflict: the name is taken, or the box has no encryption key.
        """
        _check(spec)
        now = self._clock.now()
        sealed = self._sealed(spec, api_key)
        row = CloudProvider(id=uuid7(now), name=spec.name, kind=spec.kind, sealed_key=sealed, **_columns(spec))
        row.updated_at = now
        try:
            async with self._database.transaction() as session:
                await bump(session)
                if (await session.scalar(select(func.count(CloudProvider.id))) or 0) >= PROVIDERS_MAX:
                    raise Conflict(f"There are {PROVIDERS_MAX} providers already.")
                session.add_all([row, self._entry(actor, "add", spec.name, None, _told(spec, api_key))])
        except IntegrityError:
            raise Conflict(f"There is a provider that is called {spec.name}.", param="name") from None
        self._version.forget()
        return Kept(spec, api_key, None)

    async def change(
        self, actor: Principal, name: str, changes: Mapping[str, Any], api_key: str | UnsetType = UNSET
    ) -> Kept:
        """Change some fields, or the key, or both.

        Raises:
            InvalidRequest: a field cannot be so; or the URL changes without the key, which would go there unasked.
            Conflict: the box has no encryption key.
            NotFound: there is no such provider.
        """
        if unknown := set(changes) - CHANGEABLE:
            raise InvalidRequest(f"A provider has no field {min(unknown)[:100]!r} that can change.", param=min(unknown))
        async with self._database.transaction() as session:
            await bump(session)
            row = await _row(session, name, is_locked=True)
            before = kept(row, self._seal)
            after = _spec(msgspec.to_builtins(before.spec) | dict(changes))
            _check(after)
            row.sealed_key = self._resealed(row.sealed_key, before, after, api_key)
            for column, value in _columns(after).items():
                setattr(row, column, value)
            row.updated_at = self._clock.now()
            told = _told(after, before.key)
            if not isinstance(api_key, UnsetType):
                told |= {"has_key": api_key != "", "api_key": "changed"}
            session.add(self._entry(actor, "change", name, _told(before.spec, before.key), told))
            changed = kept(row, self._seal)
        self._version.forget()
        return changed

    async def remove(self, actor: Principal, name: str) -> None:
        """Forget a provider. What it was sent stays in the ledger. Raises NotFound."""
        async with self._database.transaction() as session:
            await bump(session)
            row = await _row(session, name, is_locked=True)
            was = kept(row, self._seal)
            session.add(self._entry(actor, "remove", name, _told(was.spec, was.key), None))
            await session.delete(row)
        self._version.forget()

    async def reseal(self) -> tuple[int, list[str]]:
        """Seal all keys with the first of the encryption keys.

        Returns:
            How many were sealed anew, and the names of providers whose keys none of them opens.
        """
        if self._seal is None:
            raise Conflict(NO_SEAL)
        count, broken = 0, list[str]()
        async with self._database.transaction() as session:
            rows = await session.scalars(select(CloudProvider).order_by(CloudProvider.name).with_for_update())
            for row in rows.all():
                found = kept(row, self._seal)
                if found.key is None:
                    broken.append(row.name)
                elif not self._seal.is_current(row.sealed_key, about(found.spec)):
                    row.sealed_key = self._seal.seal(found.key, about(found.spec))
                    count += 1
        return count, broken

    def _sealed(self, spec: ProviderSpec, api_key: str) -> bytes:
        if len(api_key) > API_KEY_CHARACTERS_MAX or not api_key.isprintable() or not api_key.isascii():
            raise InvalidRequest("The API key has characters that no header can carry.", param="api_key")
        if self._seal is None:
            raise Conflict(NO_SEAL, code="no_encryption_key")
        return self._seal.seal(api_key, about(spec))

    def _resealed(self, sealed: bytes, before: Kept, after: ProviderSpec, api_key: str | UnsetType) -> bytes:
        """The sealed key after a change."""
        if not isinstance(api_key, UnsetType):
            return self._sealed(after, api_key)
        if after.url == before.spec.url:
            return sealed
        if before.key != "":
            raise InvalidRequest("Another URL needs the key once more: it would be sent there.", param="api_key")
        return self._sealed(after, "")

    def _entry(
        self, actor: Principal, action: str, name: str, before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> AuditEntry:
        now = self._clock.now()
        return AuditEntry(
            id=uuid7(now),
            at=now,
            actor_id=actor.id,
            actor_name=actor.name,
            action=f"cloud_provider.{action}",
            subject=f"cloud provider {name}",
            before=before,
            after=after,
        )


async def _row(session: AsyncSession, name: str, *, is_locked: bool = False) -> CloudProvider:
    query = select(CloudProvider).where(CloudProvider.name == name)
    row = await session.scalar(query.with_for_update() if is_locked else query)
    if row is None:
        raise NotFound(f"There is no provider that is called {name[:100]!r}.", code="provider_not_found")
    return row


def _check(spec: ProviderSpec) -> None:
    check_url(spec.url)
    names = [model.name for model in spec.models]
    if len(names) != len(set(names)):
        raise InvalidRequest("A model is named twice.", param="models")


def _columns(spec: ProviderSpec) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(spec, name)) for name in CHANGEABLE}


def _told(spec: ProviderSpec, key: str | None) -> dict[str, Any]:
    """What may be read by whoever reads the log: all but the key."""
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    del fields["name"]
    return fields | {"has_key": key != ""}


def _spec(fields: Mapping[str, Any]) -> ProviderSpec:
    try:
        return msgspec.convert(fields, ProviderSpec)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise InvalidRequest(f"The provider cannot be so: {reason}.", param=where.rstrip("`") or None) from None
