"""Where an engine's numbers come from: the admin, the engine, the settings, or what is assumed of its kind."""

import pytest

from server.engines.kinds import EngineSpec
from server.engines.numbers import Number, NumberDefaults, numbers_of
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.tgi import Tgi
from tests.engines.raw_engine import reply, serve_raw

DEFAULTS = NumberDefaults(prefill_tokens=2048, reserved_slots=-1)
INFO = b'"model_id":"m","max_concurrent_requests":9,"max_total_tokens":100,"max_batch_total_tokens":5000'


async def test_what_a_llama_server_tells_is_its_own() -> None:
    """Its slots; before it has told them they are the setting's."""
    async with serve_raw(props=[reply(b'{"total_slots":2}')]) as raw:
        engine = OpenAICompatible(raw.url, slots=16, silence_ms_max=500)
        assert numbers_of(engine, None, DEFAULTS).slots == Number(16, "default", "engine_slots")
        await engine.probe()
        found = numbers_of(engine, None, DEFAULTS)
        assert found.slots == Number(2, "engine", None)
        assert found.prefill_tokens == Number(2048, "default", "engine_prefill_tokens")
        assert found.kv_tokens == Number(0, "default", None)
        await engine.close()


@pytest.mark.parametrize(
    ("told", "prefill"),
    [(b"", Number(4096, "default", None)), (b',"max_batch_prefill_tokens":512', Number(512, "engine", None))],
)
async def test_tgi_tells_nearly_everything(told: bytes, prefill: Number) -> None:
    """But mostly not its prefill chunk, for which its router's default is taken."""
    async with serve_raw() as raw:
        raw.answers["/info"] = [reply(b"{" + INFO + told + b"}")]
        engine = Tgi(raw.url, slots=16, silence_ms_max=500)
        await engine.probe()
        found = numbers_of(engine, None, DEFAULTS)
        assert (found.slots, found.kv_tokens) == (Number(8, "engine", None), Number(5000, "engine", None))
        assert found.prefill_tokens == prefill
        await engine.close()


def test_an_admin_is_believed_first() -> None:
    """Also where they say 0, which is no bound; what they leave out is as without them."""
    engine = Ollama("http://127.0.0.1:9", slots=1, silence_ms_max=500)
    spec = EngineSpec(name="o", kind="ollama", url="http://127.0.0.1:9", slots=2, prefill_tokens=0, reserved_slots=0)
    found = numbers_of(engine, spec, DEFAULTS)
    assert found.slots == Number(2, "admin", None)
    assert found.prefill_tokens == Number(0, "admin", None)
    assert found.reserved_slots == Number(0, "admin", None)
    assert numbers_of(engine, None, DEFAULTS).slots == Number(1, "default", "engine_slots")
    assert numbers_of(engine, None, DEFAULTS, knee=3).slots == Number(3, "measured", None)
    assert numbers_of(engine, spec, DEFAULTS, knee=3).slots == Number(2, "admin", None)
    assert numbers_of(engine, None, DEFAULTS).reserved_slots == Number(None, "default", "reserved_slots")
