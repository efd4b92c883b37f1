"""The life of a house: started, stopped, started again, killed, and started once more."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks import tiny_model
from server.clock import SystemClock
from tests.cli.programs import House, Server

PASSWORD = "correct horse battery"
QUESTION = [{"role": "user", "content": "What is a box?"}]
POLL_MS = 50
WRITTEN_MS_MAX = 20_000


@pytest.fixture
def slow_model(house: House) -> str:
    """A model in the models folder that needs long for an answer; its name."""
    folder: Path = house.data / "models"
    folder.mkdir(parents=True)
    tiny_model.build(folder / "slow.gguf", layers=24)
    return "slow"


def _body(model: str, tokens: int, **options: object) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, "max_tokens": tokens, "ignore_eos": True, **options}


async def _usage(client: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """The usage rows, newest first, as soon as there are `count` of them."""
    clock = SystemClock()
    deadline_ms = clock.monotonic_ms() + WRITTEN_MS_MAX
    while True:
        rows: list[dict[str, Any]] = (await client.get("/api/usage")).json()
        if len(rows) >= count:
            return rows
        assert clock.monotonic_ms() < deadline_ms, rows
        await clock.sleep_ms(POLL_MS)


def _client(server: Server, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)


async def test_a_house_lives_through_stops_and_kills(
    house: House, start: Callable[..., Server], slow_model: str
) -> None:
    """People, keys and usage outlive Ctrl-C and kill -9; processes outlive neither; nothing goes uncounted."""
    first = start()
    assert first.setup_link is not None
    address, _, token = first.setup_link.partition("/setup#")
    async with httpx.AsyncClient(base_url=address) as browser:
        body = {"token": token, "name": "ann", "password": PASSWORD}
        assert (await browser.post("/api/setup", json=body)).json()["role"] == "admin"
    key = house.ask("key", "create", "--user", "ann")
    async with _client(first, key) as client:
        answer = await client.post("/v1/chat/completions", json=_body(slow_model, 3))
        assert answer.status_code == 200, answer.text
        await _usage(client, 1)
    family = first.family()
    assert len(family) >= 4
    assert first.stop(signal.SIGINT, within_s=10) == 0
    assert first.lines[-1] == "Stopped."
    assert psutil.wait_procs(family, timeout=1)[1] == []

    second = start()
    assert second.setup_link is None
    assert [line.split()[0] for line in house.ask("user", "list").splitlines()] == ["ann"]
    family = second.family()
    async with _client(second, key) as client:
        (row,) = await _usage(client, 1)
        assert (row["model"], row["output_tokens"], row["outcome"]) == (slow_model, 3, "completed")
        body = _body(slow_model, 4000, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            assert (await anext(stream.aiter_lines())).startswith("data: ")
            request_id = stream.headers["x-request-id"]
            assert second.stop(signal.SIGKILL) == -signal.SIGKILL
            assert psutil.wait_procs(family, timeout=5)[1] == []

    third = start()
    async with _client(third, key) as client:
        newest, _ = await _usage(client, 2)
    assert (newest["request_id"], newest["outcome"]) == (request_id, "abandoned")
    assert third.stop(signal.SIGTERM) == 0
