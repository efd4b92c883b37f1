"""Engines over HTTP: what admins register, change, drain and remove, how each is, and what is known of it."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from server.engines.conformance import Conformance
from server.engines.kinds import BUILT_IN, EngineSpec, Slots, Tokens
from server.engines.numbers import Numbers
from server.engines.pool import Health, Pool
from server.engines.promises import Promises
from server.engines.protocol import Engine
from server.engines.registry import Registry
from server.engines.roster import Roster
from server.messages import Principal
from server.web.accounts import BODY_BYTES_MAX

# What an engine is given at a time, and who says so.
NumbersOf = Callable[[Engine, EngineSpec | None], Numbers]


class EngineModel(Struct):
    """A model that an engine serves."""

    id: str
    context_tokens: int | None


class EngineKind(Struct):
    """A kind of engine that can be registered, or would be.

    Attributes:
        is_built_in: else it comes from a plugin.
        left_out: why the plugin is not used; null where it is.
    """

    name: str
    is_built_in: bool
    left_out: str | None


class EngineStanding(Struct):
    """An engine, as it was registered and as it is.

    Attributes:
        is_fixed: it comes from the settings, and can be changed only there.
        is_up: it answered the last probe.
        breaker: `closed` while requests succeed, `open` after several failures, `half-open` while one is tried.
        in_use: requests that run on it through this replica.
        moves_models: the server may load and unload its models.
        devices: those of this host that it uses, by the uuid at /api/hardware; none where nobody says.
        slots: how many it is given at a time.
        numbers: these and the others, and who said them; null where it could not be set up.
        isolates_caches: whether it keeps people's cached prompts apart; null where nobody knows.
        conformance: what the last test found; null where it was not tested as it is now.
    """

    name: str
    kind: str
    url: str | None
    has_api_key: bool
    is_fixed: bool
    is_up: bool
    is_draining: bool
    moves_models: bool
    devices: list[str]
    breaker: str
    in_use: int
    slots: int | None
    numbers: Numbers | None
    kv_tokens: int | None
    isolates_caches: bool | None
    models: list[EngineModel]
    reason: str | None
    conformance: Conformance | None


class EngineChange(Struct):
    """Fields that are to change. Null gives a number back to the engine or the settings."""

    kind: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    api_key: str | UnsetType = UNSET
    slots: Slots | UnsetType | None = UNSET
    prefill_tokens: Tokens | UnsetType | None = UNSET
    kv_tokens: Tokens | UnsetType | None = UNSET
    reserved_slots: Annotated[int, Meta(ge=0, le=100_000)] | UnsetType | None = UNSET
    moves_models: bool | UnsetType = UNSET
    devices: list[str] | UnsetType = UNSET
    is_draining: bool | UnsetType = UNSET


class Catalogue:
    """Engines as admins see them: what is registered, how it is, and what is known of it."""

    def __init__(self, pool: Pool, promises: Promises, numbers: NumbersOf) -> None:
        self._pool = pool
        self._promises = promises
        self._numbers = numbers

    def all(self, registered: Sequence[EngineSpec]) -> list[EngineStanding]:
        """Fixed ones first."""
        known = {spec.name for spec in registered}
        fixed = [self.standing(name, None) for name in self._pool.names if name not in known]
        return [*fixed, *(self.standing(spec.name, spec) for spec in registered)]

    def standing(self, name: str, spec: EngineSpec | None) -> EngineStanding:
        """One engine; `spec` is None for one of the settings."""
        engine, health = self._pool.engine(name), self._pool.health(name)
        numbers = None if engine is None else self._numbers(engine, spec)
        return EngineStanding(
            name=name,
            kind=spec.kind if spec is not None else engine.kind if engine is not None else "",
            url=spec.url if spec is not None else None,
            has_api_key=bool(spec and spec.api_key),
            is_fixed=spec is None,
            is_up=health is not None and health.is_up,
            is_draining=spec.is_draining if spec is not None else False,
            moves_models=spec.moves_models if spec is not None else False,
            devices=list(spec.devices) if spec is not None else [],
            breaker=health.breaker if health is not None else "closed",
            in_use=health.in_use if health is not None else 0,
            slots=numbers.slots.value if numbers is not None else spec.slots if spec is not None else None,
            numbers=numbers,
            kv_tokens=engine.kv_tokens if engine is not None else None,
            isolates_caches=engine.isolates_caches if engine is not None else None,
            models=_models(health),
            reason=health.reason if health is not None else "It is left out here; the log says why.",
            conformance=self._promises.found(name),
        )


def _models(health: Health | None) -> list[EngineModel]:
    served: Sequence[Any] = health.models if health is not None else ()
    return [EngineModel(model.id, model.context_tokens) for model in served]


class EngineAdmin(Controller):
    """Engines of the box. The `admin` dependency refuses members."""

    path = "/api/admin/engines"
    tags = ("Administration",)
    request_max_body_size = BODY_BYTES_MAX

    @get()
    async def list_engines(
        self,
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        catalogue: NamedDependency[Catalogue],
    ) -> list[EngineStanding]:
        """All engines, fixed ones first."""
        return catalogue.all(await registry.all())

    @get("/kinds")
    async def list_kinds(
        self, admin: NamedDependency[Principal], registry: NamedDependency[Registry]
    ) -> list[EngineKind]:
        """Kinds of engines: the built-in ones, those of plugins, and plugins that cannot be used, with the reason."""
        kinds = registry.kinds
        return [
            *(EngineKind(name, name in BUILT_IN, None) for name in kinds),
            *(EngineKind(each.name, is_built_in=False, left_out=each.reason) for each in kinds.left_out),
        ]

    @post()
    async def add_engine(
        self,
        data: JSONBody[EngineSpec],
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        roster: NamedDependency[Roster],
        promises: NamedDependency[Promises],
        catalogue: NamedDependency[Catalogue],
    ) -> EngineStanding:
        """Register an engine, and test it at once. It is kept also where it does not answer yet.

        It is tested later where it is away, or has no model in memory.
        """
        await registry.add(admin, data)
        await roster.sync()
        await promises.test_new(data.name)
        return catalogue.standing(data.name, data)

    @patch("/{name:path}")
    async def change_engine(
        self,
        name: FromPath[str],
        data: JSONBody[EngineChange],
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        roster: NamedDependency[Roster],
        catalogue: NamedDependency[Catalogue],
    ) -> EngineStanding:
        """Change an engine; what runs on it goes on. `is_draining` lets it take no new requests."""
        name = name.removeprefix("/")
        changes = {field: getattr(data, field) for field in data.__struct_fields__}
        spec = await registry.change(
            admin, name, {field: value for field, value in changes.items() if value is not UNSET}
        )
        await roster.sync()
        return catalogue.standing(name, spec)

    @delete("/{name:path}", status_code=204)
    async def remove_engine(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        roster: NamedDependency[Roster],
    ) -> None:
        """Remove an engine. Requests that run on it end; nobody new is sent there."""
        await registry.remove(admin, name.removeprefix("/"))
        await roster.sync()

    @post("/test/{name:path}", status_code=200)
    async def test_engine(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        promises: NamedDependency[Promises],
    ) -> Conformance:
        """Test again whether it stops when its client goes, counts tokens, and keeps people's caches apart."""
        return await promises.test(name.removeprefix("/"), str(admin.id))
