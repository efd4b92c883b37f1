"""The fleet: all engines of the box, and what keeps them: registry ─► roster ─► pool, and the residency of models."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from server.clock import Clock
from server.db.session import Database
from server.engines.drivers import LlamaRouter, VllmSleep
from server.engines.kinds import Defaults, EngineSpec, driver_of, load_kinds
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.pool import OnPressure, Pool
from server.engines.protocol import Engine
from server.engines.registry import Registry
from server.engines.residency import Residency
from server.engines.roster import Roster
from server.errors import Unavailable
from server.telemetry import MODEL_LOAD_SECONDS

# Told of an engine, and what an admin says of it, whenever either may have changed.
OnWindow = Callable[[Engine, EngineSpec | None], None]
# Where no budget is set, everything fits: the engines decide.
UNBOUNDED_BYTES = 1 << 60


class Fleet:
    """Everything about engines in one replica.

    Args:
        engines: those of the settings.
        memory_bytes: what all models that the server moves may take together; 0 is no bound.
    """

    def __init__(  # noqa: PLR0913 (the parts that it joins)
        self,
        engines: Sequence[Engine],
        *,
        database: Database,
        clock: Clock,
        defaults: Defaults,
        memory_bytes: int,
        on_window: OnWindow,
        on_pressure: OnPressure,
        on_gone: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._on_window = on_window
        self._on_gone = on_gone
        self._drivers: dict[str, tuple[EngineSpec, LlamaRouter | VllmSleep | Ollama]] = {}
        # Their connections are closed at the end: one may be in the middle of a move.
        self._replaced: list[LlamaRouter | VllmSleep | Ollama] = []
        for engine in engines:
            if isinstance(engine, OpenAICompatible) and defaults.pins is not None:
                engine.pin_with(defaults.pins)
        kinds = load_kinds()
        self.pool = Pool(engines, clock=clock, on_probed=self._probed, on_pressure=on_pressure, on_gone=self._gone)
        self.registry = Registry(database, clock, kinds, [engine.name for engine in engines])
        self.roster = Roster(self.registry, self.pool, kinds=kinds, defaults=defaults, clock=clock)
        self.residency = Residency(
            {},
            size_bytes=self._size_bytes,
            budget_bytes=lambda: memory_bytes or UNBOUNDED_BYTES,
            clock=clock,
            on_load=lambda load: MODEL_LOAD_SECONDS.labels(load.engine).observe(load.took_ms / 1000),
        )

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs as long as the server does."""
        return self.pool.run, self.roster.run, self.residency.run

    async def start(self) -> None:
        """Look at everything once."""
        await self.pool.probe_all()
        with suppress(Unavailable):  # the roster goes on trying
            await self.roster.sync()

    async def close(self) -> None:
        """Let go of all connections."""
        for driver in (*(driver for _, driver in self._drivers.values()), *self._replaced):
            if not isinstance(driver, Ollama):
                await driver.close()
        await self.pool.close()

    def _probed(self, engine: Engine) -> None:
        spec = self.roster.spec(engine.name)
        self._on_window(engine, spec)
        known = self._drivers.get(engine.name)
        if spec is None or (known is not None and known[0] == spec):
            return
        if known is not None:
            self.residency.leave(engine.name)
            self._replaced.append(self._drivers.pop(engine.name)[1])
        health = self.pool.health(engine.name)
        models = [model.id for model in health.models] if health is not None else []
        driver = driver_of(engine, spec, models, self._clock)
        if driver is not None:
            self._drivers[engine.name] = spec, driver
            self.residency.join(engine.name, driver)

    def _gone(self, name: str) -> None:
        self._on_gone(name)
        if (known := self._drivers.pop(name, None)) is not None:
            self._replaced.append(known[1])
            self.residency.leave(name)

    def _size_bytes(self, engine: str, model: str) -> int:
        adapter = self.pool.engine(engine)
        return adapter.size_bytes(model) if isinstance(adapter, Ollama) else 0
