"""The pool: which engines there are, whether they answer, and which of them serves a model."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from server.clock import Clock
from server.engines.protocol import Engine
from server.errors import EngineFailed, NotFound, Unavailable
from server.messages import Pressure, ServedModel
from server.telemetry import ENGINE_UP

PROBE_EVERY_MS = 10_000
# An engine that is away is looked at more often: people wait for it.
PROBE_AWAY_EVERY_MS = 1_000
PRESSURE_EVERY_MS = 5_000

log = structlog.get_logger(__name__)

OnProbed = Callable[[Engine], None]
OnPressure = Callable[[str, Pressure], None]


class Route(Struct, frozen=True):
    """An engine that serves the model, and the model as it lists it."""

    engine: Engine
    model: ServedModel


class Pool:
    """All engines of the box.

    Args:
        on_probed: told of an engine whenever it was probed, so that the gate knows its window.
        on_pressure: told what an engine that is up says of itself, by its name.
    """

    def __init__(
        self, engines: Sequence[Engine], *, clock: Clock, on_probed: OnProbed, on_pressure: OnPressure
    ) -> None:
        self._engines = engines
        self._clock = clock
        self._on_probed = on_probed
        self._on_pressure = on_pressure
        self._served: dict[str, tuple[ServedModel, ...]] = {}
        self._is_up: dict[str, bool] = {}

    @property
    def is_ready(self) -> bool:
        """Whether any engine answers."""
        return any(self._is_up.values())

    def routes(self) -> list[Route]:
        """Every model once, from the first engine that serves it; those of engines that are up come first."""
        found: dict[str, Route] = {}
        for engine in sorted(self._engines, key=lambda engine: not self._is_up.get(engine.name)):
            for model in self._served.get(engine.name, ()):
                found.setdefault(model.id, Route(engine, model))
        return list(found.values())

    def route(self, model: str) -> Route:
        """Where to send a request for `model`.

        Raises:
            NotFound: no engine serves it.
            Unavailable: none has answered yet, so nobody knows.
        """
        for route in self.routes():
            if route.model.id == model:
                return route
        if len(self._served) < len(self._engines):
            raise Unavailable(
                "No engine that answers has this model, and not all have answered yet. Try again in a few seconds.",
                retry_after_s=3,
            )
        raise NotFound(f"There is no model {model[:100]!r}. GET /v1/models lists them.", code="model_not_found")

    async def probe_all(self) -> None:
        """Look at every engine once."""
        await asyncio.gather(*(self._probe(engine) for engine in self._engines))

    async def run(self) -> None:
        """Look at the engines until cancelled, each in its own time."""
        async with asyncio.TaskGroup() as watches:
            for engine in self._engines:
                watches.create_task(self._watch(engine), name=f"watch {engine.name}")
                watches.create_task(self._feel(engine), name=f"feel {engine.name}")

    async def _watch(self, engine: Engine) -> None:
        while True:
            await self._clock.sleep_ms(PROBE_EVERY_MS if self._is_up.get(engine.name) else PROBE_AWAY_EVERY_MS)
            await self._probe(engine)

    async def _feel(self, engine: Engine) -> None:
        while True:
            if self._is_up.get(engine.name) and (pressure := await engine.pressure()) is not None:
                self._on_pressure(engine.name, pressure)
            await self._clock.sleep_ms(PRESSURE_EVERY_MS)

    async def _probe(self, engine: Engine) -> None:
        was_up = self._is_up.get(engine.name)
        try:
            self._served[engine.name] = await engine.probe()
            is_up = True
            self._on_probed(engine)
        except EngineFailed as error:
            is_up = False
            if was_up is not False:
                log.warning("engine is away", engine=engine.name, reason=error.message)
        if is_up and not was_up:
            models = [model.id for model in self._served[engine.name]]
            log.info("engine is up", engine=engine.name, slots=engine.slots, models=models)
        self._is_up[engine.name] = is_up
        ENGINE_UP.labels(engine.name).set(is_up)

    async def close(self) -> None:
        """Let go of all connections."""
        for engine in self._engines:
            await engine.close()
