"""Conversations as people have them: through the served app, with an engine on a real socket."""

import asyncio
from typing import Any

from tests.conversations.conftest import Writer, ids, said
from tests.stand_ins.openai_engine import MODEL, Order, saying


async def test_a_question_is_answered_and_both_are_kept(ann: Writer, order: Order) -> None:
    """The stream begins with who it is about and goes on like any; afterwards the conversation holds both."""
    conversation = await ann.begin()
    events = await ann.ask(conversation, "How are you?\nTell me.", temperature=0.5)
    assert events[0]["wirthforge"]["conversation"]["id"] == conversation
    question_id, answer_id = ids(events)
    assert said(events) == " word0 word1 word2"
    assert events[-1] == "[DONE]"
    assert events[-2]["usage"]["completion_tokens"] == 3
    assert order.seen[0]["temperature"] == 0.5
    found = await ann.read(conversation)
    assert (found["title"], found["model"], found["leaf_id"]) == ("How are you?", MODEL, answer_id)
    question, answer = found["messages"]
    assert (question["id"], question["parent_id"], question["role"]) == (question_id, None, "user")
    assert (answer["id"], answer["parent_id"], answer["content"]) == (answer_id, question_id, " word0 word1 word2")
    assert (answer["state"], answer["finish_reason"], answer["output_tokens"]) == ("complete", "stop", 3)
    assert answer["input_tokens"] == 7
    assert 0 <= answer["first_token_ms"] <= answer["total_ms"]
    row = (await ann.box.usage(1))[0]
    assert str(row.request_id) == answer_id


async def test_a_model_is_given_the_branch(ann: Writer, order: Order) -> None:
    """From the root to the question; an exchange whose answer brought no text is left out."""
    conversation = await ann.begin()
    _, first = ids(await ann.ask(conversation, "one"))

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    order.behaviour = broken
    _, failed = ids(await ann.ask(conversation, "two", first))
    order.behaviour = None
    await ann.ask(conversation, "three", failed)
    assert order.seen[-1]["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": " word0 word1 word2"},
        {"role": "user", "content": "three"},
    ]


async def test_an_edit_is_a_branch_and_so_is_one_more_answer(ann: Writer, order: Order) -> None:
    """Nothing is overwritten; the model gets the branch that was asked on."""
    conversation = await ann.begin()
    question, first = ids(await ann.ask(conversation, "one"))
    await ann.ask(conversation, "one, but better")
    order.behaviour = saying("quite another answer")
    _, second = ids(await ann.again(conversation, question))
    found = await ann.read(conversation)
    assert found["leaf_id"] == second
    messages = {each["id"]: each for each in found["messages"]}
    assert len(messages) == 5
    assert messages[second]["parent_id"] == messages[first]["parent_id"] == question
    assert messages[second]["content"] == "quite another answer"
    await ann.ask(conversation, "and then?", second)
    assert [each["content"] for each in order.seen[-1]["messages"]] == ["one", "quite another answer", "and then?"]


async def test_an_answer_goes_on_when_its_tab_is_closed(ann: Writer, order: Order) -> None:
    """And another tab reads it from its beginning."""
    order.held_after = 1
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as events:
        begun = await events.until("word0")
    _, answer_id = ids(begun)
    assert not order.gone.is_set()
    async with ann.following(conversation, answer_id) as first, ann.following(conversation, answer_id) as second:
        again = await first.until("word0")
        order.hold.set()
        assert said(again + await first.rest()) == " word0 word1 word2"
        assert said(await second.rest()) == " word0 word1 word2"
    assert ids(again) == ids(begun)
    answer = (await ann.read(conversation))["messages"][-1]
    assert (answer["state"], answer["content"]) == ("complete", " word0 word1 word2")


async def test_what_grows_can_be_read_at_any_time(ann: Writer, order: Order) -> None:
    """With the text so far, and said to run; the list says so too."""
    order.held_after = 1
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as events:
        await events.until("word0")
        found = await ann.read(conversation)
        assert found["running"]
        assert (found["messages"][-1]["state"], found["messages"][-1]["content"]) == ("streaming", " word0")
        order.hold.set()
        await events.rest()


async def test_stopping_keeps_the_text(ann: Writer, order: Order) -> None:
    """The engine is left at once, every reader is told, and it is used as it is from then on."""
    order.held_after = 1
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as events:
        begun = await events.until("word0")
        _, answer_id = ids(begun)
        await ann.stop(conversation, answer_id)
        end = await events.rest()
    await asyncio.wait_for(order.gone.wait(), 5)
    assert end[-2]["wirthforge"]["conversation"]["state"] == "stopped"
    assert end[-1] == "[DONE]"
    answer = (await ann.read(conversation))["messages"][-1]
    assert (answer["state"], answer["content"], answer["problem"]) == ("stopped", " word0", None)
    assert (await ann.box.usage(1))[0].outcome == "cancelled"
    await ann.stop(conversation, answer_id)
    async with ann.following(conversation, answer_id) as ended:
        assert ended.response.status_code == 409
        assert (await ended.response.aread()).count(b'"not_running"') == 1


async def test_a_failure_is_the_answers_end(ann: Writer, order: Order) -> None:
    """The stream says it as /v1 does; the row keeps the sentence."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    order.behaviour = broken
    conversation = await ann.begin()
    events = await ann.ask(conversation, "one")
    assert events[-1]["error"]["code"] == "engine_failed"
    answer = (await ann.read(conversation))["messages"][-1]
    assert (answer["state"], answer["problem"]) == ("failed", events[-1]["error"]["message"])
    events = await ann.ask(conversation, "two", model="nobody")
    assert events[-1]["error"]["code"] == "model_not_found"
