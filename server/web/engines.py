"""Engines over HTTP: what admins register, change, drain and remove, and how each is."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Struct, UnsetType

from server.accounts.secrets import new_token
from server.clock import Clock
from server.engines.conformance import Conformance, examine
from server.engines.kinds import EngineSpec, Slots, Tokens
from server.engines.pool import Health, Pool
from server.engines.registry import Registered, Registry
from server.engines.roster import Roster
from server.errors import InvalidRequest, NotFound, Unavailable
from server.messages import Principal
from server.web.accounts import BODY_BYTES_MAX


class EngineModel(Struct):
    """A model that an engine serves."""

    id: str
    context_tokens: int | None


class EngineStanding(Struct):
    """An engine, as it was registered and as it is.

    Attributes:
        is_fixed: it comes from the settings, and can be changed only there.
        is_up: it answered the last probe.
        breaker: `closed` while requests succeed, `open` after several failures, `half-open` while one is tried.
        in_use: requests that run on it through this replica.
        slots: how many it is given at a time.
        isolates_caches: whether it keeps people's cached prompts apart; null where nobody knows.
        conformance: what the last test found.
    """

    name: str
    kind: str
    url: str | None
    has_api_key: bool
    is_fixed: bool
    is_up: bool
    is_draining: bool
    breaker: str
    in_use: int
    slots: int | None
    kv_tokens: int | None
    isolates_caches: bool | None
    models: list[EngineModel]
    reason: str | None
    conformance: dict[str, Any] | None


class EngineChange(Struct):
    """Fields that are to change. Null gives a number back to the engine or the settings."""

    kind: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    api_key: str | UnsetType = UNSET
    slots: Slots | UnsetType | None = UNSET
    prefill_tokens: Tokens | UnsetType | None = UNSET
    kv_tokens: Tokens | UnsetType | None = UNSET
    reserved_slots: int | UnsetType | None = UNSET
    moves_models: bool | UnsetType = UNSET
    is_draining: bool | UnsetType = UNSET


class EngineAdmin(Controller):
    """Engines of the box. The `admin` dependency refuses members.

    `clock` is Any: Litestar checks what it passes, and cannot check a protocol.
    """

    path = "/api/admin/engines"
    tags = ("Administration",)
    request_max_body_size = BODY_BYTES_MAX

    @get()
    async def list_engines(
        self,
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        pool: NamedDependency[Pool],
    ) -> list[EngineStanding]:
        """All engines, fixed ones first."""
        registered = await registry.all()
        known = {each.spec.name for each in registered}
        fixed = [_standing(name, None, pool) for name in pool.names if name not in known]
        return [*fixed, *(_standing(each.spec.name, each, pool) for each in registered)]

    @post()
    async def add_engine(
        self,
        data: JSONBody[EngineSpec],
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        roster: NamedDependency[Roster],
        pool: NamedDependency[Pool],
        clock: NamedDependency[Any],
    ) -> EngineStanding:
        """Register an engine, and look at it at once. It is kept also where it does not answer yet."""
        registered = await registry.add(admin, data)
        await roster.sync()
        return _standing(data.name, await _examined(registered, registry, pool, clock), pool)

    @patch("/{name:path}")
    async def change_engine(
        self,
        name: FromPath[str],
        data: JSONBody[EngineChange],
        admin: NamedDependency[Principal],
        registry: NamedDependency[Registry],
        roster: NamedDependency[Roster],
        pool: NamedDependency[Pool],
    ) -> EngineStanding:
        """Change an engine; what runs on it goes on. `is_draining` lets it take no new requests."""
        name = name.removeprefix("/")
        changes = {field: getattr(data, field) for field in data.__struct_fields__}
        registered = await registry.change(
            admin, name, {field: value for field, value in changes.items() if value is not UNSET}
        )
        await roster.sync()
        return _standing(name, registered, pool)

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
        registry: NamedDependency[Registry],
        pool: NamedDependency[Pool],
        clock: NamedDependency[Any],
    ) -> Conformance:
        """Test again whether it stops when its client goes, counts tokens, and keeps people's caches apart."""
        name = name.removeprefix("/")
        found = await _test(name, pool, clock)
        await registry.learn(name, msgspec.to_builtins(found))
        return found


async def _examined(registered: Registered, registry: Registry, pool: Pool, clock: Clock) -> Registered:
    """The engine with what a test finds, if it answers already."""
    name = registered.spec.name
    health = pool.health(name)
    if health is None or not health.is_up or not health.models:
        return registered
    learned = msgspec.to_builtins(await _test(name, pool, clock))
    await registry.learn(name, learned)
    return Registered(registered.spec, learned)


async def _test(name: str, pool: Pool, clock: Clock) -> Conformance:
    engine, health = pool.engine(name), pool.health(name)
    if engine is None or health is None:
        raise NotFound(f"There is no engine that is called {name[:100]!r}.", code="engine_not_found")
    if not health.is_up:
        raise Unavailable(f"Engine {name} does not answer: {health.reason}", code="engine_away", retry_after_s=5)
    if not health.models:
        raise InvalidRequest(f"Engine {name} has no model to test it with.")
    with pool.using(engine):
        return await examine(engine, health.models[0].id, new_token(), clock)


def _standing(name: str, registered: Registered | None, pool: Pool) -> EngineStanding:
    engine, health = pool.engine(name), pool.health(name)
    spec = registered.spec if registered is not None else None
    return EngineStanding(
        name=name,
        kind=spec.kind if spec is not None else engine.kind if engine is not None else "",
        url=spec.url if spec is not None else None,
        has_api_key=bool(spec and spec.api_key),
        is_fixed=spec is None,
        is_up=health is not None and health.is_up,
        is_draining=spec.is_draining if spec is not None else False,
        breaker=health.breaker if health is not None else "closed",
        in_use=health.in_use if health is not None else 0,
        slots=(spec.slots if spec is not None else None) or (engine.slots if engine is not None else None),
        kv_tokens=engine.kv_tokens if engine is not None else None,
        isolates_caches=engine.isolates_caches if engine is not None else None,
        models=_models(health),
        reason=health.reason if health is not None else "It is left out here; the log says why.",
        conformance=dict(registered.learned) if registered is not None and registered.learned else None,
    )


def _models(health: Health | None) -> list[EngineModel]:
    served: Sequence[Any] = health.models if health is not None else ()
    return [EngineModel(model.id, model.context_tokens) for model in served]
