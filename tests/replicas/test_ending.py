"""How a server ends: what it says, whom it still serves, and how it closes its port."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import httpx
import pytest
from msgspec.structs import replace

from server.app import create_app
from server.cli.serve import WebServer, address, listen
from server.clock import SystemClock
from server.engines.configured import engines_from
from server.errors import StartError
from server.settings import Settings
from tests.boxes import Box
from tests.replicas.conftest import office
from tests.stand_ins.openai_engine import MODEL, Order

CHAT = "/v1/chat/completions"
KNOCKERS = 40
RESTARTED = 1012
clock = SystemClock()


@dataclass
class Running:
    """A server in this process, and its end."""

    server: WebServer
    task: asyncio.Task[None]
    box: Box


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A server that the test ends."""
    listening, started = listen(settings), asyncio.Event()
    server = WebServer(create_app(settings, engines_from(settings)), settings, on_started=started.set)
    task = asyncio.create_task(server.run_on(listening))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        await task
    async with office(settings.database_url, settings.redis_url, address(settings, listening)) as box:
        try:
            yield Running(server, task, box)
        finally:
            while not server.should_exit:
                server.stop()
            await asyncio.wait_for(task, 60)


def stream(client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """Ask, in the background."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    return asyncio.create_task(client.post(CHAT, json=body))


async def test_while_it_is_about_to_end_everybody_is_served(settings: Settings, engine_url: str, order: Order) -> None:
    """/readyz says so at once; answers end their connections; asked again it takes no more, and streams go on."""
    slow = replace(settings, engines=(engine_url,), shutdown_delay_ms=60_000, shutdown_grace_ms=30_000)
    async with running(slow) as one:
        ann = await one.box.person("ann")
        async with (
            one.box.http(headers=ann.bearer) as client,
            aiohttp.ClientSession(headers=ann.bearer) as session,
            session.ws_connect(f"{one.box.url}/api/live") as socket,
        ):
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json(), "connection" in ready.headers) == (200, {"status": "ready"}, False)
            one.server.stop()
            ready = await client.get("/readyz?engine=no")
            assert (ready.status_code, ready.json()) == (503, {"status": "ending"})
            answer = await stream(client)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert (ready.headers["connection"], answer.headers["connection"]) == ("close", "close")
            assert "engines" in await socket.receive_json(timeout=10)
            order.hold.clear()
            order.began.clear()
            late = stream(client)
            await order.began.wait()
            one.server.stop()
            while (message := await socket.receive(timeout=10)).type != aiohttp.WSMsgType.CLOSE:
                pass
            assert message.data == RESTARTED
            with pytest.raises(httpx.ConnectError):
                await httpx.AsyncClient().get(f"{one.box.url}/readyz", timeout=10)
            assert not one.task.done()
            order.hold.set()
            assert (await late).text.endswith("data: [DONE]\n\n")
        await asyncio.wait_for(one.task, 60)


async def test_a_port_opens_when_requests_can_be_served(settings: Settings, engine_url: str) -> None:
    """Until then it is closed, so that no proxy waits there; who opens it second is told that it is taken."""
    listening = listen(settings)
    port: int = listening.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    same = replace(settings, port=port, engines=(engine_url,))
    async with running(same):
        server = WebServer(create_app(same, engines_from(same)), same, on_started=lambda: None)
        with pytest.raises(StartError, match=f"Port {port} on 127.0.0.1 is taken"):
            await asyncio.wait_for(server.run_on(listening), 30)
    listening.close()


async def test_without_a_delay_it_ends_at_once(settings: Settings, engine_url: str) -> None:
    """As on a laptop: nothing runs, so the first signal is the last."""
    async with running(replace(settings, engines=(engine_url,))) as one:
        stopped_ms = clock.monotonic_ms()
        one.server.stop()
        await asyncio.wait_for(one.task, 60)
        # It takes 100 ms to notice, 50 for those at the door, and what its loops need; a busy machine takes longer.
        assert clock.monotonic_ms() - stopped_ms < 10_000


async def knock(url: httpx.URL, seen: Counter[str]) -> None:
    """Ask on a new connection each time, until nobody opens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(url.host, url.port)
        except ConnectionRefusedError:
            seen["refused"] += 1
            return
        try:
            writer.write(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            seen["answered" if (await reader.read()).startswith(b"HTTP/1.1 ") else "left without an answer"] += 1
        except ConnectionResetError:
            seen["reset"] += 1
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can make a socket deaf")
async def test_nobody_at_the_door_is_turned_away(settings: Settings, engine_url: str) -> None:
    """Whoever could connect is answered; the others find the port closed, and know that they have sent nothing."""
    async with running(replace(settings, engines=(engine_url,))) as one:
        seen: Counter[str] = Counter()
        knockers = [asyncio.create_task(knock(httpx.URL(one.box.url), seen)) for _ in range(KNOCKERS)]
        while seen["answered"] < KNOCKERS:
            await clock.sleep_ms(10)
        one.server.stop()
        await asyncio.wait_for(asyncio.gather(*knockers), 30)
    assert seen.keys() == {"answered", "refused"}, seen
