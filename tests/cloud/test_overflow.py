"""The way around the queue, on a served box: who is answered by a cloud, and who is not."""

import asyncio
import json

import pytest

from tests.cloud.boxes import CHAT, LOOKER, PATH, PROVIDER, Sky
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL as FAR


async def test_a_full_box_and_no_patience_a_cloud_answers(sky: Sky) -> None:
    """Marked in headers and body; in the ledger, in usage and in the month's spending it stands once."""
    async with sky.full():
        answer = await sky.ask()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wirthforge-cloud"] == f"{PROVIDER}/{FAR}; form=whole"
    assert answer.headers["x-wirthforge-engine"] == f"cloud:{PROVIDER}"
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == "Hello from far away"
    assert body["wirthforge"]["cloud"] == {"provider": PROVIDER, "model": FAR, "form": "whole"}
    (sent,) = sky.cloud.bodies
    assert json.loads(sent)["messages"] == CHAT["messages"]
    send, end = await sky.ended()
    assert (send.kind, send.provider, send.model, send.body_bytes) == ("send", PROVIDER, FAR, len(sent))
    assert set(send.detectors) == {"secrets", "structured", "code", "model"}
    # 7 tokens read at 1 and 4 written at 2 millionths each, as the stand-in counts.
    assert (end.outcome, end.input_tokens, end.output_tokens, end.spent_micros) == ("completed", 7, 4, 15)
    assert await sky.spent() == (0, 15)
    row = await sky.usage_of(answer.headers["x-request-id"])
    assert (row.placement, row.engine, row.model, row.cost_micros) == ("cloud", PROVIDER, FAR, 15)
    assert (row.outcome, row.user_id, row.input_tokens, row.output_tokens) == ("completed", sky.ann.user.id, 7, 4)
    assert row.total_ms >= (row.first_token_ms or 0) >= row.queue_ms > 0


async def test_a_stream_says_who_answers_in_its_first_event(sky: Sky) -> None:
    """Its headers have left before that, with its place in the queue."""
    async with sky.full(), sky.asking() as response:
        text = (await response.aread()).decode()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert events[0]["wirthforge"]["cloud"] == {"provider": PROVIDER, "model": FAR, "form": "whole"}
    assert all("wirthforge" not in event for event in events[1:])
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == "Hello from far away"
    assert text.endswith("data: [DONE]\n\n")
    assert ": queue ahead=" in text
    assert ": queue done" in text


async def test_a_slot_is_better_than_a_cloud(sky: Sky) -> None:
    """With room on the box nothing leaves it."""
    answer = await sky.ask()
    assert "x-wirthforge-cloud" not in answer.headers
    assert sky.is_silent
    assert await sky.entries() == []


async def test_a_cloud_takes_no_slot_and_moves_nobody(sky: Sky) -> None:
    """Bob's second request waits, ann's beside it; when she is answered elsewhere his is the next, as it was before."""
    sky.cloud.behaviour = _late
    sky.cloud.hold.clear()
    async with (
        sky.full(),
        sky.box.http(headers=sky.bob.bearer) as client,
        client.stream("POST", PATH, json=CHAT | {"stream": True}) as response,
    ):
        assert response.headers["x-wirthforge-queue-ahead"] == "0"
        asking = asyncio.create_task(sky.ask())
        await sky.waits(2)
        await sky.cloud.began.wait()
        sky.cloud.hold.set()
        assert (await asking).headers["x-wirthforge-engine"] == f"cloud:{PROVIDER}"
        assert len(sky.order.seen) == 1  # nobody has had the slot but bob's first request
        await sky.waits(1)
        sky.order.hold.set()
        text = (await response.aread()).decode()
    assert ": queue ahead=0" in text
    assert text.endswith("data: [DONE]\n\n")
    assert len(sky.order.seen) == 2
    rows = [row for row in await sky.box.usage(4) if row.user_id == sky.ann.user.id and row.model != LOOKER]
    assert [row.placement for row in rows] == ["cloud"]


async def _late(cloud: cloud_provider.Cloud, seen: cloud_provider.Seen, writer: asyncio.StreamWriter) -> None:
    await cloud.hold.wait()
    await cloud_provider.answering(cloud, seen, writer)


async def test_whoever_answers_first_answers(sky: Sky) -> None:
    """A provider that dawdles is hung up on when the slot comes; what it was sent stays in the ledger, and its end."""
    sky.cloud.behaviour = cloud_provider.hanging
    sky.cloud.hold.clear()
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        await sky.cloud.began.wait()
        sky.order.hold.set()
        answer = await asking
    assert "x-wirthforge-cloud" not in answer.headers
    assert answer.headers["x-wirthforge-engine"] == sky.engine_url.split("/")[2]
    await sky.cloud.gone.wait()
    _, end = await sky.ended()
    assert (end.outcome, end.output_tokens) == ("cancelled", None)
    row = await sky.usage_of(answer.headers["x-request-id"])
    assert (row.placement, row.outcome) == ("local", "completed")
    reserved, spent = await sky.spent()
    assert (reserved, spent) == (0, end.spent_micros)


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests", "500 Oops", "307 Elsewhere"])
async def test_a_provider_that_fails_costs_nobody_a_place(sky: Sky, status: str) -> None:
    """The request has kept its place in the queue, and is answered by this box."""
    sky.cloud.behaviour = cloud_provider.refusing(status, Location=sky.cloud.url)
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        _, end = await sky.ended()
        assert (end.outcome, end.spent_micros) == ("failed", 0)
        sky.order.hold.set()
        answer = await asking
    assert answer.status_code == 200
    assert "x-wirthforge-cloud" not in answer.headers
    assert len(sky.cloud.bodies) == 1
    assert await sky.spent() == (0, 0)


async def test_a_box_that_refuses_asks_the_cloud_first(sky: Sky) -> None:
    """A full queue leads to one decision."""
    async with sky.full(), sky.crowded():
        answer = await sky.ask()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wirthforge-cloud"] == f"{PROVIDER}/{FAR}; form=whole"


async def test_a_refusal_says_why_no_cloud_has_answered(sky: Sky) -> None:
    """As long as one is switched on."""
    await sky.ann_says(mode="never")
    async with sky.full(), sky.crowded():
        answer = await sky.ask()
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "queue_full"
        assert "It stays on this box: your own policy" in error["message"]
        assert answer.headers["retry-after"]
        await sky.box_says(is_on=False)
        assert "stays on this box" not in (await sky.ask()).json()["error"]["message"]
    assert sky.is_silent
