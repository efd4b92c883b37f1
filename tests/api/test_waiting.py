"""Waiting for a slot, as clients see it: comments that say where they stand, and how waiting ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from msgspec.structs import replace

from quotas.ledger import Ledger
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins.openai_engine import MODEL, Order

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told every few milliseconds, from a fresh look."""
    monkeypatch.setattr("server.sharing.waiting.TELL_MS", 20)
    monkeypatch.setattr("server.sharing.waiting.TELL_FIRST_MS", 20)
    monkeypatch.setattr("server.sharing.outlook.FRESH_MS", 10)


@pytest.fixture
def narrow(settings: Settings, engine_url: str) -> Settings:
    """A box with one slot."""
    return replace(settings, engines=(engine_url,), engine_slots=1)


@pytest.fixture
async def box(make_box: MakeBox, narrow: Settings) -> Box:
    """That box."""
    return await make_box(narrow)


@pytest.fixture
async def ann(box: Box) -> Person:
    """Somebody with a key."""
    return await box.person("ann")


@asynccontextmanager
async def held(box: Box, order: Order, person: Person) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """The only slot, in use until `order.hold` is set."""
    order.hold.clear()
    order.began.clear()
    async with box.http(headers=person.bearer) as client:
        holding = asyncio.create_task(client.post(PATH, json=CHAT))
        await order.began.wait()
        yield holding
        order.hold.set()
        await holding


async def waiting_is(ledger: Ledger, engine_url: str, count: int) -> None:
    """Wait until so many wait."""
    async with asyncio.timeout(5):
        while (await ledger.load(engine_url.split("/")[2]))[1] != count:
            await asyncio.wait([asyncio.create_task(ledger.ping())])


def comments(text: str) -> list[str]:
    """What an event stream says of the queue, in order, each once."""
    return list(dict.fromkeys(line for line in text.split("\n") if line.startswith(": queue ")))


def last_event(text: str) -> Any:
    """What stands in the last event."""
    return json.loads(text.rstrip().rpartition("data: ")[2])


async def test_a_stream_that_waits_is_told_where_it_stands(box: Box, ann: Person, order: Order) -> None:
    """At once by headers, then by comments; the answer follows in the same stream, and its headers are those of all."""
    bob = await box.person("bob")
    await box.allow(bob, requests_per_minute=9)
    async with (
        held(box, order, ann),
        box.http(headers=bob.bearer) as client,
        client.stream("POST", PATH, json=CHAT) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-wirthforge-queue-ahead"] == "0"
        assert "x-wirthforge-queue-wait-s" not in response.headers
        assert response.headers["x-ratelimit-remaining-requests"] == "8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        assert await box.usage_of(response.headers["x-request-id"]) is None
        text = ""
        async for piece in response.aiter_text():
            text += piece
            order.hold.set()
    assert comments(text) == [": queue ahead=0", ": queue done"]
    assert text.endswith("data: [DONE]\n\n")
    assert text.count(" word") == order.tokens
    assert "x-wirthforge-queue-ahead" not in (await _asked(box, ann)).headers


async def _asked(box: Box, person: Person, **body: Any) -> httpx.Response:
    async with box.http(headers=person.bearer) as client:
        return await client.post(PATH, json=CHAT | body)


async def test_the_place_in_the_queue_goes_down(
    box: Box, ann: Person, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """Each who waits is told how many are before it; once answers were seen, also how long it takes."""
    order.held_after = 1
    async with held(box, order, ann):
        await box.clock.sleep_ms(30)  # so that this answer took some time
    async with held(box, order, ann):
        asking = []
        for number in range(3):
            asking.append(asyncio.create_task(_asked(box, ann)))
            await waiting_is(ledger, engine_url, number + 1)
        await box.clock.sleep_ms(60)  # everybody was told where all three stand
        order.hold.set()
        answers = [await each for each in asking]
    for number, answer in enumerate(answers):
        ahead = [int(comment.partition("ahead=")[2].split()[0]) for comment in comments(answer.text)[:-1]]
        assert ahead[0] == number
        assert ahead == sorted(ahead, reverse=True)
        assert "wait_s=" in answer.text
        assert int(answer.headers["x-wirthforge-queue-wait-s"]) >= 0
        assert answer.text.endswith("data: [DONE]\n\n")


async def test_openais_client_does_not_see_the_waiting(box: Box, ann: Person, order: Order) -> None:
    """Comments are no chunks: its own library reads the answer as if nothing had been."""
    async with held(box, order, ann), box.openai(ann) as client:
        stream = await client.chat.completions.create(**CHAT)
        order.hold.set()
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == " word0 word1 word2"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_waiting_too_long_ends_with_an_error(
    make_box: MakeBox, narrow: Settings, order: Order, ledger: Ledger, engine_url: str, is_stream: bool
) -> None:
    """As the last event of a stream that has begun, else as a 503; nothing was used, and the place is free."""
    box = await make_box(replace(narrow, queue_wait_ms_max=200))
    ann, bob = await box.person("ann"), await box.person("bob")
    await box.allow(bob, tokens_per_day=100)
    async with held(box, order, ann):
        for _ in range(3):  # each could be the only one that the budget affords
            answer = await _asked(box, bob, stream=is_stream, max_tokens=90)
            error = last_event(answer.text)["error"] if is_stream else answer.json()["error"]
            assert (error["code"], error["type"]) == ("queue_timeout", "server_error")
            assert answer.status_code == (200 if is_stream else 503)
            assert "[DONE]" not in answer.text
            assert is_stream or answer.headers["retry-after"] == "30"
            await waiting_is(ledger, engine_url, 0)
    rows = await box.usage(1)
    assert [row.user_id for row in rows] == [ann.user.id]
    assert (await Ledger(ledger._redis).budget(str(bob.user.id))).tokens_per_day == 0


async def test_openais_client_raises_what_ends_the_waiting(make_box: MakeBox, narrow: Settings, order: Order) -> None:
    """An error event after comments is an APIError, and not an empty answer."""
    box = await make_box(replace(narrow, queue_wait_ms_max=200))
    ann = await box.person("ann")
    async with held(box, order, ann), box.openai(ann) as client:
        stream = await client.chat.completions.create(**CHAT)
        with pytest.raises(openai.APIError) as caught:
            await anext(aiter(stream))
    assert caught.value.code == "queue_timeout"


async def test_who_hangs_up_while_waiting_is_out_of_the_queue(
    box: Box, ann: Person, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """Also after comments were sent: no row, no budget, no engine."""
    bob = await box.person("bob")
    await box.allow(bob, tokens_per_day=1_000)
    async with held(box, order, ann):
        async with (
            box.http(headers=bob.bearer) as client,
            client.stream("POST", PATH, json=CHAT | {"max_tokens": 10}) as response,
        ):
            pieces = response.aiter_text()
            await anext(pieces)
            await waiting_is(ledger, engine_url, 1)
        await waiting_is(ledger, engine_url, 0)
    assert len(order.seen) == 1
    assert (await Ledger(ledger._redis).budget(str(bob.user.id))).tokens_per_day == 0
    assert len(await box.usage(1)) == 1


async def _crashes(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"error": {"message": "Traceback …", "code": 500}}, status=500)


async def test_an_engine_that_fails_after_the_waiting_is_told_in_the_stream(
    box: Box, ann: Person, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """The status was sent long ago; the error object is the only event."""
    async with held(box, order, ann):
        order.behaviour = _crashes
        asking = asyncio.create_task(_asked(box, ann))
        await waiting_is(ledger, engine_url, 1)
        await box.clock.sleep_ms(60)  # so that it was told
        order.hold.set()
        answer = await asking
    assert answer.status_code == 200
    assert last_event(answer.text)["error"]["code"] == "engine_failed"
    assert answer.text.count("data:") == 1


async def test_who_does_not_stream_waits_in_silence(box: Box, ann: Person, order: Order) -> None:
    """A body in one piece has no comments, and its headers tell how long it waited."""
    async with held(box, order, ann):
        asking = asyncio.create_task(_asked(box, ann, stream=False))
        await box.clock.sleep_ms(100)  # longer than two rounds of telling
        order.hold.set()
        answer = await asking
    assert answer.json()["choices"][0]["message"]["content"] == " word0 word1 word2"
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["x-wirthforge-queue-ms"]) > 0
