"""The roster: keeps the pool as the registry says, in every replica."""

import asyncio
from collections.abc import Mapping

import structlog

from server.clock import Clock
from server.engines.kinds import Defaults, EngineSpec, Kind
from server.engines.pool import Pool
from server.engines.registry import Registry
from server.errors import WirthforgeError

READ_EVERY_MS = 3_000

log = structlog.get_logger(__name__)


class Roster:
    """Reads the registry every few seconds; `sync` does it now."""

    def __init__(
        self, registry: Registry, pool: Pool, *, kinds: Mapping[str, Kind], defaults: Defaults, clock: Clock
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._kinds = kinds
        self._defaults = defaults
        self._clock = clock
        self._specs: dict[str, EngineSpec] = {}
        self._syncing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def spec(self, name: str) -> EngineSpec | None:
        """What is in force for a registered engine, in this replica."""
        return self._specs.get(name)

    async def sync(self) -> None:
        """Bring the pool in line. Raises Unavailable when Postgres is away; then everything stays as it is."""
        # Goes on when whoever asked for it has left: half a change would stay half.
        task = asyncio.create_task(self._sync())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _sync(self) -> None:
        async with self._syncing:
            wanted = {spec.name: spec for spec in await self._registry.all()}
            for name in self._specs.keys() - wanted.keys():
                del self._specs[name]
                await self._pool.remove(name)
            changed = [(name, spec) for name, spec in wanted.items() if spec != self._specs.get(name)]
            # Together: one that is away takes seconds to say nothing.
            await asyncio.gather(*(self._take(name, spec) for name, spec in changed))

    async def _take(self, name: str, spec: EngineSpec) -> None:
        before, self._specs[name] = self._specs.get(name), spec
        if before is not None and _same_engine(before, spec):
            self._pool.drain(name, is_draining=spec.is_draining)
            await self._pool.probe(name)  # its window may have changed
            return
        kind = self._kinds.get(spec.kind)
        if kind is None:
            await self._leave_out(name, f"its kind {spec.kind} is not installed here")
            return
        try:
            engine = kind(spec, self._defaults)
        except Exception as error:  # noqa: BLE001 (a plugin may do anything)
            await self._leave_out(name, f"{type(error).__name__}: {error}"[:500])
            return
        await self._pool.change(engine, is_draining=spec.is_draining)

    async def _leave_out(self, name: str, reason: str) -> None:
        log.error("engine left out", engine=name, reason=reason)
        await self._pool.remove(name)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sync()
            except WirthforgeError as error:
                log.warning("engines not read", reason=error.message)
            await self._clock.sleep_ms(READ_EVERY_MS)


def _same_engine(one: EngineSpec, other: EngineSpec) -> bool:
    return (one.kind, one.url, one.api_key, one.slots) == (other.kind, other.url, other.api_key, other.slots)
