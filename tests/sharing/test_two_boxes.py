"""Two whole servers on one Postgres, one Redis and one engine; and clients that do not read."""

import asyncio
import random
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


async def _slowly(order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    for number in range(order.tokens):
        await response.write(event({"content": f" w{number}"}))
        await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.004)
    await response.write(event({}, "stop") + b"data: [DONE]\n\n")
    return response


async def _leaves(client: httpx.AsyncClient, body: dict[str, Any], after_ms: int, box: Box) -> bool:
    asking = asyncio.create_task(client.post(PATH, json=body))
    await box.clock.sleep_ms(after_ms)
    asking.cancel()
    await asyncio.wait([asking])
    return not asking.cancelled() and asking.result().status_code == 200


async def _stays(client: httpx.AsyncClient, body: dict[str, Any]) -> bool:
    return (await client.post(PATH, json=body)).status_code == 200


async def test_a_hundred_requests_on_two_boxes_are_all_accounted_for(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, redis: Redis
) -> None:
    """Streamed, whole and left: a row for each that reached the engine, no slot too many, nothing left in Redis."""
    shared = replace(settings, engines=(engine_url,), engine_slots=3)
    boxes = [await make_box(shared), await make_box(shared)]
    ann = await boxes[0].person("ann")
    order.tokens, order.behaviour = 8, _slowly
    chance = random.Random(7)  # noqa: S311 (a schedule, no secret)
    limits = httpx.Limits(max_connections=100)
    clients = [box.http(headers=ann.bearer, limits=limits) for box in boxes]
    asking = []
    for number in range(100):
        body = {**CHAT, "stream": bool(number % 2)}
        client = clients[number % 2]
        visit = _leaves(client, body, chance.randrange(900), boxes[0]) if number % 3 else _stays(client, body)
        asking.append(asyncio.create_task(visit))
    served = sum(await asyncio.gather(*asking))
    for client in clients:
        await client.aclose()
    ledger = Ledger(redis)
    async with asyncio.timeout(5):
        while await ledger.load(engine_url.split("/")[2]) != (0, 0):
            await boxes[0].clock.sleep_ms(10)
        while await redis.xlen("wf:{box}:settled"):
            await boxes[0].clock.sleep_ms(10)
    rows = await boxes[0].usage(len(order.seen))
    assert served >= 34
    seen = {headers["X-Request-Id"] for headers in order.headers}
    by_id = {str(row.request_id): row for row in rows}
    assert seen <= set(by_id)
    # A lease whose request left before it reached the engine has a row too, without a token.
    assert all(by_id[extra].output_tokens == 0 for extra in set(by_id) - seen)
    assert [row.outcome for row in rows].count("completed") >= served
    assert {row.outcome for row in rows} <= {"completed", "cancelled"}
    assert order.running_max <= 3
    assert [key async for key in redis.scan_iter("wf:{box}:request:*")] == []


async def _floods(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    while True:
        await response.write(event({"content": "x" * 60_000}))


async def deaf_client(box: Box, person: Person) -> socket.socket:
    """Somebody who asks for a stream and reads nothing of it."""
    url = urlsplit(box.url)
    body = httpx.Request("POST", box.url + PATH, json={**CHAT, "stream": True}).content
    lines = [
        f"POST {PATH} HTTP/1.1",
        "Host: box",
        f"Authorization: Bearer {person.key}",
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join([*lines, "\r\n"])
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, (url.hostname, url.port))
    await loop.sock_sendall(deaf, head.encode() + body)
    return deaf


async def load_is(box: Box, redis: Redis, engine_url: str, expected: tuple[int, int]) -> None:
    """Wait until so many run and wait."""
    async with asyncio.timeout(5):
        while await Ledger(redis).load(engine_url.split("/")[2]) != expected:
            await box.clock.sleep_ms(10)


async def test_a_client_that_does_not_read_hurts_nobody(box: Box, order: Order, redis: Redis, engine_url: str) -> None:
    """The engine is slowed down for it alone; when it leaves, its slot is free and the engine let go."""
    ann, bob = await box.person("ann"), await box.person("bob")
    order.behaviour = _floods
    deaf = await deaf_client(box, ann)
    await order.began.wait()
    order.behaviour = None
    async with box.http(headers=bob.bearer) as client:
        for _ in range(20):
            async with asyncio.timeout(1):
                assert (await client.post(PATH, json={**CHAT, "stream": True})).status_code == 200
    assert len(order.running) == 1
    assert not order.gone.is_set()
    deaf.close()
    async with asyncio.timeout(2):
        await order.gone.wait()
    await load_is(box, redis, engine_url, (0, 0))
    rows = await box.usage(21)
    assert sorted(row.outcome for row in rows) == ["cancelled"] + ["completed"] * 20


async def test_a_client_that_never_reads_loses_its_slot(
    box: Box, order: Order, redis: Redis, engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may wait for it: after a while it is treated like one that left."""
    monkeypatch.setattr("server.api.scope.TAKE_MS_MAX", 300)
    ann = await box.person("ann")
    order.behaviour = _floods
    deaf = await deaf_client(box, ann)
    async with asyncio.timeout(5):
        await order.gone.wait()
    await load_is(box, redis, engine_url, (0, 0))
    (row,) = await box.usage(1)
    assert row.outcome == "cancelled"
    deaf.close()
