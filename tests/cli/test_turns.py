"""Two embedded models, and memory for one: they come when somebody wants them, and are never both there."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks import tiny_model
from server.clock import SystemClock
from server.hardware.room import estimated
from tests.cli.programs import House, Server

SLOTS, CONTEXT = 2, 512
LOOK_EVERY_MS = 20
MODELS = ("one", "two")
BODY = {"messages": [{"role": "user", "content": "What is a box?"}], "max_tokens": 4, "ignore_eos": True}


@pytest.fixture
def tight(house: House) -> dict[str, str]:
    """Settings under which either of two models fits, but not both."""
    folder: Path = house.data / "models"
    folder.mkdir(parents=True)
    for name in MODELS:
        tiny_model.build(folder / f"{name}.gguf")
    memory = estimated(folder / "one.gguf", context_tokens=CONTEXT, slots=SLOTS, on_cpu=True)
    assert memory is not None
    return {
        "WIRTHFORGE_MODEL_SLOTS": str(SLOTS),
        "WIRTHFORGE_MODEL_CONTEXT_TOKENS": str(CONTEXT),
        "WIRTHFORGE_MODELS_MEMORY_BYTES": str(memory.high_bytes * 3 // 2),
    }


def loaded(server: Server) -> list[tuple[str, int]]:
    """The models whose process runs, each with its process id."""
    found = []
    for process in server.family():
        with suppress(psutil.Error):
            line = process.cmdline()
            # Not its leash, nor what the leash has not yet become.
            if "server.embedded.llama_program" in line and not any(word.endswith("leash.py") for word in line):
                found.append((line[line.index("--name") + 1], process.pid))
    return found


@asynccontextmanager
async def watched(server: Server) -> AsyncIterator[list[list[tuple[str, int]]]]:
    """What was loaded, looked at all the time."""
    seen: list[list[tuple[str, int]]] = []
    clock = SystemClock()

    async def look() -> None:
        while True:
            seen.append(await asyncio.to_thread(loaded, server))
            await clock.sleep_ms(LOOK_EVERY_MS)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()


async def test_models_take_turns_where_one_fits(
    house: House, start: Callable[..., Server], tight: dict[str, str]
) -> None:
    """Both are listed and both answer, one process at a time; many requests for a cold one are one start."""
    server = await asyncio.to_thread(start, **tight)
    assert [name for name, _ in loaded(server)] == ["one"]
    assert any("two" in line and "loaded when somebody wants it" in line for line in server.lines), server.lines
    await asyncio.to_thread(house.ask, "user", "add", "ann", "--password-stdin", stdin="correct horse battery\n")
    key = await asyncio.to_thread(house.ask, "key", "create", "--user", "ann")
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client, watched(server) as seen:
        listed = (await client.get("/v1/models")).json()["data"]
        assert sorted(model["id"] for model in listed if "council" not in model["id"]) == list(MODELS)
        for model in ("two", "one", "two"):
            answer = await client.post("/v1/chat/completions", json=BODY | {"model": model})
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 4
            assert [name for name, _ in loaded(server)] == [model]
        crowd = [client.post("/v1/chat/completions", json=BODY | {"model": "one"}) for _ in range(6)]
        assert [answer.status_code for answer in await asyncio.gather(*crowd)] == [200] * 6
    assert max(len(each) for each in seen) == 1
    # one at the start, two, one, two, and one for all six.
    assert len({pid for each in seen for _, pid in each}) <= 5
    family = server.family()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert psutil.wait_procs(family, timeout=5)[1] == []


async def test_one_that_dies_comes_back(start: Callable[..., Server], tight: dict[str, str]) -> None:
    """A crash of what is loaded is mended as ever, and what is cold stays away."""
    server = await asyncio.to_thread(start, **tight)
    ((name, pid),) = loaded(server)
    psutil.Process(pid).kill()
    clock = SystemClock()
    found = [(name, pid)]
    for _ in range(500):
        found = await asyncio.to_thread(loaded, server)
        if found and found != [(name, pid)]:
            break
        await clock.sleep_ms(LOOK_EVERY_MS)
    assert [model for model, _ in found] == ["one"]
    assert found != [(name, pid)]
    assert server.stop(signal.SIGINT) == 0
