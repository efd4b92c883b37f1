"""Two whole servers on one Postgres, one Redis and one engine; and clients that do not read."""

import asyncio
import dataclasses
import random
import socket
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Entry, Ledger
from server.clock import SystemClock
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.sharing.replicas import asking, entry, house_of
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
    """Streamed, whole and left: a row for each that reached the engine, no slot too many, and budgets say the same."""
    shared = replace(settings, engines=(engine_url,), engine_slots=3)
    boxes = [await make_box(shared), await make_box(shared)]
    ann = await boxes[0].person("ann")
    await boxes[0].allow(ann, tokens_per_month=10**9)
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
    used = sum(row.input_tokens + row.output_tokens for row in rows)
    assert (await ledger.budget(str(ann.user.id))).tokens_per_month == used
    assert [key async for key in redis.scan_iter("wf:{box}:request:*")] == []


async def test_two_boxes_have_one_queue(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, redis: Redis
) -> None:
    """Who comes to one is served before the rest of somebody's flood at the other, and no slot is used twice."""
    shared = replace(settings, engines=(engine_url,), engine_slots=1)
    one, two = await make_box(shared), await make_box(shared)
    hog, new = await one.person("hog"), await one.person("new")
    order.hold.clear()
    async with one.http(headers=hog.bearer) as client, two.http(headers=new.bearer) as other:
        flood = [asyncio.create_task(client.post(PATH, json={**CHAT, "user": "hog"})) for _ in range(8)]
        await load_is(one, redis, engine_url, (1, 7))
        asking = asyncio.create_task(other.post(PATH, json={**CHAT, "user": "new"}))
        await load_is(one, redis, engine_url, (1, 8))
        order.hold.set()
        assert {(await each).status_code for each in (*flood, asking)} == {200}
    assert [body["user"] for body in order.seen][:3] == ["hog", "new", "hog"]
    assert order.running_max == 1


async def test_budgets_and_limits_hold_across_boxes(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order
) -> None:
    """Thirty at once at two boxes: as many are answered as the day affords, and one at a time."""
    shared = replace(settings, engines=(engine_url,))
    boxes = [await make_box(shared), await make_box(shared)]
    ann = await boxes[0].person("ann")
    await boxes[0].allow(ann, tokens_per_day=100, in_flight_max=1)
    clients = [box.http(headers=ann.bearer) for box in boxes]
    body = {**CHAT, "max_tokens": 19}
    answers = await asyncio.gather(*(clients[number % 2].post(PATH, json=body) for number in range(30)))
    for client in clients:
        await client.aclose()
    statuses = [answer.status_code for answer in answers]
    # Each is taken for 20 tokens and uses 10.
    assert 5 <= statuses.count(200) <= 10
    assert statuses.count(429) == 30 - statuses.count(200)
    assert order.running_max == 1
    rows = await boxes[1].usage(statuses.count(200))
    assert sum(row.input_tokens + row.output_tokens for row in rows) == 10 * statuses.count(200)


class OtherYear(SystemClock):
    """A machine whose wall clock is wrong."""

    def now(self) -> datetime:
        """Wall-clock time, more than a year late."""
        return super().now() + timedelta(days=400, hours=7)


async def test_a_box_with_a_wrong_clock_has_the_same_windows(
    make_box: MakeBox, settings: Settings, engine_url: str, redis: Redis
) -> None:
    """Only Redis' time counts: what is left, and when it is renewed, is the same at both, and leases live on."""
    shared = replace(settings, engines=(engine_url,))
    good, wrong = await make_box(shared), await make_box(shared, clock=OtherYear())
    ann = await good.person("ann")
    await good.allow(ann, tokens_per_day=1_000, tokens_per_month=1_500)
    left, resets = [], []
    for number, box in enumerate((good, wrong, good, wrong)):
        async with box.http(headers=ann.bearer) as client:
            answer = await client.post(PATH, json={**CHAT, "max_tokens": 9})
        assert answer.status_code == 200, answer.text
        left.append(int(answer.headers["x-ratelimit-remaining-tokens"]))
        resets.append(int(answer.headers["x-ratelimit-reset-tokens"].removesuffix("s")))
        await good.usage(number + 1)
    assert left == [990, 980, 970, 960]
    seconds = (await redis.time())[0]
    assert all(abs(reset - (86_400 - seconds % 86_400)) <= 10 for reset in resets)
    assert {row.outcome for row in await good.usage(4)} == {"completed"}


async def test_a_replica_that_dies_gives_its_slots_and_reservations_back(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, redis: Redis
) -> None:
    """Cut off with both slots: a lease later another box serves who waits, and its budget holds what was reported."""
    box = await make_box(replace(settings, engines=(engine_url,), engine_slots=2))
    ann = await box.person("ann")
    await box.allow(ann, tokens_per_day=200)
    name = engine_url.split("/")[2]
    async with house_of(redis, settings) as house, box.http(headers=ann.bearer) as client:
        dying = house.replica("dying", 2)
        version = await house.ledger.policy_version()
        leases = [await dying.admit(asking(_of(ann, name), version=version)) for _ in range(2)]
        leases[0].output_tokens = 7
        leases[0].see_first_token()
        async with asyncio.timeout(5):
            while await redis.hget(f"wf:{{box}}:request:{leases[0].entry.id}", "output_tokens") != "7":
                await house.clock.sleep_ms(10)
        await house.cut_off("dying")
        started_ms = house.clock.monotonic_ms()
        answer = await client.post(PATH, json={**CHAT, "max_tokens": 100})
        assert answer.status_code == 200
        # A lease of five seconds, a reaper that comes every second, and a machine that is busy.
        assert house.clock.monotonic_ms() - started_ms < 5_000 + 1_000 + 4_000
        rows = await box.usage(3)
        outcomes = sorted((row.outcome, row.output_tokens) for row in rows)
        assert outcomes == [("abandoned", 0), ("abandoned", 7), ("completed", 3)]
        used = sum(row.input_tokens + row.output_tokens for row in rows)
        assert (await house.ledger.budget(str(ann.user.id))).tokens_per_day == used
    assert len(order.seen) == 1


def _of(person: Person, engine: str) -> Entry:
    """A request of theirs, as another replica would enter it."""
    return dataclasses.replace(entry(str(uuid4()), user=str(person.user.id)), engine=engine)


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
