"""What an adapter of OpenAI's surface needs to go on with answers: `Resumes` (protocol.py), by what it has anyway."""

from typing import Any, Protocol

from server.engines.protocol import Reply
from server.engines.resumption import COMPLETIONS, SURFACES, TRACES, resumed, traced
from server.messages import Surface, Written


class Resuming(Protocol):
    """A part of an adapter, to inherit from."""

    @property
    def dialect(self) -> str:
        """Which kind of engine it speaks to."""
        ...

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> Reply:
        """See `Engine.open`."""
        ...

    async def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST to a route outside of /v1, for the object that comes back. Raises EngineFailed."""
        ...

    @property
    def continues(self) -> frozenset[Surface]:
        """Where it should be able to go on with an answer."""
        return SURFACES.get(self.dialect, COMPLETIONS)

    def traced(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with which it tells ids."""
        return traced(self.dialect, body)

    def untraced(self, events: bytes) -> bytes:
        """Events without what `traced` asked for."""
        traces = TRACES.get(self.dialect)
        return events if traces is None else traces.sub(b"", events)

    async def resume(
        self, surface: Surface, body: dict[str, Any], written: Written, request_id: str, salt: str
    ) -> tuple[Reply, int]:
        """Go on with an answer."""
        rest = await resumed(self.dialect, surface, body, written, self.ask)
        return await self.open(rest.surface, rest.body, request_id, salt), rest.written
