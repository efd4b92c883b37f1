"""Councils as people get them: through the served app, OpenAI's own client, and engines on real sockets."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from quotas.policy import COUNCIL_STEPS
from server.allocator.ladder import LOCAL_STEPS
from tests.council.conftest import Panel
from tests.council_stores.parts import rows

QUESTION: Any = [{"role": "user", "content": "What is the best way to store bread for a week, and why?"}]
NUMBER: Any = [{"role": "user", "content": "How many legs does a spider have? Answer with a number."}]
WITHIN_MS, POLL_MS = 10_000, 20


def _events(chunks: list[Any]) -> list[dict[str, Any]]:
    """The council's events of a stream."""
    return [chunk.wirthforge["council"] for chunk in chunks if getattr(chunk, "wirthforge", None)]


async def _streamed(panel: Panel, model: str, messages: Any, **options: Any) -> list[Any]:
    async with panel.box.openai(panel.ann) as client:
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True, **options)
        return [chunk async for chunk in stream]


def _content(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_councils_are_listed_among_the_models(panel: Panel) -> None:
    """After the models: one of any, and one of samples."""
    async with panel.box.openai(panel.ann) as client:
        listed = [model.id async for model in client.models.list()]
        found: Any = await client.models.retrieve("council")
    assert listed == ["a", "b", "c", "council", "council:self"]
    assert found.wirthforge["council"] is True


async def test_members_that_agree_answer_without_a_chair(panel: Panel) -> None:
    """The leader's answer is the answer; usage sums the members, and each has a row of its own."""
    panel.say(a="A spider has 8 legs", b="It has 8 legs", c="8 legs")
    chunks = await _streamed(panel, "council:3", NUMBER, stream_options={"include_usage": True})
    events = _events(chunks)
    assert events[0]["type"] == "allocated"
    assert [(each["label"], each["model"]) for each in events[0]["members"]] == [("A", "a"), ("B", "b"), ("C", "c")]
    assert _content(chunks) == "A spider has 8 legs"
    verdict = next(each for each in events if each["type"] == "verdict")
    assert (verdict["agreement"], verdict["winner"]) == (1.0, "A")
    summary = events[-1]
    assert summary["type"] == "summary"
    asked = [each for each in summary["members"] if each["state"] == "done"]
    assert chunks[-1].usage.completion_tokens == sum(each["usage"]["completion_tokens"] for each in asked)
    used = await panel.box.usage(len(asked))
    assert {row.council_id for row in used} == {used[0].council_id}
    assert str(used[0].council_id) == events[0]["id"]
    assert {row.role for row in used} == {"leader", "member"}


async def test_an_open_question_is_joined_by_the_chair(panel: Panel) -> None:
    """Members that differ are read by one of them, who writes the answer; in one piece as well."""
    panel.say(
        a="Bread keeps in a paper bag inside a wooden box",
        b="Freeze slices at once and toast them when needed",
        c="Linen cloth and a cool dark cellar",
    )
    async with panel.box.openai(panel.ann) as client:
        answer: Any = await client.chat.completions.create(model="council:3", messages=QUESTION)
    council = answer.wirthforge["council"]
    assert council["verdict"]["method"] == "chair"
    assert answer.choices[0].message.content
    assert {each["text"] for each in council["members"] if each["role"] == "member"} >= {
        "Bread keeps in a paper bag inside a wooden box",
        "Freeze slices at once and toast them when needed",
    }
    chairs = [each for each in council["members"] if each["role"] == "chair"]
    assert len(chairs) == 1
    reading = next(order for order in panel.orders.values() if len(order.seen) > 1)
    asked = json.dumps(reading.seen[-1]["messages"])
    assert "Freeze slices at once" in asked
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_clients_that_know_nothing_of_councils_read_thoughts(panel: Panel) -> None:
    """Members stand in reasoning_content, labelled, and never in the middle of another."""
    panel.say(a="red red red red", b="green green green", c="blue blue")
    chunks = await _streamed(panel, "council:3", QUESTION)
    thoughts = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
    assert thoughts.startswith("[A · a]\nred red red red")
    assert "[B · b]\ngreen green green" in thoughts


async def test_a_member_that_fails_is_named_and_the_others_go_on(panel: Panel) -> None:
    """The answer comes all the same."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    panel.say(a="A spider has 8 legs", c="8")
    panel.orders["b"].behaviour = broken
    chunks = await _streamed(panel, "council:3", NUMBER)
    assert "8" in _content(chunks)
    failed = [each for each in _events(chunks) if each["type"] == "member" and each["state"] == "failed"]
    assert failed
    assert (failed[0]["label"], failed[0]["model"]) == ("B", "b")
    assert failed[0]["reason"]


async def test_when_all_fail_the_error_names_each(panel: Panel) -> None:
    """Before anything was streamed it is a status."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    for order in panel.orders.values():
        order.behaviour = broken
    async with panel.box.openai(panel.ann) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="council:2", messages=NUMBER, stream=True)
    assert caught.value.status_code == 502
    assert all(name in caught.value.message for name in ("A (a)", "B (b)"))


async def _outcomes(panel: Panel, wanted: str) -> None:
    """Until the one run that is stored has this outcome."""
    async with asyncio.timeout(WITHIN_MS / 1000):
        while [row.outcome for row in (await rows(panel.box.database)).values()] != [wanted]:
            await panel.box.clock.sleep_ms(POLL_MS)


async def test_who_leaves_stops_every_member(panel: Panel) -> None:
    """All engines lose their client; the run is stored while it runs, and then as cancelled."""
    for order in panel.orders.values():
        order.held_after = 1
        order.hold.clear()
    panel.say(a="one two three", b="one two three", c="one two three")
    async with panel.box.openai(panel.ann) as client:
        stream = await client.chat.completions.create(model="council:2", messages=QUESTION, stream=True)
        async for chunk in stream:
            if panel.orders["b"].began.is_set():
                break
            del chunk
        await _outcomes(panel, "running")
        await stream.close()
    await panel.orders["a"].gone.wait()
    await panel.orders["b"].gone.wait()
    assert {row.outcome for row in await panel.box.usage(2)} == {"cancelled"}
    await _outcomes(panel, "cancelled")


async def test_own_limits_are_told_as_they_are(panel: Panel) -> None:
    """A limit of one's own is 429 as it would be without a council; a small council is allowed to be smaller."""
    await panel.box.allow(panel.ann, council_size_max=2)
    panel.say(a="8", b="8", c="8")
    events = _events(await _streamed(panel, "council:3", NUMBER))
    assert (events[0]["size"], events[0]["wanted"], events[0]["binding"]) == (2, 3, "policy")
    await panel.box.allow(panel.ann, council_size_max=2, requests_per_minute=1)
    async with panel.box.openai(panel.ann) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="council:3", messages=NUMBER)
    assert caught.value.code == "requests_per_minute" or "minute" in caught.value.message


@pytest.mark.parametrize(
    ("model", "body", "code"),
    [
        ("council:0", {}, "council_name"),
        ("council:100", {}, "council_name"),
        ("council:", {}, "council_name"),
        ("council:nobody", {}, "model_not_found"),
        ("council", {"wirthforge": {"council": {"members": ["a", "ghost"]}}}, "council_member"),
        ("council", {"wirthforge": {"council": {"members": ["a", "council"]}}}, "council_member"),
        ("council", {"wirthforge": {"council": {"strategy": "dance"}}}, "council_options"),
        ("council", {"n": 2}, "council_body"),
        ("council", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "council_body"),
        ("council", {"logprobs": True}, "council_body"),
    ],
)
async def test_what_is_no_council_is_refused_clearly(panel: Panel, model: str, body: dict[str, Any], code: str) -> None:
    """With a sentence, before any model is asked."""
    async with panel.box.http(headers=panel.ann.bearer) as client:
        answer = await client.post("/v1/chat/completions", json={"model": model, "messages": QUESTION, **body})
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["code"] == code
    assert not any(order.seen for order in panel.orders.values())


async def test_a_council_of_samples_asks_one_model_with_other_seeds(panel: Panel) -> None:
    """All members are one model; the first is asked as the person wrote it."""
    panel.say(a="8", b="8", c="8")
    events = _events(await _streamed(panel, "council:self:3", NUMBER))
    assert {each["model"] for each in events[0]["members"]} == {"a"}
    bodies = panel.orders["a"].seen
    assert len(bodies) >= 2
    assert "seed" not in bodies[0]
    assert len({body["seed"] for body in bodies[1:]}) == len(bodies) - 1


async def test_a_text_is_gone_on_with_by_a_council_too(panel: Panel) -> None:
    """/v1/completions takes one prompt."""
    panel.say(a="8", b="8", c="8")
    async with panel.box.openai(panel.ann) as client:
        answer: Any = await client.completions.create(model="council:2", prompt="How many legs has a spider?")
    assert answer.choices[0].text == "8"
    assert answer.wirthforge["council"]["size"] == 2


async def _fill(panel: Panel, tasks: asyncio.TaskGroup) -> list[asyncio.Task[Any]]:
    """Somebody else takes every slot of the box, until the answers are let go."""
    ben = await panel.box.person("ben")

    async def ask(model: str) -> Any:
        async with panel.box.openai(ben) as client:
            return await client.chat.completions.create(model=model, messages=QUESTION)

    for order in panel.orders.values():
        order.hold.clear()
    asked = [tasks.create_task(ask(model)) for model in panel.orders for _ in range(4)]
    async with panel.box.http(headers=ben.bearer) as client, asyncio.timeout(WITHIN_MS / 1000):
        while True:
            engines = (await client.get("/api/share")).json()["engines"]
            if len(engines) == len(panel.orders) and all(each["running"] == each["slots"] for each in engines):
                return asked
            await panel.box.clock.sleep_ms(POLL_MS)


async def test_a_council_on_a_full_box_waits_as_one_model_or_is_refused_as_its_asker_likes(panel: Panel) -> None:
    """Each step of the ladder is told; who will not take them is refused, with a time to come back."""
    async with asyncio.TaskGroup() as tasks:
        asked = await _fill(panel, tasks)
        async with panel.box.http(headers=panel.ann.bearer) as client:
            unwilling = {"wirthforge": {"council": {"steps": ["smaller_council"]}}}
            body = {"model": "council:3", "messages": QUESTION}
            refused = await client.post("/v1/chat/completions", json=body | unwilling)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "box_full")
            assert int(refused.headers["Retry-After"]) >= 1
            willing = tasks.create_task(client.post("/v1/chat/completions", json=body))
            await panel.box.clock.sleep_ms(POLL_MS)
            for order in panel.orders.values():
                order.hold.set()
            council = (await willing).json()["wirthforge"]["council"]
    assert (council["size"], council["steps"]) == (1, ["smaller_council", "queue"])
    assert "It waits" in council["reason"]
    assert len(asked) == 12


async def test_an_admin_says_which_steps_somebody_s_councils_may_take(panel: Panel) -> None:
    """By a rule, which the request may only narrow; the rule that won reads back."""
    rule = {"council_steps": ["smaller_council", "smaller_model"]}
    await panel.box.allow(panel.ann, **rule)
    async with asyncio.TaskGroup() as tasks:
        await _fill(panel, tasks)
        async with panel.box.http(headers=panel.ann.bearer) as client:
            body = {"model": "council:3", "messages": QUESTION}
            for steps in (None, ["queue", "smaller_council"], []):
                narrowed = {"wirthforge": {"council": {"steps": steps}}}
                refused = await client.post("/v1/chat/completions", json=body | narrowed)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "box_full")
            standing = (await client.get("/api/quota")).json()["limits"]["council_steps"]
            assert standing == {"value": rule["council_steps"], "rule": "user ann"}
            await panel.box.allow(panel.ann, council_steps=None)
            willing = tasks.create_task(client.post("/v1/chat/completions", json=body))
            await panel.box.clock.sleep_ms(POLL_MS)
            for order in panel.orders.values():
                order.hold.set()
            council = (await willing).json()["wirthforge"]["council"]
    assert council["steps"] == ["smaller_council", "queue"]


def test_rules_know_the_steps_that_there_are() -> None:
    """Quotas know nothing of the allocator, and name its steps all the same."""
    assert frozenset(COUNCIL_STEPS) == LOCAL_STEPS


async def test_the_live_view_tells_how_large_a_council_could_be(panel: Panel) -> None:
    """A look a second, whether anybody asks or not."""
    async with panel.box.http(headers=panel.ann.bearer) as client, asyncio.timeout(WITHIN_MS / 1000):
        while (council := (await client.get("/api/share")).json()["council"]) is None:
            await panel.box.clock.sleep_ms(POLL_MS)
    assert council["size"] == 3
    assert council["reason"] == "3 of 6: there are 3 models for this, and no more."


async def test_councils_that_are_asked_in_one_moment_see_each_other(panel: Panel) -> None:
    """Six of three members would be 18 for 12 slots: the later ones are smaller, though nobody has begun yet."""
    panel.say(a="8", b="8", c="8")

    async def size(client: httpx.AsyncClient) -> int:
        answer = await client.post("/v1/chat/completions", json={"model": "council:3", "messages": NUMBER})
        return int(answer.json()["wirthforge"]["council"]["size"])

    async with panel.box.http(headers=panel.ann.bearer) as client:
        assert await size(client) == 3
        sizes = await asyncio.gather(*(size(client) for _ in range(6)))
        assert sum(sizes) < 18
        # They have ended, and the next one has the box for itself.
        assert await size(client) >= min(sizes)


async def test_one_model_alone_streams_its_answer_as_the_answer(panel: Panel) -> None:
    """Where there is room for one only, nothing is hidden in thoughts first."""
    panel.say(a="eight legs")
    await panel.box.allow(panel.ann, council_size_max=1)
    chunks = await _streamed(panel, "council", QUESTION)
    assert _content(chunks) == "eight legs"
    assert not any(getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks if chunk.choices)
