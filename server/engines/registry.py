"""The registry: engines that admins add, change, drain and remove while the server runs.

They live in Postgres, so that all replicas have the same; each reads them every few seconds, and at once after a change
of its own. Engines of the settings are fixed: they are there too, and cannot be changed here.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from server.clock import Clock, uuid7
from server.db.models import AuditEntry, ConformanceRow, EngineRow
from server.db.session import Database
from server.engines.kinds import EngineSpec, Kinds, check_url
from server.errors import Conflict, InvalidRequest, NotFound
from server.messages import Principal

CHANGEABLE = frozenset(EngineSpec.__struct_fields__) - {"name"}
API_KEY_CHARACTERS_MAX = 2000
ENGINES_MAX = 256


class Registry:
    """All registered engines.

    Args:
        fixed: names of the engines in the settings, which nobody else may have.
    """

    def __init__(self, database: Database, clock: Clock, kinds: Kinds, fixed: Sequence[str]) -> None:
        self._database = database
        self._clock = clock
        self._kinds = kinds
        self._fixed = frozenset(fixed)

    @property
    def kinds(self) -> Kinds:
        """Those of engines that can be registered."""
        return self._kinds

    async def all(self) -> list[EngineSpec]:
        """By name. Raises Unavailable when Postgres is away."""
        async with self._database.transaction() as session:
            rows = (await session.scalars(select(EngineRow).order_by(EngineRow.name))).all()
            # A name that the settings took later is theirs.
            return [_registered(row) for row in rows if row.name not in self._fixed]

    async def add(self, actor: Principal, spec: EngineSpec) -> EngineSpec:
        """Register an engine.

        Raises:
            InvalidRequest: the URL or the kind is none.
            Conflict: the name is taken.
        """
        self._check(spec)
        if spec.name in self._fixed:
            raise Conflict(f"The settings have an engine that is called {spec.name}.", param="name")
        now = self._clock.now()
        row = EngineRow(id=uuid7(now), name=spec.name, spec=_stored(spec), api_key=spec.api_key, updated_at=now)
        try:
            async with self._database.transaction() as session:
                count = len((await session.scalars(select(EngineRow.id))).all())
                if count >= ENGINES_MAX:
                    raise Conflict(f"There are {ENGINES_MAX} engines already.")
                session.add_all([row, self._entry(actor, "engine.add", spec.name, None, spec)])
        except IntegrityError:
            raise Conflict(f"There is an engine that is called {spec.name}.", param="name") from None
        return spec

    async def change(self, actor: Principal, name: str, changes: Mapping[str, Any]) -> EngineSpec:
        """Change some fields of a spec. Raises NotFound and InvalidRequest."""
        if unknown := set(changes) - CHANGEABLE:
            raise InvalidRequest(f"An engine has no field {min(unknown)[:100]!r} that can change.", param=min(unknown))
        async with self._database.transaction() as session:
            row = await self._row(session, name)
            before = _registered(row)
            after = _spec(msgspec.to_builtins(before) | dict(changes))
            self._check(after)
            row.spec, row.api_key, row.updated_at = _stored(after), after.api_key, self._clock.now()
            session.add(self._entry(actor, "engine.change", name, before, after))
            return after

    async def remove(self, actor: Principal, name: str) -> None:
        """Forget an engine. Raises NotFound."""
        async with self._database.transaction() as session:
            row = await self._row(session, name)
            session.add(self._entry(actor, "engine.remove", name, _registered(row), None))
            await session.delete(row)
            await session.execute(delete(ConformanceRow).where(ConformanceRow.engine == name))

    async def _row(self, session: Any, name: str) -> EngineRow:  # noqa: ANN401 (SQLAlchemy's session)
        if name in self._fixed:
            raise Conflict(f"The engine {name} is in the settings; change it there.")
        row: EngineRow | None = await session.scalar(select(EngineRow).where(EngineRow.name == name).with_for_update())
        if row is None:
            raise NotFound(f"There is no engine that is called {name[:100]!r}.", code="engine_not_found")
        return row

    def _check(self, spec: EngineSpec) -> None:
        check_url(spec.url)
        if "@" in urlsplit(spec.url).netloc:
            raise InvalidRequest("The URL of an engine is for all admins to read; give it an api_key.", param="url")
        if spec.kind not in self._kinds:
            raise InvalidRequest(
                f"There is no kind of engine that is called {spec.kind[:100]!r}: {', '.join(sorted(self._kinds))}.",
                param="kind",
            )
        if len(spec.api_key) > API_KEY_CHARACTERS_MAX or not spec.api_key.isprintable() or not spec.api_key.isascii():
            raise InvalidRequest("The API key has characters that no header can carry.", param="api_key")

    def _entry(
        self, actor: Principal, action: str, name: str, before: EngineSpec | None, after: EngineSpec | None
    ) -> AuditEntry:
        now = self._clock.now()
        return AuditEntry(
            id=uuid7(now),
            at=now,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            subject=f"engine {name}",
            before=None if before is None else _stored(before),
            after=None if after is None else _stored(after),
        )


def _stored(spec: EngineSpec) -> dict[str, Any]:
    """What may be read by whoever reads the table or the log: all but the key."""
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    return {name: value for name, value in fields.items() if name not in {"name", "api_key"}}


def _registered(row: EngineRow) -> EngineSpec:
    return _spec({**row.spec, "name": row.name, "api_key": row.api_key})


def _spec(fields: Mapping[str, Any]) -> EngineSpec:
    try:
        return msgspec.convert(fields, EngineSpec)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise InvalidRequest(f"The engine cannot be so: {reason}.", param=where.rstrip("`") or None) from None
