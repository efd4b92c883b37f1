"""llama.cpp on a laptop: one process per model, for nobody but the server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from server.clock import SystemClock
from server.embedded import llama
from server.embedded.llama import Llama
from server.embedded.supervisor import Part, PartChanged, Supervisor
from server.errors import StartError

Running = Callable[[Part], Awaitable[None]]
HELLO = {"messages": [{"role": "user", "content": "What is a slot?"}], "max_tokens": 8}


@pytest.fixture
def engine(model: Path, data_dir: Path, clock: SystemClock) -> Llama:
    """An engine with the demonstration model."""
    return Llama(model, name="owner/tiny:f32", slots=2, context_tokens=512, data_dir=data_dir, clock=clock)


@pytest.fixture
async def client(engine: Llama) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that has the engine's key."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {engine.api_key}"}) as session:
        yield session


def command_lines() -> dict[psutil.Process, list[str]]:
    """Of every process below this one that lives long enough to be asked."""
    lines = {}
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            lines[one] = one.cmdline()
    return lines


def engines_of(data_dir: Path) -> list[psutil.Process]:
    """The programs of ours that serve a model of this folder, not their leashes."""
    return [
        one
        for one, line in command_lines().items()
        if "server.embedded.llama_program" in line
        and any(word.startswith(str(data_dir)) for word in line)
        and not one.children()
    ]


async def test_it_answers_to_its_key_only(running: Running, engine: Llama, client: aiohttp.ClientSession) -> None:
    """/v1/chat/completions answers with the key and gives 401 without it."""
    await running(engine)
    async with client.post(f"{engine.base_url}/chat/completions", json=HELLO) as response:
        assert response.status == 200
        answer = await response.json()
    assert answer["model"] == "owner/tiny:f32"
    assert answer["usage"]["completion_tokens"] > 0
    async with aiohttp.ClientSession() as stranger:
        for path in ("/v1/chat/completions", "/completion", "/slots/0?action=erase"):
            async with stranger.post(engine.base_url.removesuffix("/v1") + path, json=HELLO) as response:
                assert response.status == 401
        for path in ("/slots", "/metrics", "/v1/models"):
            async with stranger.get(engine.base_url.removesuffix("/v1") + path) as response:
                assert response.status == 401


async def test_the_key_is_on_no_command_line(running: Running, engine: Llama) -> None:
    """Other users of the machine cannot read the key with ps."""
    await running(engine)
    lines = [" ".join(line) for line in command_lines().values()]
    assert any("llama_program" in line for line in lines)
    assert not any(engine.api_key in line for line in lines)


async def test_nothing_carries_over_unasked(running: Running, engine: Llama, client: aiohttp.ClientSession) -> None:
    """A prompt is reused only in a slot that the server names, and not after that slot was erased."""
    await running(engine)

    async def cached_tokens(**extra: object) -> int:
        async with client.post(f"{engine.base_url}/chat/completions", json=HELLO | extra) as response:
            found = await response.json()
        return int(found["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert await cached_tokens(id_slot=0) == 0
    assert await cached_tokens(id_slot=0) == 0
    assert await cached_tokens(id_slot=0, cache_prompt=True) > 0
    async with client.post(f"{engine.base_url.removesuffix('/v1')}/slots/0?action=erase", json={}) as response:
        assert response.status == 200
    assert await cached_tokens(id_slot=0, cache_prompt=True) == 0


async def test_embeddings_and_answers(running: Running, model: Path, data_dir: Path, clock: SystemClock) -> None:
    """An engine that was asked for embeddings gives them, and answers as well."""
    engine = Llama(model, name="tiny", slots=1, context_tokens=512, data_dir=data_dir, clock=clock, embeddings=True)
    await running(engine)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {engine.api_key}"}) as client:
        async with client.post(f"{engine.base_url}/embeddings", json={"input": ["a box", "a slot"]}) as response:
            assert len((await response.json())["data"]) == 2
        async with client.post(f"{engine.base_url}/chat/completions", json=HELLO) as response:
            assert response.status == 200


async def test_a_killed_engine_comes_back(
    data_dir: Path, engine: Llama, clock: SystemClock, client: aiohttp.ClientSession
) -> None:
    """An engine that was killed is started again at the same address, and the caller hears of both."""
    changes: asyncio.Queue[PartChanged] = asyncio.Queue()
    supervisor = Supervisor([engine], clock, on_change=changes.put_nowait)
    try:
        await supervisor.start()
        assert (await changes.get()).up
        address = engine.base_url
        (served,) = engines_of(data_dir)
        served.kill()
        gone = await changes.get()
        assert (gone.up, gone.reason) == (False, "llama-owner-tiny-f32 ended with status 137.")
        assert (await changes.get()).up
        assert engine.base_url == address
        async with client.post(f"{address}/chat/completions", json=HELLO) as response:
            assert response.status == 200
    finally:
        await supervisor.stop()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"The model file .*model\.gguf does not exist\."),
        (b"no model", r"The model file .*model\.gguf is no GGUF file"),
        (b"GGUF", r"The model .*model\.gguf cannot be loaded: .*"),
    ],
)
async def test_a_file_that_is_no_model(
    data_dir: Path, clock: SystemClock, content: bytes | None, sentence: str
) -> None:
    """A missing, foreign or torn model file gives one sentence with its path, and nothing runs."""
    path = data_dir / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=f"^{sentence}"):
        await Llama(path, name="m", slots=1, context_tokens=512, data_dir=data_dir, clock=clock).start()
    assert engines_of(data_dir) == []


async def test_a_stranger_on_its_port_is_not_taken_for_it(
    engine: Llama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who answers on the port of an engine that was away, and is another user, gets no prompt: the engine fails."""

    async def well(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    port = urlsplit(engine.base_url).port
    table = tmp_path / "tcp"
    head = "sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid"
    table.write_text(f"{head}\n0: 0100007F:{port:04X} 00000000:0000 0A 0:0 0:0 0 54321\n")
    monkeypatch.setattr(llama, "TCP", table)
    async with await asyncio.start_server(well, "127.0.0.1", port):
        with pytest.raises(StartError, match="couldn't bind"):
            await engine.start()
