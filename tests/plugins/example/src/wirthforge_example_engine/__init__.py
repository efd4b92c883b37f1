"""A kind of engine as a plugin: an OpenAI-compatible server behind a gateway.

The gateway answers at `/openai/v1` and lets at most four requests through, whatever the engine behind it could take.
Everything else is the adapter's that WIRTHFORGE has already.
"""

from server.engines.kinds import Defaults, EngineSpec
from server.engines.openai_compatible import OpenAICompatible
from server.engines.protocol import Engine

SLOTS_MAX = 4


def make(spec: EngineSpec, defaults: Defaults) -> Engine:
    """What the entry point names: the adapter of one engine. It does not connect yet."""
    return OpenAICompatible(
        spec.url.rstrip("/") + "/v1",
        kind="gateway",
        name=spec.name,
        slots=min(spec.slots or defaults.slots, SLOTS_MAX),
        silence_ms_max=defaults.silence_ms_max,
        stall_ms_max=defaults.stall_ms_max,
        api_key=spec.api_key,
    )
