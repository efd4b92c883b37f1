"""Being asked before something leaves: in a stream, over the web, and as an API client that is refused."""

import asyncio
import hashlib
import json
from typing import Any

import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import POLL_MS, Person
from tests.cloud.boxes import CHAT, PROVIDER, Sky
from tests.conftest import MakeBox
from tests.conversations.conftest import said
from tests.stand_ins.cloud_provider import MODEL as FAR

TOKEN = "x-wirthforge-cloud-consent"


@pytest.fixture
async def sky(sky: Sky) -> Sky:
    """A box on which ann wants to be asked."""
    await sky.ann_says(mode="ask", patience_ms=0)
    return sky


async def _open(sky: Sky, person: Person | None = None) -> list[Any]:
    async with sky.box.http(headers=(person or sky.ann).bearer) as client:
        return list((await client.get("/api/cloud/consents")).json())


async def _asked(sky: Sky) -> Any:
    """The one question that is open, as soon as there is one."""
    async with asyncio.timeout(10):
        while not (found := await _open(sky)):
            await sky.box.clock.sleep_ms(POLL_MS)
    (question,) = found
    return question


async def _answer(sky: Sky, token: str, answer: str, person: Person | None = None) -> Any:
    async with sky.box.http(headers=(person or sky.ann).bearer) as client:
        return await client.post(f"/api/cloud/consents/{token}", json={"answer": answer})


async def test_whoever_waits_is_asked_and_says_yes(sky: Sky) -> None:
    """They see the exact body; with yes it leaves the queue, and goes, once."""
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        question = await _asked(sky)
        assert (question["provider"], question["model"], question["given"]) == (PROVIDER, FAR, False)
        assert json.loads(question["body"])["messages"] == CHAT["messages"]
        assert question["body_bytes"] == len(question["body"].encode())
        assert sky.is_silent
        most = question["reserved_micros"]
        assert (await _answer(sky, question["token"], "yes")).status_code == 204
        answer = await asking
    assert answer.headers["x-wirthforge-cloud"] == f"{PROVIDER}/{FAR}; form=whole"
    assert sky.cloud.bodies == [question["body"].encode()]
    send, _ = await sky.ended()
    assert send.consent_id == hashlib.sha256(question["token"].encode()).digest()
    assert send.reserved_micros == most > 0
    assert await _open(sky) == []
    late = await _answer(sky, question["token"], "no")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "consent_used")


async def test_a_yes_through_another_server_counts(sky: Sky, make_box: MakeBox, settings: Settings) -> None:
    """It lists the question without the body, which is where the request waits, and takes the answer."""
    elsewhere = await make_box(replace(settings, engines=(sky.engine_url,), engine_slots=1))
    async with sky.full(), elsewhere.http(headers=sky.ann.bearer) as client:
        asking = asyncio.create_task(sky.ask())
        here = await _asked(sky)
        (there,) = (await client.get("/api/cloud/consents")).json()
        assert (there["request_id"], there["body"]) == (here["request_id"], None)
        assert sky.is_silent
        answered = await client.post(f"/api/cloud/consents/{there['token']}", json={"answer": "yes"})
        assert answered.status_code == 204
        answer = await asking
    assert answer.headers["x-wirthforge-cloud"] == f"{PROVIDER}/{FAR}; form=whole"
    assert sky.cloud.bodies == [here["body"].encode()]


async def test_whoever_says_no_waits_on(sky: Sky) -> None:
    """The place in the queue was kept; no is final, and nothing has left."""
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        question = await _asked(sky)
        await _answer(sky, question["token"], "no")
        assert (await _answer(sky, question["token"], "yes")).status_code == 409
        sky.order.hold.set()
        answer = await asking
    assert answer.headers["x-wirthforge-engine"] == sky.engine_url.split("/")[2]
    assert sky.is_silent


async def test_nobody_answers_for_others(sky: Sky) -> None:
    """Nor sees what they are asked."""
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        question = await _asked(sky)
        assert await _open(sky, sky.bob) == []
        assert (await _answer(sky, question["token"], "yes", sky.bob)).status_code == 404
        assert (await _answer(sky, question["token"], "yes", sky.admin)).status_code == 404
        assert (await _answer(sky, "00" * 32, "yes")).status_code == 404
        sky.order.hold.set()
        await asking
    assert sky.is_silent


async def test_a_conversation_is_asked_in_its_stream(sky: Sky) -> None:
    """A client that takes events gets one with the token, and one when the question is over."""
    async with sky.box.http(headers=sky.ann.bearer) as client:
        ann = sky.writer(client)
        conversation = await ann.begin()
        async with sky.full(), ann.asking(conversation, "Why?", wirthforge={"cloud_events": True}) as events:
            told = (await events.until('"asks"'))[-1]["wirthforge"]["cloud"]["asks"]
            assert (told["provider"], told["model"]) == (PROVIDER, FAR)
            assert told["wait_s"] >= 0
            await _answer(sky, told["token"], "yes")
            rest = await events.rest()
        assert {"wirthforge": {"cloud": {"asks": None}}} in rest
        assert said(rest) == "Hello from far away"
        await ann.settled()
        assert (await ann.read(conversation))["messages"][-1]["cloud"]["provider"] == PROVIDER


async def test_a_question_is_over_when_the_box_answers(sky: Sky) -> None:
    """The client that shows it hears so before the answer."""
    async with sky.box.http(headers=sky.ann.bearer) as client:
        ann = sky.writer(client)
        conversation = await ann.begin()
        async with sky.full(), ann.asking(conversation, "Why?", wirthforge={"cloud_events": True}) as events:
            await events.until('"asks"')
            sky.order.hold.set()
            rest = await events.rest()
        assert {"wirthforge": {"cloud": {"asks": None}}} in rest
        assert said(rest) == " word0 word1 word2"
        await ann.settled()
        assert (await ann.read(conversation))["messages"][-1]["cloud"] is None
    assert sky.is_silent


async def test_an_api_client_that_is_refused_can_say_yes(sky: Sky) -> None:
    """409 with the exact body; the same request with the token goes; any other is asked again; the token works once."""
    async with sky.full(), sky.crowded():
        refused = await sky.ask()
        assert refused.status_code == 409
        error = refused.json()["error"]
        assert error["code"] == "cloud_consent_required"
        assert TOKEN in error["message"]
        asks = error["wirthforge"]["cloud"]
        assert json.loads(asks["body"])["messages"] == CHAT["messages"]
        assert sky.is_silent
        messages = [{"role": "user", "content": "Something else."}]
        other = await sky.ask(headers={TOKEN: asks["token"]}, messages=messages)
        assert other.status_code == 409
        assert other.json()["error"]["wirthforge"]["cloud"]["token"] != asks["token"]
        assert (await sky.ask(headers={TOKEN: "made up"})).status_code == 409
        assert sky.is_silent
        answer = await sky.ask(headers={TOKEN: asks["token"]})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-wirthforge-engine"] == f"cloud:{PROVIDER}"
        assert (await sky.ask(headers={TOKEN: asks["token"]})).status_code == 409
    assert sky.cloud.bodies == [asks["body"].encode()]


async def test_what_was_taken_back_does_not_leave(sky: Sky) -> None:
    """An API client has its token; its person says no in the browser meanwhile."""
    async with sky.full(), sky.crowded():
        token = (await sky.ask()).json()["error"]["wirthforge"]["cloud"]["token"]
        assert (await _answer(sky, token, "yes")).status_code == 204
        assert [each["given"] for each in await _open(sky)] == [True]
        assert (await _answer(sky, token, "no")).status_code == 204
        assert (await sky.ask(headers={TOKEN: token})).status_code == 409
    assert sky.is_silent
    assert await sky.entries() == []


async def test_a_stream_whose_box_refuses_it_may_still_be_asked(sky: Sky) -> None:
    """There is nothing to wait for but the answer: with no it is refused, as an event, since the stream has begun."""
    ours = {"wirthforge": {"cloud_events": True}}
    async with sky.full(), sky.crowded(), sky.asking(**ours) as response:
        lines = response.aiter_lines()
        while not (line := await anext(lines)).startswith("data: "):
            pass
        token = json.loads(line[6:])["wirthforge"]["cloud"]["asks"]["token"]
        await _answer(sky, token, "no")
        rest = [line async for line in lines if line.startswith("data: ")]
    error = json.loads(rest[-1][6:])["error"]
    assert error["code"] == "queue_full"
    assert "you have not said yes" in error["message"]
    assert sky.is_silent


async def test_a_rule_of_somebody_else_does_not_undo_a_yes(sky: Sky) -> None:
    """Rules that changed while a person was asked are decided on again; the same body needs no second yes."""
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        question = await _asked(sky)
        await sky.put(f"/api/admin/cloud/caps/{sky.bob.user.id}", sky.admin, {"mode": "never"})
        await _answer(sky, question["token"], "yes")
        answer = await asking
    assert answer.headers["x-wirthforge-engine"] == f"cloud:{PROVIDER}"


async def test_a_rule_against_it_undoes_a_yes(sky: Sky) -> None:
    """What an admin forbids while a person is asked does not leave, whatever the person says."""
    async with sky.full():
        asking = asyncio.create_task(sky.ask())
        question = await _asked(sky)
        await sky.put(f"/api/admin/cloud/caps/{sky.ann.user.id}", sky.admin, {"mode": "never"})
        await _answer(sky, question["token"], "yes")
        sky.order.hold.set()
        answer = await asking
    assert answer.headers["x-wirthforge-engine"] == sky.engine_url.split("/")[2]
    assert sky.is_silent


async def test_a_preview_sends_nothing(sky: Sky) -> None:
    """It says what would leave, and why, in the words of the decision."""
    asked = {"model": CHAT["model"], "messages": [{"role": "user", "content": "Write to jane.doe@example.org"}]}
    async with sky.box.http(headers=sky.ann.bearer) as client:
        told = (await client.post("/api/cloud/preview", json=asked)).json()
        never = (await client.post("/api/cloud/preview", json=asked | {"cloud": "never"})).json()
    assert (told["outcome"], told["provider"], told["model"]) == ("ask", PROVIDER, FAR)
    assert "jane.doe@example.org" in told["body"]
    assert [each["text"] for each in told["findings"]] == ["jane.doe@example.org"]
    assert (never["outcome"], never["body"]) == ("local", None)
    assert sky.is_silent
    assert await _open(sky) == []
