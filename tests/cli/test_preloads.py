"""A model that was asked for at this hour comes before anybody asks: `up` with real processes, Postgres and Redis."""

import asyncio
import signal
from collections.abc import Callable

import httpx
import pytest

from server.clock import SystemClock
from tests.cli.programs import House, Server
from tests.cli.test_turns import BODY, LOOK_EVERY_MS, loaded, tight

__all__ = ["tight"]  # the fixture: room for one of two models


@pytest.mark.timeout(180)
async def test_what_was_used_is_loaded_again_while_nobody_asks(
    house: House, start: Callable[..., Server], tight: dict[str, str]
) -> None:
    """The first of two models starts with the server; the other, which is always used, is there in its place soon."""
    server = await asyncio.to_thread(start, **tight)
    await asyncio.to_thread(
        house.ask, "user", "add", "ann", "--role", "admin", "--password-stdin", stdin="correct horse battery\n"
    )
    key = await asyncio.to_thread(house.ask, "key", "create", "--user", "ann")
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        for _ in range(8):
            assert (await client.post("/v1/chat/completions", json=BODY | {"model": "two"})).status_code == 200
    assert server.stop(signal.SIGINT) == 0

    server = await asyncio.to_thread(start, **tight)
    assert [name for name, _ in loaded(server)] == ["one"]
    clock = SystemClock()
    begun_ms = clock.monotonic_ms()
    while [name for name, _ in await asyncio.to_thread(loaded, server)] != ["two"]:
        assert clock.monotonic_ms() - begun_ms < 90_000, server.lines
        await clock.sleep_ms(LOOK_EVERY_MS)
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        answer = await client.post("/v1/chat/completions", json=BODY | {"model": "two"})
        assert answer.status_code == 200, answer.text
        metrics = (await client.get("/metrics")).text
    assert 'wirthforge_model_preloads_total{engine="two",outcome="loaded"} 1.0' in metrics
    assert 'wirthforge_model_preloads_total{engine="two",outcome="used"} 1.0' in metrics
    assert server.stop(signal.SIGINT) == 0
