"""Answers and the servers that give them: ended, killed, several, and without their database."""

import asyncio
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import text, update

from server.db.models import Message
from server.settings import Settings
from tests.boxes import serve_box
from tests.conftest import MakeBox
from tests.conversations.conftest import Writer, ids, said, writer_of
from tests.council.conftest import Panel

# tests/council has the fixture; it is the same box.
from tests.council.conftest import panel as panel  # noqa: PLC0414
from tests.stand_ins.openai_engine import Order, saying


async def test_a_councils_answer_is_kept_with_what_its_members_said(panel: Panel) -> None:
    """Its summary, each member's text, and the answer; one row of a council, one of each member."""
    panel.say(a="A spider has 8 legs", b="It has 8 legs", c="8 legs")
    writer = await writer_of(panel.box, "eve")
    conversation = await writer.begin()
    question = "How many legs does a spider have? Answer with a number."
    events = await writer.ask(conversation, question, model="council:3")
    assert said(events) == "A spider has 8 legs"
    answer = (await writer.read(conversation))["messages"][-1]
    assert (answer["content"], answer["thinking"], answer["state"]) == ("A spider has 8 legs", "", "complete")
    assert answer["council"]["id"] == answer["id"]
    assert answer["council"]["verdict"]["winner"] == "A"
    texts = {each["label"]: each["content"] for each in answer["members"] if each["role"] == "member"}
    asked = [each["label"] for each in answer["council"]["members"] if each["state"] == "done"]
    assert {label: texts[label] for label in asked} == {
        label: {"A": "A spider has 8 legs", "B": "It has 8 legs", "C": "8 legs"}[label] for label in asked
    }
    await writer.http.aclose()


async def test_a_council_that_is_stopped_keeps_what_was_said(panel: Panel) -> None:
    """In the shape of a summary, without a verdict."""
    panel.say(a="one two three", b="one two three", c="one two three")
    for order in panel.orders.values():
        order.held_after = 1
        order.hold.clear()
    writer = await writer_of(panel.box, "eve")
    conversation = await writer.begin()
    async with writer.asking(conversation, "Why is the sky blue, and why not green?", model="council:2") as events:
        begun = await events.until('"text"')
        await writer.stop(conversation, ids(begun)[1])
        await events.rest()
    answer = (await writer.read(conversation))["messages"][-1]
    assert (answer["state"], answer["council"]["type"], answer["council"]["verdict"]) == ("stopped", "summary", None)
    assert "one" in {each["content"] for each in answer["members"]}
    await writer.http.aclose()


async def test_an_answer_of_a_server_that_died_is_interrupted(ann: Writer) -> None:
    """Shown and stored as such, once nobody has touched its row for a while; another is followed by its row."""
    conversation = await ann.begin()
    _, answer_id = ids(await ann.ask(conversation, "one"))
    owner = ann.person.user.id

    async def written(**values: Any) -> None:
        async with ann.box.database.transaction(of=owner) as session:
            row = update(Message).where(Message.id == UUID(answer_id))
            await session.execute(row.values(updated_at=text("now()")).values(**values))

    # As if another replica were writing it.
    await _until_recorded(ann, conversation)
    await written(state="streaming", content="the be")
    async with ann.following(conversation, answer_id) as events:
        assert said([await events.next() for _ in range(2)]) == "the be"
        await written(content="the beginning")
        assert said([await events.next()]) == "ginning"
        await written(state="complete", content="the beginning, and the end")
        rest = await events.rest()
        assert (said(rest), rest[-1]) == (", and the end", "[DONE]")
    await written(state="streaming", content="half of it")
    await ann.stop(conversation, answer_id)
    assert (await ann.read(conversation))["messages"][-1]["state"] == "stopped"
    await written(state="streaming", updated_at=text("now() - interval '1 minute'"))
    answer = (await ann.read(conversation))["messages"][-1]
    assert (answer["state"], answer["content"]) == ("interrupted", "half of it")
    assert answer["problem"]
    async with ann.box.database.transaction(of=owner) as session:
        row = await session.get(Message, UUID(answer_id))
    assert row is not None
    assert row.state == "interrupted"
    async with ann.following(conversation, answer_id) as events:
        assert events.response.status_code == 409


async def _until_recorded(writer: Writer, conversation: str) -> None:
    async with asyncio.timeout(20):
        while (await writer.read(conversation))["running"]:
            await writer.box.clock.sleep_ms(20)


async def test_what_an_answer_says_is_written_while_it_grows(ann: Writer, order: Order) -> None:
    """Every two seconds: a server that is killed loses no more."""
    order.held_after = 1
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as events:
        _, answer_id = ids(await events.until("word0"))
        async with asyncio.timeout(20):
            while True:
                async with ann.box.database.transaction(of=ann.person.user.id) as session:
                    row = await session.get(Message, UUID(answer_id))
                assert row is not None
                if row.content:
                    break
                await ann.box.clock.sleep_ms(50)
        assert (row.state, row.content) == ("streaming", " word0")
        # Whoever removes or stops it elsewhere does so by its row.
        async with ann.box.database.transaction(of=ann.person.user.id) as session:
            await session.execute(update(Message).where(Message.id == row.id).values(state="stopped"))
        assert (await events.rest())[-1] == "[DONE]"
    await asyncio.wait_for(order.gone.wait(), 5)


async def test_the_end_of_a_server_is_waited_for_and_told(settings: Settings, engine_url: str, order: Order) -> None:
    """An answer that can end within the grace does; one that cannot is interrupted, and its row says so."""
    order.held_after = 1
    order.hold.clear()
    async with serve_box(replace(settings, engines=(engine_url,), shutdown_grace_ms=1_000)) as box:
        ann = await writer_of(box, "ann")
        conversation = await ann.begin()
        async with ann.asking(conversation, "one") as events:
            _, answer_id = ids(await events.until("word0"))
        owner = ann.person.user.id
        await ann.http.aclose()
    async with serve_box(replace(settings, engines=(engine_url,))) as box:
        async with box.database.transaction(of=owner) as session:
            row = await session.get(Message, UUID(answer_id))
        assert row is not None
        assert (row.state, row.content) == ("interrupted", " word0")
        order.hold.set()
        order.behaviour = saying("well")
        ann = Writer(box, ann.person, box.http(headers=ann.person.bearer))
        assert said(await ann.ask(conversation, "again", answer_id)) == "well"
        told = [each["content"] for each in order.seen[-1]["messages"]]
        assert told == ["one", " word0", "again"]
        await ann.http.aclose()


async def test_a_long_branch_is_refused_with_a_sentence(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order
) -> None:
    """Its text may not be more than a request may have."""
    box = await make_box(replace(settings, engines=(engine_url,), request_bytes_max=200_000))
    ann = await writer_of(box, "ann")
    order.behaviour = saying("x" * 150_000)
    conversation = await ann.begin()
    _, answer_id = ids(await ann.ask(conversation, "one"))
    asked = {"parent_id": answer_id, "content": "y" * 60_000, "model": order.model}
    refused = await ann.http.post(f"/api/conversations/{conversation}/messages", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "conversation_too_long")
    await ann.http.aclose()
