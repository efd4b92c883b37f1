"""Several engines for one model: the one with the least wait is asked, and one that fails is left."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
POLL_MS = 10
# What the stand-in reports.
USED = 7 + 3


class Two:
    """A box with two engines, `a` and `b`, and what each of them does."""

    def __init__(self, box: Box, ann: Person, a: Order, b: Order) -> None:
        self.box, self.ann, self.a, self.b = box, ann, a, b

    async def ask(self, **body: Any) -> httpx.Response:
        """One request."""
        async with self.box.http(headers=self.ann.bearer) as client:
            return await client.post(PATH, json=CHAT | body)

    async def leaves_nothing(self) -> None:
        """No slot is held, on either engine."""
        for name in ("a", "b"):
            while sum(await self.box.ledger.load(name)):
                await self.box.clock.sleep_ms(POLL_MS)


@pytest.fixture
async def two(make_box: MakeBox, settings: Settings) -> AsyncIterator[Two]:
    """Both serve the same model, one request at a time."""
    a, b = Order(), Order()
    async with openai_engine.serve(a) as url_a, openai_engine.serve(b) as url_b:
        engines = (f"a={url_a}", f"b={url_b}")
        box = await make_box(replace(settings, engines=engines, engine_slots=1, engine_silence_ms_max=60_000))
        yield Two(box, await box.person("ann"), a, b)


async def refuse(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine in trouble."""
    return web.Response(status=500, text="out of memory")


async def drop(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine that dies when it has promised an answer, before there is anything of it."""
    response = await event_stream(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def drop_after_a_token(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine that dies in the middle of its answer."""
    response = await event_stream(request)
    await response.write(event({"content": "one"}))
    assert request.transport is not None
    request.transport.close()
    return response


async def test_the_engine_with_the_least_wait_is_asked(two: Two) -> None:
    """While one is busy the other is asked; nobody waits as long as one is free."""
    for order in (two.a, two.b):
        order.hold.clear()
    first = asyncio.create_task(two.ask())
    await two.a.began.wait()
    second = asyncio.create_task(two.ask())
    await two.b.began.wait()
    for order in (two.a, two.b):
        order.hold.set()
    engines = [(await task).headers["x-wirthforge-engine"] for task in (first, second)]
    assert engines == ["a", "b"]


@pytest.mark.parametrize("behaviour", [refuse, drop])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_one_that_fails_before_the_first_token_is_left_for_the_other(
    two: Two, behaviour: openai_engine.Behaviour, is_stream: bool
) -> None:
    """The request is answered once, with one usage row and what it used in the budget, and nothing stays behind."""
    two.a.behaviour = behaviour
    await two.box.allow(two.ann, tokens_per_day=1_000, requests_per_minute=100)
    answer = await two.ask(stream=is_stream, max_tokens=50)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wirthforge-engine"] == "b"
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    assert (len(two.a.seen), len(two.b.seen)) == (1, 1)
    (row,) = await two.box.usage(1)
    assert (row.engine, row.outcome, row.input_tokens, row.output_tokens) == ("b", "completed", 7, 3)
    after = await two.ask(max_tokens=50)
    assert int(after.headers["x-ratelimit-remaining-tokens"]) == 1_000 - USED - 1 - 50
    assert len(await two.box.usage(2)) == 2
    await two.leaves_nothing()


async def test_one_that_fails_after_the_first_token_is_not_left(two: Two) -> None:
    """The answer ends with an error object, and what was streamed is settled; nobody is asked again."""
    two.a.behaviour = drop_after_a_token
    answer = await two.ask(stream=True)
    assert '"one"' in answer.text
    assert '"error"' in answer.text
    (row,) = await two.box.usage(1)
    assert (row.engine, row.outcome, row.output_tokens) == ("a", "failed", 1)
    assert two.b.seen == []
    await two.leaves_nothing()


@pytest.mark.parametrize(("status", "told"), [(400, 400), (422, 400), (404, 404)])
async def test_what_is_wrong_with_the_request_is_not_asked_again(two: Two, status: int, told: int) -> None:
    """Another engine would say the same; and it is no fault of the engine's."""

    async def blame(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": "Too hot."}}, status=status)

    two.a.behaviour = blame
    for _ in range(4):
        assert (await two.ask()).status_code == told
    assert (len(two.a.seen), two.b.seen) == (4, [])


async def test_both_fail(two: Two) -> None:
    """Each is asked once, and the fault is told."""
    two.a.behaviour = two.b.behaviour = refuse
    answer = await two.ask()
    assert answer.status_code == 502
    assert (len(two.a.seen), len(two.b.seen)) == (1, 1)
    (row,) = await two.box.usage(1)
    assert (row.outcome, row.output_tokens) == ("failed", 0)
    await two.leaves_nothing()


async def test_an_engine_that_fails_rests_and_is_tried_again(two: Two) -> None:
    """After three failures nobody is sent there; where both rest one is told when to come back, and then served."""
    two.a.behaviour = two.b.behaviour = refuse
    for _ in range(3):
        assert (await two.ask()).status_code == 502
    seen = len(two.a.seen), len(two.b.seen)
    assert seen == (3, 3)
    resting = await two.ask()
    assert (resting.status_code, resting.json()["error"]["code"]) == (503, "engine_resting")
    assert resting.headers["retry-after"] == "1"
    assert (len(two.a.seen), len(two.b.seen)) == seen
    two.a.behaviour = two.b.behaviour = None
    while (answer := await two.ask()).status_code == 503:
        await two.box.clock.sleep_ms(POLL_MS)
    assert answer.status_code == 200
    assert (await two.ask()).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_it_leaves_nothing(two: Two) -> None:
    """While the second engine is asked the client goes: one cancelled row, no slot held, and the budget as before."""
    two.a.behaviour = drop
    two.b.hold.clear()
    await two.box.allow(two.ann, in_flight_max=1)
    task = asyncio.create_task(two.ask())
    await two.b.began.wait()
    task.cancel()
    await two.b.gone.wait()
    (row,) = await two.box.usage(1)
    assert (row.engine, row.outcome) == ("b", "cancelled")
    await two.leaves_nothing()
    two.a.behaviour = None
    two.b.hold.set()
    assert (await two.ask()).status_code == 200


async def test_an_engine_that_stalls_between_tokens_has_failed(
    make_box: MakeBox, settings: Settings, order: Order, engine_url: str
) -> None:
    """Sooner than one that reads a long prompt: silence before the first token may last longer than after it."""
    settings = replace(settings, engines=(engine_url,), engine_silence_ms_max=60_000, engine_stall_ms_max=200)
    box = await make_box(settings)
    ann = await box.person("ann")
    order.held_after = 1
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        stalled = await client.post(PATH, json=CHAT | {"stream": True})
        assert "word0" in stalled.text
        assert "said nothing for 0 s" in stalled.text
        (row,) = await box.usage(1)
        assert (row.outcome, row.output_tokens) == ("failed", 1)
        order.held_after = 0
        waiting = asyncio.create_task(client.post(PATH, json=CHAT))
        await box.clock.sleep_ms(600)
        assert not waiting.done()
        order.hold.set()
        assert (await waiting).status_code == 200
