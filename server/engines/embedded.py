"""The embedded llama.cpp: a process of this server with one model, which may be started and stopped.

It is an engine and its own driver, as Ollama is. While its process is stopped, its model is cold: it is listed, nothing
is asked of it, and the residency starts it when somebody wants it. Address and key stay the same over all starts. A
process that dies while it should run is not cold but down, and whoever starts it (server/embedded/supervisor.py) starts
it again.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from server.engines.openai_compatible import OpenAICompatible
from server.engines.places import State
from server.errors import EngineFailed, NotFound
from server.messages import ModelMemory, Pressure, ServedModel

Move = Callable[[], Awaitable[None]]


class Embedded(OpenAICompatible):
    """One model of this server's own.

    Args:
        name: of the engine and of its model.
        context_tokens: of each slot.
        start: has the process run; returns when it can answer. Raises StartError.
        stop: has it ended; harmless if it is.
        is_started: whether it runs when the server begins to serve.
        memory: what the model takes; None where nobody knows.
        devices: where it is, by uuid.
    """

    rests_in = State.COLD

    def __init__(  # noqa: PLR0913 (all by name)
        self,
        base_url: str,
        *,
        name: str,
        slots: int,
        context_tokens: int,
        silence_ms_max: int,
        stall_ms_max: int,
        api_key: str,
        start: Move,
        stop: Move,
        is_started: bool = True,
        is_demonstration: bool = False,
        memory: ModelMemory | None = None,
        devices: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            base_url,
            kind="llama-server",
            name=name,
            slots=slots,
            silence_ms_max=silence_ms_max,
            stall_ms_max=stall_ms_max,
            api_key=api_key,
            is_demonstration=is_demonstration,
        )
        self.memory = memory or ModelMemory(0, 0)
        self.devices = devices
        self._start = start
        self._stop = stop
        self._is_started = is_started
        self._listed = (ServedModel(id=name, context_tokens=context_tokens, is_demonstration=is_demonstration),)

    async def probe(self) -> tuple[ServedModel, ...]:
        """What the process says; as it was told to begin with while there is none."""
        if not self._is_started:
            return self._listed
        try:
            return await super().probe()
        except EngineFailed:
            if self._is_started:
                raise
            return self._listed  # it was stopped meanwhile

    async def metrics(self) -> str | None:
        """Its page, while there is a process."""
        return await super().metrics() if self._is_started else None

    async def pressure(self) -> Pressure | None:
        """What it says of itself, while there is a process."""
        return await super().pressure() if self._is_started else None

    async def states(self) -> dict[str, State]:
        """See `Driver`. By what it should be: a process that died is being started again."""
        return {self.name: State.RESIDENT if self._is_started else State.COLD}

    async def load(self, model: str) -> None:
        """Start the process; see `Driver`."""
        self._check(model)
        if not self._is_started:
            await self._start()
            self._is_started = True
            # Slots are pinned to people only once the engine has told how many it has.
            with suppress(EngineFailed):
                await super().probe()

    async def unload(self, model: str) -> None:
        """Stop the process; see `Driver`."""
        self._check(model)
        self._is_started = False
        await self._stop()

    def _check(self, model: str) -> None:
        if model != self.name:
            raise NotFound(f"Engine {self.name} has no model {model[:100]!r}.", code="model_not_found")
