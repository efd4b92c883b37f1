"""Quotas as clients meet them: what is refused, what is told, and that nobody gets more than allowed."""

import asyncio
import re
from collections import Counter
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.chat.meter import EVENTS_EMPTY_MAX, TOKENS_PER_EVENT_MAX, TOKENS_UNSEEN_MAX
from server.chat.stream import CHARACTERS_PER_TOKEN, OVERSHOOT_TOKENS_MAX, TEMPLATE_TOKENS_MAX
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.engines.raw_engine import reply, serve_raw
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
# What the stand-in reports, and what we take "hi" for until then.
USED, PROMPT_ESTIMATED = 7 + 3, 1
LIMITS = ("limit-requests", "limit-tokens", "remaining-requests", "remaining-tokens")


@pytest.fixture
async def ann(box: Box) -> Person:
    """Somebody with a key."""
    return await box.person("ann")


@pytest.fixture
def narrow(settings: Settings, engine_url: str) -> Settings:
    """A box with one slot."""
    return replace(settings, engines=(engine_url,), engine_slots=1)


async def asked(box: Box, person: Person, **body: Any) -> httpx.Response:
    """One request."""
    async with box.http(headers=person.bearer) as client:
        return await client.post(PATH, json=CHAT | body)


def expect(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the error; gives it."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, error
    assert error["message"].endswith(".")
    return error


async def early_in_a_minute(box: Box, redis: Redis) -> int:
    """Wait until some seconds of Redis' minute are left; gives how many."""
    while (left := 60 - (await redis.time())[0] % 60) < 8:
        await box.clock.sleep_ms(100)
    return left


def ratelimit(answer: httpx.Response) -> dict[str, int]:
    """What `x-ratelimit-*` says, without the resets."""
    prefix = "x-ratelimit-"
    return {name: int(answer.headers[prefix + name]) for name in LIMITS if prefix + name in answer.headers}


# What is told.


async def test_headers_tell_the_truth(box: Box, ann: Person, redis: Redis) -> None:
    """Remaining is what is left with this request counted; what it did not use is there again afterwards."""
    await box.allow(ann, requests_per_minute=3, tokens_per_day=100)
    left_s = await early_in_a_minute(box, redis)
    first = await asked(box, ann, max_tokens=20)
    assert ratelimit(first) == {
        "limit-requests": 3,
        "limit-tokens": 100,
        "remaining-requests": 2,
        "remaining-tokens": 100 - PROMPT_ESTIMATED - 20,
    }
    reset = re.fullmatch(r"(\d+)s", first.headers["x-ratelimit-reset-requests"])
    assert reset is not None
    assert left_s - 2 <= int(reset[1]) <= left_s
    await box.usage(1)
    second = await asked(box, ann, max_tokens=20, stream=True)
    assert ratelimit(second)["remaining-tokens"] == 100 - USED - PROMPT_ESTIMATED - 20
    assert ratelimit(second)["remaining-requests"] == 1
    await box.usage(2)
    over = await asked(box, ann, max_tokens=80)
    assert ratelimit(over) == {
        "limit-requests": 3,
        "limit-tokens": 100,
        "remaining-requests": 1,
        "remaining-tokens": 100 - 2 * USED,
    }
    expect(over, 429, "rate_limit_exceeded")
    assert over.headers["retry-after"] + "s" == over.headers["x-ratelimit-reset-tokens"]
    # A refused one was not counted, so what is left is enough for what it said.
    assert (await asked(box, ann, max_tokens=80 - PROMPT_ESTIMATED)).status_code == 200
    refused = await asked(box, ann, max_tokens=1)
    expect(refused, 429, "rate_limit_exceeded")
    assert ratelimit(refused)["remaining-requests"] == 0
    assert 1 <= int(refused.headers["retry-after"]) <= left_s
    assert refused.headers["retry-after"] + "s" == refused.headers["x-ratelimit-reset-requests"]


async def test_of_several_token_budgets_the_tightest_is_told(box: Box, ann: Person, redis: Redis) -> None:
    """And the moment in which it is renewed."""
    await box.allow(ann, tokens_per_minute=500, tokens_per_day=90, tokens_per_month=10_000)
    await early_in_a_minute(box, redis)
    answer = await asked(box, ann, max_tokens=9)
    assert ratelimit(answer) == {"limit-tokens": 90, "remaining-tokens": 80}
    seconds = (await redis.time())[0]
    assert abs(int(answer.headers["x-ratelimit-reset-tokens"][:-1]) - (86_400 - seconds % 86_400)) <= 2


async def test_without_limits_nothing_is_told(box: Box, ann: Person) -> None:
    """There is nothing to say, streamed or not, to OpenAI's clients either."""
    for is_stream in (True, False):
        answer = await asked(box, ann, stream=is_stream)
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_openais_client_takes_a_429_for_what_it_is(box: Box, ann: Person) -> None:
    """RateLimitError, with the headers that it reads."""
    await box.allow(ann, tokens_per_day=20)
    async with box.openai(ann) as client:
        await client.chat.completions.create(**CHAT, max_tokens=10)
        await box.usage(1)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**CHAT, max_tokens=19)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["x-ratelimit-remaining-tokens"] == "10"


# Who is refused.


async def test_a_flood_of_one_is_refused_while_another_gets_through(
    make_box: MakeBox, narrow: Settings, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """Beyond one's own queue there is a 429 with a time; the other waits for one answer, not for all of them."""
    box = await make_box(narrow)
    ann, bob = await box.person("ann"), await box.person("bob")
    await box.allow(ann, queue_length_max=3)
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        flood = [asyncio.create_task(client.post(PATH, json=CHAT | {"user": "ann"})) for _ in range(12)]
        refused, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        while len(refused) < 8:
            refused, _ = await asyncio.wait(flood, timeout=0.01)
        asking = asyncio.create_task(asked(box, bob, user="bob"))
        async with asyncio.timeout(5):
            while await ledger.load(engine_url.split("/")[2]) != (1, 4):
                await box.clock.sleep_ms(5)
        order.hold.set()
        assert (await asking).status_code == 200
        await asyncio.wait(flood)
    assert [body["user"] for body in order.seen[:2]] == ["ann", "bob"]
    for each in refused:
        error = expect(each.result(), 429, "queue_limit_exceeded")
        assert error["type"] == "rate_limit_error"
        assert int(each.result().headers["retry-after"]) >= 1
    assert Counter(each.result().status_code for each in flood) == {200: 4, 429: 8}
    assert len(await box.usage(5)) == 5


async def test_keys_of_one_person_share_one_limit(box: Box, ann: Person, redis: Redis) -> None:
    """Another key is no other budget."""
    await box.allow(ann, requests_per_minute=4)
    keys = [(await box.keys.create(ann.user.id, f"key {number}"))[1] for number in range(4)]
    await early_in_a_minute(box, redis)
    answers = await asyncio.gather(*(asked(box, Person(ann.user, key)) for key in keys * 2))
    assert Counter(answer.status_code for answer in answers) == {200: 4, 429: 4}


async def test_budgets_hold_however_many_ask_at_once(box: Box, ann: Person) -> None:
    """Of forty at once as many enter as the day affords; in the end Redis and Postgres agree on what was used."""
    await box.allow(ann, tokens_per_day=150)
    answers = await asyncio.gather(*(asked(box, ann, max_tokens=29, stream=bool(number % 2)) for number in range(40)))
    admitted = [answer for answer in answers if answer.status_code == 200]
    assert 5 <= len(admitted) <= 15
    assert {answer.status_code for answer in answers} == {200, 429}
    rows = await box.usage(len(admitted))
    used = sum(row.input_tokens + row.output_tokens for row in rows)
    assert used == USED * len(admitted) <= 150
    refused = await asked(box, ann, max_tokens=150 - PROMPT_ESTIMATED - used + 1)
    assert ratelimit(refused)["remaining-tokens"] == 150 - used


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_a_model_that_is_not_ones_own_is_forbidden(box: Box, ann: Person, order: Order, path: str) -> None:
    """A 403 that names the field; patterns allow; nothing reaches the engine, and nothing is counted."""
    await box.allow(ann, models=["other-*"], requests_per_minute=1)
    body = {"model": MODEL, "messages": CHAT["messages"], "prompt": "hi", "input": "hi"}
    async with box.http(headers=ann.bearer) as client:
        for _ in range(3):
            error = expect(await client.post(path, json=body), 403, "model_not_allowed")
            assert (error["param"], error["type"]) == ("model", "permission_error")
        assert order.seen == []
        await box.allow(ann, models=["stand-*"], requests_per_minute=1)
        assert (await client.post(path, json=body)).status_code == 200


async def test_a_model_that_is_not_ones_own_is_not_listed(box: Box, ann: Person) -> None:
    """Nor found by its name; another person still sees it."""
    await box.allow(ann, models=["other-*"])
    other = await box.person("sees-all")
    async with box.http() as client:
        for person, names in ((ann, []), (other, [MODEL, "council:self"])):
            listed = (await client.get("/v1/models", headers=person.bearer)).json()["data"]
            assert [model["id"] for model in listed] == names
            status = (await client.get(f"/v1/models/{MODEL}", headers=person.bearer)).status_code
            assert status == (200 if names else 404)


async def test_an_answer_longer_than_the_context_is_refused(make_box: MakeBox, settings: Settings) -> None:
    """As OpenAI does, with the numbers; a prompt that cannot fit likewise."""
    async with serve_raw(models=[reply(b'{"data":[{"id":"raw","max_model_len":100}]}')]) as raw:
        box = await make_box(replace(settings, engines=(raw.url,)))
        ann = await box.person("ann")
        for name in ("max_tokens", "max_completion_tokens"):
            error = expect(await asked(box, ann, model="raw", **{name: 101}), 400, "context_length_exceeded")
            assert error["param"] == "max_tokens"
            assert "101" in error["message"]
            assert "100" in error["message"]
        long = [{"role": "user", "content": "a" * 2_000}]
        expect(await asked(box, ann, model="raw", messages=long), 400, "context_length_exceeded")
        assert "/v1/chat/completions" not in raw.paths()


async def test_a_request_larger_than_the_quota_is_refused_for_good(box: Box, ann: Person) -> None:
    """A 400, since coming again does not help; also where a person's requests have a size of their own."""
    await box.allow(ann, tokens_per_day=50)
    answer = await asked(box, ann, max_tokens=60)
    expect(answer, 400, "request_exceeds_quota")
    assert "retry-after" not in answer.headers
    await box.allow(ann, context_tokens_max=10)
    expect(await asked(box, ann, messages=[{"role": "user", "content": "a" * 44}]), 400, "context_limit_exceeded")


# How long answers may be.


TOLD: list[tuple[dict[str, int], dict[str, int], int | None]] = [
    ({}, {}, None),
    ({}, {"max_tokens": 50}, 50),
    ({"weight": 300}, {}, None),
    ({"context_tokens_max": 21}, {}, 20),
    ({"context_tokens_max": 21}, {"max_tokens": 50}, 20),
    ({"tokens_per_month": 1_000}, {"max_tokens": 50}, 50),
    ({"tokens_per_month": 1_000}, {"max_tokens": 50, "n": 2}, 50),
    ({"tokens_per_month": 1_000}, {}, 1_000 - 7 * USED - PROMPT_ESTIMATED),
]


async def test_engines_are_told_how_much_may_be_written(box: Box, ann: Person, order: Order) -> None:
    """Where a limit binds, the engine gets it as max_tokens; where none does, what the client said."""
    for number, (rule, body, told) in enumerate(TOLD):
        await box.allow(ann, **rule)
        assert (await asked(box, ann, **body)).status_code == 200
        assert order.seen[-1].get("max_tokens") == told
        await box.usage(number + 1)


async def test_the_name_that_a_client_used_is_kept(box: Box, ann: Person, order: Order) -> None:
    """Of OpenAI's two names for the length, engines get the one that came, with what may be charged."""
    await box.allow(ann, context_tokens_max=21)
    await asked(box, ann, max_completion_tokens=50)
    assert order.seen[0]["max_completion_tokens"] == 20


async def _endless(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    while True:
        await response.write(event({"content": " more"}))
        await asyncio.wait([asyncio.ensure_future(response.drain())])


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_engine_that_does_not_stop_is_stopped(box: Box, ann: Person, order: Order, is_stream: bool) -> None:
    """At the end of what the budget affords it is let go; what was streamed is charged, and the client told."""
    await box.allow(ann, tokens_per_day=200)
    order.behaviour = _endless
    async with asyncio.timeout(10):
        answer = await asked(box, ann, stream=is_stream, max_tokens=100)
        await order.gone.wait()
    assert answer.status_code == (200 if is_stream else 502)
    assert '"engine_overran"' in answer.text
    (row,) = await box.usage(1)
    assert row.outcome == "failed"
    assert row.output_tokens > 100 + OVERSHOOT_TOKENS_MAX
    assert not is_stream or answer.text.count(" more") == row.output_tokens
    left = 200 - row.input_tokens - row.output_tokens
    over = await asked(box, ann, max_tokens=100)
    assert ratelimit(over)["remaining-tokens"] == max(left, 0)


async def test_an_engine_that_does_not_stop_is_not_ours_to_stop_without_a_budget(
    box: Box, ann: Person, order: Order
) -> None:
    """Who may write without end does."""
    order.tokens = 500
    assert (await asked(box, ann, stream=True, max_tokens=3)).text.count(" word") == 500


# What engines claim.

CLAIMS: list[Any] = [10**9, 1 << 70, 0, -1, -(10**9), "7", "many", None, True, 1.5, [], {}]


async def test_what_engines_claim_is_believed_as_far_as_it_was_seen(box: Box, ann: Person, order: Order) -> None:
    """Absurd counts charge nobody for what was not streamed, and let nobody write for nothing."""
    await box.allow(ann, tokens_per_day=10**6)
    order.tokens = 20
    used = 0
    for number, claim in enumerate(CLAIMS):
        usage: dict[str, Any] = {"prompt_tokens": claim, "completion_tokens": claim}
        order.usage = usage | {"prompt_tokens_details": {"cached_tokens": claim}}
        for is_stream in (True, False):
            answer = await asked(box, ann, stream=is_stream, max_tokens=20)
            assert (answer.status_code, answer.text.count("word19"), answer.text.count("error")) == (200, 1, 0)
        for row in (await box.usage(2 * number + 2))[2 * number :]:
            assert row.outcome == "completed"
            assert 0 <= row.input_tokens <= PROMPT_ESTIMATED * CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS_MAX
            assert 20 - EVENTS_EMPTY_MAX <= row.output_tokens <= 20 * TOKENS_PER_EVENT_MAX + TOKENS_UNSEEN_MAX
            if not isinstance(claim, int) or isinstance(claim, bool) or not 0 <= claim < 1 << 31:
                assert (row.input_tokens, row.output_tokens) == (PROMPT_ESTIMATED, 20)
            used += row.input_tokens + row.output_tokens
    over = await asked(box, ann, max_tokens=10**6 - PROMPT_ESTIMATED)
    assert ratelimit(over)["remaining-tokens"] == 10**6 - used


# Shares.


async def test_weights_hold_from_end_to_end(
    make_box: MakeBox, narrow: Settings, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """Of two who have many waiting, one with three times the weight is served three times as often."""
    box = await make_box(narrow)
    ann, bob, cid = [await box.person(name) for name in ("ann", "bob", "cid")]
    await box.allow(ann, weight=300)
    order.hold.clear()
    async with asyncio.timeout(20):
        holding = asyncio.create_task(asked(box, cid))
        await order.began.wait()
        asking = [asyncio.create_task(asked(box, who, user=who.user.name)) for who in (bob, ann) for _ in range(16)]
        while await ledger.load(engine_url.split("/")[2]) != (1, 32):
            await box.clock.sleep_ms(5)
        order.hold.set()
        assert {(await each).status_code for each in (holding, *asking)} == {200}
    served = Counter(body["user"] for body in order.seen[1:21])
    assert 14 <= served["ann"] <= 16, served


async def test_in_flight_limits_hold_from_end_to_end(box: Box, ann: Person, order: Order) -> None:
    """More wait, and are served one after the other."""
    await box.allow(ann, in_flight_max=1)
    answers = await asyncio.gather(*(asked(box, ann, stream=True) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert order.running_max == 1


# Changes.


async def test_a_change_holds_from_the_next_request_on_every_box(
    make_box: MakeBox, settings: Settings, engine_url: str, redis: Redis
) -> None:
    """Set at one, it is in force at the other at once, in either direction."""
    shared = replace(settings, engines=(engine_url,))
    one, two = await make_box(shared), await make_box(shared)
    ann = await one.person("ann")
    await early_in_a_minute(one, redis)
    for box in (one, two):
        assert (await asked(box, ann)).status_code == 200
    await one.allow(ann, requests_per_minute=2)
    for box in (two, one):
        expect(await asked(box, ann), 429, "rate_limit_exceeded")
    await two.allow(ann, requests_per_minute=3)
    assert (await asked(one, ann)).status_code == 200
    expect(await asked(two, ann), 429, "rate_limit_exceeded")
    await one.allow(ann, models=[])
    expect(await asked(two, ann), 403, "model_not_allowed")
    await two.allow(models=[])
    await two.allow(ann, models=None)
    assert (await asked(one, ann)).status_code == 200
    expect(await asked(one, await one.person("bob")), 403, "model_not_allowed")


async def test_a_change_while_somebody_asks_is_never_missed(box: Box, ann: Person) -> None:
    """Requests that meet a change are admitted under the old rule or the new one, and none fails."""

    async def change() -> None:
        for number in range(6):
            await box.allow(ann, weight=100 + number)

    changing = asyncio.create_task(change())
    answers = []
    while not changing.done():
        answers += await asyncio.gather(*(asked(box, ann) for _ in range(4)))
    await changing
    assert {answer.status_code for answer in answers} == {200}


# Requests that may be stopped.


async def _silent(order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    await order.hold.wait()
    return await event_stream(request)


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_flexible_request_gives_way(
    make_box: MakeBox, narrow: Settings, order: Order, is_stream: bool, has_begun: bool
) -> None:
    """With `service_tier: flex` a request is stopped for somebody who waits, told so, and charged for what it had."""
    box = await make_box(narrow)
    ann, bob = await box.person("ann"), await box.person("bob")
    await box.allow(ann, tokens_per_day=100)
    order.tokens, order.held_after = 9, 3
    order.behaviour = None if has_begun else _silent
    order.hold.clear()
    flexible = asyncio.create_task(asked(box, ann, stream=is_stream, service_tier="flex", max_tokens=50))
    await order.began.wait()
    order.behaviour = None
    waits = asyncio.create_task(asked(box, bob))
    async with asyncio.timeout(5):
        await order.gone.wait()
        answer = await flexible
        order.hold.set()
        assert (await waits).status_code == 200
    assert '"revoked"' in answer.text
    assert answer.status_code == (200 if is_stream and has_begun else 503)
    assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
    rows = {row.user_id: row for row in await box.usage(2)}
    assert (rows[ann.user.id].outcome, rows[bob.user.id].outcome) == ("revoked", "completed")
    assert rows[ann.user.id].output_tokens == (3 if has_begun else 0)
    assert all("service_tier" not in body for body in order.seen)


async def test_other_requests_do_not_give_way(
    make_box: MakeBox, narrow: Settings, order: Order, ledger: Ledger, engine_url: str
) -> None:
    """Whoever waits waits for their end; no tier is passed on to the engine."""
    box = await make_box(narrow)
    ann, bob = await box.person("ann"), await box.person("bob")
    for tier in ("auto", "priority", None):
        order.hold.clear()
        order.began.clear()
        firm = asyncio.create_task(asked(box, ann, service_tier=tier))
        await order.began.wait()
        waits = asyncio.create_task(asked(box, bob))
        async with asyncio.timeout(5):
            while await ledger.load(engine_url.split("/")[2]) != (1, 1):
                await box.clock.sleep_ms(5)
        order.hold.set()
        assert [(await each).status_code for each in (firm, waits)] == [200, 200]
    assert not order.gone.is_set()
    assert all("service_tier" not in body for body in order.seen)
