"""What never leaves: on a served box that is full, with a provider that records every byte and has seen none."""

import asyncio
import gc
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from types import AsyncGeneratorType, BuiltinFunctionType, CoroutineType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from server.chat.pipeline import Pipeline
from server.cloud.overflow import Overflow
from server.usage.invariants import LedgerCheck
from tests.cloud.boxes import LOOKER, PROVIDER, Sky
from tests.cloud.worlds import World, world_of
from tests.conversations.conftest import said
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL as FAR
from tests.stand_ins.cloud_provider import Cloud

SECRET = "AKIAIOSFODNN7EXAMPLX and aws_secret_access_key = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEX'"
CODE = "```python\nimport os\n\ndef main():\n    return os.environ\n```"


def _asked(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


async def _nothing(_: Sky) -> None:
    pass


async def _never(sky: Sky) -> None:
    await sky.ann_says(mode="never")


async def _capped(sky: Sky) -> None:
    await sky.put(f"/api/admin/cloud/caps/{sky.ann.user.id}", sky.admin, {"mode": "never"})


async def _no_budget(sky: Sky) -> None:
    await sky.box.allow(sky.ann, cloud_cents_per_month=0)


async def _no_detector(sky: Sky) -> None:
    await sky.box_says(is_on=True)


async def _late_detector(sky: Sky) -> None:
    sky.looker.hold.clear()
    await sky.box_says(is_on=True, detection_model=LOOKER, detection_ms=1_500)


async def _blind_detector(sky: Sky) -> None:
    sky.looker.behaviour = None  # says words, and no JSON


Prepare = Callable[[Sky], Awaitable[None]]
STAYS: dict[str, tuple[Prepare, dict[str, Any], dict[str, str], str]] = {
    "never": (_never, {}, {}, "your own policy"),
    "capped": (_capped, {}, {}, "an admin"),
    "by header": (_nothing, {}, {"x-wirthforge-cloud": "never"}, "the request itself"),
    "by body": (_nothing, {"wirthforge": {"cloud": "never"}}, {}, "the request itself"),
    "private": (_nothing, {"wirthforge": {"cloud": "allow"}}, {"x-wirthforge-cloud": "private"}, ""),
    "a secret": (_nothing, _asked(SECRET), {}, "What holds a secret never leaves"),
    "code": (_nothing, _asked(CODE), {}, "program code"),
    "personal data": (_nothing, _asked("Write to Jane Doe."), {}, "a person's name"),
    "in the history": (
        _nothing,
        {"messages": [{"role": "system", "content": "You help Jane Doe."}, {"role": "user", "content": "Hello?"}]},
        {},
        "a person's name",
    ),
    "no budget": (_no_budget, {}, {}, "you have no budget"),
    "no detector": (_no_detector, {}, {}, "No detection model is set"),
    "a late detector": (_late_detector, {}, {}, "nobody can be sure"),
    "a blind detector": (_blind_detector, {}, {}, "nobody can be sure"),
    "several answers of a flexible one": (_nothing, {"service_tier": "flex"}, {}, "members of councils"),
}


@pytest.mark.parametrize("why", STAYS)
async def test_what_may_not_leave_sends_no_byte(sky: Sky, why: str) -> None:
    """The box refuses, the refusal says why no cloud has answered, and nobody has even connected to the provider."""
    prepare, body, headers, sentence = STAYS[why]
    await prepare(sky)
    async with sky.full(), sky.crowded():
        answer = await sky.ask(headers=headers, **body)
        sky.looker.hold.set()
    assert answer.status_code == 503, answer.text
    message = answer.json()["error"]["message"]
    assert sentence in message, message
    assert ("stays on this box" in message) == bool(sentence)
    assert sky.is_silent
    assert await sky.entries() == []
    assert await sky.spent() == (0, 0)


async def test_what_is_no_word_of_ours_is_refused(sky: Sky) -> None:
    """A wish that nobody understands is not taken for one that lets more."""
    answers = [
        await sky.ask(headers={"x-wirthforge-cloud": "sometimes"}),
        await sky.ask(wirthforge={"cloud": "sometimes"}),
        await sky.ask(wirthforge={"cloud_events": "yes"}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert [answer.json()["error"]["param"] for answer in answers] == [
        "x-wirthforge-cloud",
        "wirthforge.cloud",
        "wirthforge.cloud_events",
    ]


async def test_no_engine_gets_our_own_words(sky: Sky) -> None:
    """They are taken out of the body."""
    await sky.ask(wirthforge={"cloud": "allow", "cloud_events": True, "other": 1})
    assert sky.order.seen[-1]["wirthforge"] == {"other": 1}
    await sky.ask(wirthforge={"cloud": "never"})
    assert "wirthforge" not in sky.order.seen[-1]


async def test_a_private_conversation_stays(sky: Sky) -> None:
    """Also where everything is allowed; its answer waits for the box."""
    async with sky.box.http(headers=sky.ann.bearer) as client:
        ann = sky.writer(client)
        conversation = await ann.begin(cloud="private")
        assert (await ann.read(conversation))["cloud"] == "private"
        async with sky.full(), ann.asking(conversation, "Why?") as events:
            await events.until(": queue ahead=0")
            sky.order.hold.set()
            assert said(await events.rest()) == " word0 word1 word2"
    assert sky.is_silent
    assert sky.looker.seen == []


async def test_a_conversation_is_answered_by_a_cloud_and_says_so(sky: Sky) -> None:
    """In the stream, and ever after; also when the box reads its row."""
    async with sky.box.http(headers=sky.ann.bearer) as client:
        ann = sky.writer(client)
        conversation = await ann.begin()
        async with sky.full():
            events = await ann.ask(conversation, "Why is the sky blue?")
        assert said(events) == "Hello from far away"
        await ann.settled()
        read = await ann.read(conversation)
        assert [message["cloud"] for message in read["messages"]] == [
            None,
            {"provider": PROVIDER, "model": FAR, "form": "whole", "unrestored": []},
        ]
        changed = await client.patch(f"/api/conversations/{conversation}", json={"cloud": "never"})
        assert changed.json()["cloud"] == "never"
        assert (await client.patch(f"/api/conversations/{conversation}", json={"title": "x"})).json()[
            "cloud"
        ] == "never"
        assert (await client.patch(f"/api/conversations/{conversation}", json={"cloud": None})).json()["cloud"] is None
        assert (await client.patch(f"/api/conversations/{conversation}", json={"cloud": "x"})).status_code == 400
    send, _ = await sky.ended()
    assert str(send.conversation_id) == conversation


async def test_names_leave_as_pseudonyms_and_come_back(sky: Sky) -> None:
    """The provider echoes what it was told; the person reads the real name, and so does the row."""
    await sky.ann_says(mode="pseudonymised", patience_ms=0)
    sky.cloud.behaviour = cloud_provider.echoing
    async with sky.box.http(headers=sky.ann.bearer) as client:
        ann = sky.writer(client)
        conversation = await ann.begin()
        async with sky.full():
            events = await ann.ask(conversation, "Write to Jane Doe about the garden.")
        assert said(events) == "Write to Jane Doe about the garden."
        await ann.settled()
        answer = (await ann.read(conversation))["messages"][-1]
    assert answer["content"] == "Write to Jane Doe about the garden."
    assert answer["cloud"]["form"] == "pseudonymised"
    assert b"Jane" not in sky.cloud.received
    assert b"Doe" not in sky.cloud.received
    send, _ = await sky.ended()
    assert (send.form, send.findings) == ("pseudonymised", {"PERSON": 1})
    assert send.sha256 == hashlib.sha256(sky.cloud.bodies[0]).digest()


async def test_a_client_that_leaves_ends_it(sky: Sky) -> None:
    """The connection is closed, the ledger says cancelled, and what was received is paid for."""
    sky.cloud.hold.clear()
    sky.cloud.held_after = 2
    async with sky.full(), sky.asking() as response:
        request_id = response.headers["x-request-id"]
        lines = response.aiter_lines()
        while "from" not in await anext(lines):
            pass
        await response.aclose()
        await sky.cloud.gone.wait()
        send, end = await sky.ended()
    assert end.outcome == "cancelled"
    read = -(-send.body_bytes // 4)
    assert end.spent_micros == read + 2 * 2  # two words, at two millionths each
    assert await sky.spent() == (0, end.spent_micros)
    row = await sky.usage_of(request_id)
    assert (row.placement, row.outcome, row.output_tokens) == ("cloud", "cancelled", 2)


async def test_a_provider_that_breaks_off_is_told_and_paid(sky: Sky) -> None:
    """What has begun cannot be had from elsewhere: the stream ends with an error, and its row says failed."""
    sky.cloud.behaviour = cloud_provider.breaking_off(2)
    async with sky.full(), sky.asking() as response:
        request_id = response.headers["x-request-id"]
        text = (await response.aread()).decode()
    assert "Hello from" in text.replace('"}, "finish_reason": null}]}', "") or '"content":"Hello"' in text
    assert json.loads(text.rstrip().rpartition("data: ")[2])["error"]["code"]
    _, end = await sky.ended()
    assert end.outcome == "broken_off"
    row = await sky.usage_of(request_id)
    assert (row.placement, row.outcome) == ("cloud", "failed")
    assert await sky.spent() == (0, end.spent_micros)


async def test_budgets_of_tokens_do_not_know_of_clouds(sky: Sky) -> None:
    """So the check of the ledger leaves their rows out, and all is well."""
    async with sky.full():
        answer = await sky.ask()
    await sky.usage_of(answer.headers["x-request-id"])
    await sky.box.usage(3)
    verdict = await LedgerCheck(sky.box.ledger, sky.box.database, sky.box.clock).run()
    assert verdict.broken == []
    async with sky.box.http(headers=sky.ann.bearer) as client:
        report = (await client.get("/api/usage/report", params={"by": "placement"})).json()
    rows = {row["placement"]: row for row in report["rows"]}
    assert rows["cloud"]["requests"] == 1
    assert float(rows["cloud"]["cost"]) == pytest.approx(15e-6)


# What is under way in the event loop, and loggers, are the whole process': from there everything can be reached.
WORLDS = (
    logging.Logger,
    logging.Manager,
    asyncio.AbstractEventLoop,
    asyncio.Future,
    asyncio.Handle,
    CoroutineType,
    FrameType,
    AsyncGeneratorType,
)


def _reachable(*roots: object) -> Iterator[object]:
    """Everything that can be reached from these: attributes, items, closures, defaults; no modules, no classes."""
    seen: dict[int, object] = {}
    left: list[object] = list(roots)
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, (ModuleType, type, BuiltinFunctionType, *WORLDS)):
            continue
        seen[id(each)] = each  # kept, so that no other object gets its id
        yield each
        if isinstance(each, FunctionType):
            left += [*(each.__closure__ or ()), *(each.__defaults__ or ())]
        else:
            left += gc.get_referents(each)


def _of_a_cloud(each: object) -> bool:
    return type(each).__module__.startswith(("server.cloud", "server.privacy"))


async def test_from_a_private_request_no_cloud_can_be_reached(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor from any while the cloud is off: what the pipeline is handed, and the pipeline itself, hold nothing of it."""
    handed: list[tuple[object, ...]] = []
    real = Pipeline.answer

    async def answer(self: Pipeline, request: Any, identify: Any, stack: Any, tell: Any = None) -> Any:
        handed.append((self, request, tell))
        return await real(self, request, identify, stack, tell)

    monkeypatch.setattr(Pipeline, "answer", answer)
    await sky.ask(wirthforge={"cloud": "private"}, stream=False)
    assert [each for each in _reachable(*handed.pop()) if _of_a_cloud(each)] == []
    await sky.ask()
    assert any(isinstance(each, Overflow) or _of_a_cloud(each) for each in _reachable(*handed.pop()))
    await sky.box_says()
    await sky.ask()
    assert [each for each in _reachable(*handed.pop()) if _of_a_cloud(each)] == []


async def test_the_walk_finds_what_is_there(settings: Any, cloud: Cloud) -> None:
    """From the way around the queue it finds the providers; so where it finds none, there are none."""
    async with world_of(settings, cloud) as world:
        assert isinstance(world, World)
        assert any(_of_a_cloud(each) for each in _reachable(world.joined.way))
        assert not any(_of_a_cloud(each) for each in _reachable(world.plain))
