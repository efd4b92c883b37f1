"""The file of a router's model, and what it takes, from the arguments that the router tells."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tiny_model
from server.engines.drivers import UNKNOWN, LlamaRouter
from server.engines.router_files import RouterFile, file_of
from server.hardware.room import estimated
from tests.clocks import FakeClock
from tests.engines.test_drivers import served

PLAIN = RouterFile(Path("/m.gguf"), context_tokens=4096, slots=1, cache_type="f16", on_cpu=False)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["/bin/llama-server", "--model", "/m.gguf"], PLAIN),
        (["llama-server", "-m", "/m.gguf", "-c", "4096"], PLAIN),
        (
            ["s", "--model", "/m.gguf", "--ctx-size", "32768", "--parallel", "4", "--cache-type-k", "q8_0"],
            RouterFile(Path("/m.gguf"), context_tokens=8192, slots=4, cache_type="q8_0", on_cpu=False),
        ),
        (
            ["s", "--model", "/old.gguf", "--model", "/m.gguf", "-ngl", "0", "--parallel", "-1", "--ctx-size", "0"],
            RouterFile(Path("/m.gguf"), context_tokens=4096, slots=1, cache_type="f16", on_cpu=True),
        ),
        (["s", "--hf-repo", "owner/repo"], None),
        (["s", "--model", "relative.gguf"], None),
        (["s", "--model"], None),
        (["s", 1], None),
        (None, None),
    ],
)
def test_arguments(arguments: object, file: RouterFile | None) -> None:
    """Long and short names, the last of each; no file where none is named."""
    assert file_of(arguments) == file


@given(st.lists(st.sampled_from(["--model", "-c", "--parallel", "/x", "7", "-1", "\0", "99999999999999"])))
def test_any_arguments(arguments: list[str]) -> None:
    """Nonsense has no file, or one with numbers that make sense."""
    found = file_of(arguments)
    assert found is None or (found.slots > 0 and found.context_tokens > 0 and found.path.is_absolute())


async def test_a_router_is_sized_by_its_files(tmp_path: Path) -> None:
    """What the header says, for the context and slots of the arguments; a file that is not there is not known."""
    path = tmp_path / "tiny.gguf"
    tiny_model.build(path)

    async def models(_: web.Request) -> web.Response:
        def model(name: str, *arguments: str) -> dict[str, Any]:
            return {"id": name, "status": {"value": "unloaded", "args": ["llama-server", *arguments]}}

        words = ["--model", str(path), "--ctx-size", "2048", "--parallel", "2"]
        listed = [model("tiny", *words), model("gone", "--model", "/nowhere.gguf"), model("hub", "--hf-repo", "a/b")]
        return web.json_response({"data": listed, "object": "list"})

    app = web.Application()
    app.router.add_get("/models", models)
    async with served(app) as url:
        driver = LlamaRouter(url, name="router", clock=FakeClock(), sizer=estimated)
        assert driver.memory("tiny") == UNKNOWN
        assert set(await driver.states()) == {"tiny", "gone", "hub"}
        assert driver.memory("tiny") == estimated(path, context_tokens=1024, slots=2)
        assert (driver.memory("gone"), driver.memory("hub"), driver.memory("other")) == (UNKNOWN,) * 3
        await driver.close()
