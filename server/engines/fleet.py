"""The fleet: all engines, and what keeps them: registry ─► roster ─► pool, and the boxes that models are loaded in."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from server.clock import Clock
from server.db.session import Database
from server.engines.boxes import Boxes, Machine, NoMachine, is_here
from server.engines.drivers import UNKNOWN, LlamaRouter, VllmSleep
from server.engines.embedded import Embedded
from server.engines.kinds import Defaults, EngineSpec, driver_of, load_kinds
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.pool import OnPressure, Pool
from server.engines.protocol import Engine
from server.engines.registry import Registry
from server.engines.roster import Roster
from server.engines.router_files import Sizer
from server.errors import Unavailable
from server.messages import ModelMemory
from server.telemetry import MODEL_LOAD_SECONDS

# Told of an engine, and what an admin says of it, whenever either may have changed.
OnWindow = Callable[[Engine, EngineSpec | None], None]


class Fleet:
    """Everything about engines in one replica.

    Args:
        engines: those of the settings.
        memory_bytes: what the models of a box may take together; 0 is what its devices have.
        machine: the devices of this host.
        sizer: reads what a model's file takes.
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
        on_drain: Callable[[str], None] = lambda _: None,
        machine: Machine | None = None,
        sizer: Sizer | None = None,
    ) -> None:
        self._clock = clock
        self._on_window = on_window
        self._on_gone = on_gone
        self._sizer = sizer
        self._drivers: dict[str, tuple[EngineSpec, LlamaRouter | VllmSleep | Ollama]] = {}
        # Their connections are closed at the end: one may be in the middle of a move.
        self._replaced: list[LlamaRouter | VllmSleep | Ollama] = []
        for engine in engines:
            if isinstance(engine, OpenAICompatible) and defaults.pins is not None:
                engine.pin_with(defaults.pins)
        kinds = load_kinds()
        self.pool = Pool(
            engines, clock=clock, on_probed=self._probed, on_pressure=on_pressure, on_gone=self._gone, on_drain=on_drain
        )
        self.registry = PlacedRegistry(database, clock, kinds, [engine.name for engine in engines])
        self.roster = Roster(self.registry, self.pool, kinds=kinds, defaults=defaults, clock=clock)
        self.registry.check_place = self.check_place
        self.residency = Boxes(
            machine or NoMachine(),
            memory_bytes=memory_bytes,
            estimated=self._estimated,
            clock=clock,
            on_load=lambda load: MODEL_LOAD_SECONDS.labels(load.engine).observe(load.took_ms / 1000),
        )

    @property
    def parts(self) -> dict[str, object]:
        """By the names that handlers ask for."""
        return {"pool": self.pool, "registry": self.registry, "roster": self.roster}

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs as long as the server does."""
        return self.pool.run, self.roster.run, self.residency.run

    async def start(self) -> None:
        """Look at everything once."""
        await self.pool.probe_all()
        for name in self.pool.names:
            match self.pool.engine(name):
                case Embedded() as own:
                    self.residency.join(name, own, url=own.base_url, devices=own.devices)
                case _:
                    pass  # what an admin registers joins when it was looked at
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
        sizer = self._sizer if is_here(spec.url) else None
        driver = driver_of(engine, spec, models, self._clock, sizer)
        if driver is not None:
            self._drivers[engine.name] = spec, driver
            spills = isinstance(driver, Ollama | LlamaRouter)
            self.residency.join(engine.name, driver, url=spec.url, devices=spec.devices, spills=spills)

    def _gone(self, name: str) -> None:
        self._on_gone(name)
        if (known := self._drivers.pop(name, None)) is not None:
            self._replaced.append(known[1])
            self.residency.leave(name)

    def check_place(self, spec: EngineSpec) -> None:
        """Whether an engine may be on the devices that it names. Raises InvalidRequest."""
        self.residency.check(spec.name, spec.devices, {name: self._devices(name) for name in self.pool.names})

    def _devices(self, name: str) -> Sequence[str]:
        engine, spec = self.pool.engine(name), self.roster.spec(name)
        if isinstance(engine, Embedded):
            return engine.devices
        return () if spec is None else spec.devices

    def _estimated(self, engine: str, model: str) -> ModelMemory:
        """What is foreseen for a model; zeros where nobody tells, so that only what was seen counts."""
        known = self._drivers.get(engine)
        match self.pool.engine(engine) if known is None else known[1]:
            case Ollama() as ollama:
                size = ollama.size_bytes(model)
                return ModelMemory(size, size)
            case LlamaRouter() as router:
                return router.memory(model)
            case VllmSleep(memory_share=float() as share):
                size = int(self.residency.total_bytes(engine) * share)
                return ModelMemory(size, size)
            case Embedded() as own:
                return own.memory
            case _:
                return UNKNOWN


class PlacedRegistry(Registry):
    """The registry, which also looks whether an engine's devices are there and free to be shared."""

    check_place: Callable[[EngineSpec], None]

    def _check(self, spec: EngineSpec) -> None:
        super()._check(spec)
        self.check_place(spec)
