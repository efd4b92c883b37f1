"""Two servers on one database, and a database that goes away: what readers of an answer see, and what its row says."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from msgspec.structs import replace

from server.db.models import Message
from server.settings import Settings
from tests.boxes import POLL_MS
from tests.conftest import MakeBox
from tests.conversations.conftest import Writer, ids, said, writer_of
from tests.stand_ins.openai_engine import Order
from tests.usage.test_writer import no_database


@pytest.fixture
async def replicas(make_box: MakeBox, settings: Settings, engine_url: str) -> AsyncIterator[tuple[Writer, Writer]]:
    """One person's client of each of two servers."""
    here, there = [await make_box(replace(settings, engines=(engine_url,))) for _ in range(2)]
    ann = await writer_of(here, "ann")
    elsewhere = Writer(there, ann.person, there.http(headers=ann.person.bearer))
    yield ann, elsewhere
    await ann.http.aclose()
    await elsewhere.http.aclose()


async def test_an_answer_is_followed_and_stopped_through_the_other_server(
    replicas: tuple[Writer, Writer], order: Order
) -> None:
    """It is listed as running there, its text comes as its row grows, and stopping it there ends it here."""
    here, there = replicas
    order.tokens, order.held_after = 50, 2
    order.hold.clear()
    conversation = await here.begin()
    async with here.asking(conversation, "one") as events:
        _, answer_id = ids(await events.until("word1"))
        read = await there.read(conversation)
        assert [each["state"] for each in read["messages"]] == ["complete", "streaming"]
        async with there.following(conversation, answer_id) as followed:
            assert said(await followed.until("word1")) == " word0 word1"
            await there.stop(conversation, answer_id)
            assert (await followed.rest())[-1] == "[DONE]"
        assert (await events.rest())[-1] == "[DONE]"
    await asyncio.wait_for(order.gone.wait(), 10)
    for each in replicas:
        answer = (await each.read(conversation))["messages"][-1]
        assert (answer["state"], answer["content"]) == ("stopped", " word0 word1")


async def test_what_was_answered_on_one_server_goes_on_on_the_other(
    replicas: tuple[Writer, Writer], order: Order
) -> None:
    """The whole branch goes along, and both see the same conversation."""
    here, there = replicas
    conversation = await here.begin()
    _, answer_id = ids(await here.ask(conversation, "one"))
    await here.settled()
    await there.ask(conversation, "two", answer_id)
    assert [each["role"] for each in order.seen[-1]["messages"]] == ["user", "assistant", "user"]
    await there.settled()
    assert await here.read(conversation) == await there.read(conversation)


async def test_a_conversation_that_is_removed_on_the_other_server_ends_its_answer(
    replicas: tuple[Writer, Writer], order: Order
) -> None:
    """The engine is let go, and nothing of it is left."""
    here, there = replicas
    order.tokens, order.held_after = 50, 2
    order.hold.clear()
    conversation = await here.begin()
    async with here.asking(conversation, "one") as events:
        await events.until("word1")
        assert (await there.http.delete(f"/api/conversations/{conversation}")).status_code == 204
        await events.rest()
    await asyncio.wait_for(order.gone.wait(), 10)
    for each in replicas:
        assert (await each.http.get(f"/api/conversations/{conversation}")).status_code == 404


async def test_an_answer_outlives_a_database_that_is_away(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, database_url: str, postgres_url: str
) -> None:
    """Its reader gets all of it meanwhile, and its row is whole as soon as it can be written."""
    box = await make_box(replace(settings, engines=(engine_url,)))
    ann = await writer_of(box, "ann")
    order.tokens, order.held_after, order.usage = 9, 3, {"prompt_tokens": 7, "completion_tokens": 9}
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as events:
        _, answer_id = ids(await events.until("word2"))
        async with no_database(database_url, postgres_url):
            order.hold.set()
            assert said(await events.rest()).endswith("word8")
            refused = await ann.http.get(f"/api/conversations/{conversation}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
            refused = await ann.http.post(
                f"/api/conversations/{conversation}/messages",
                json={"parent_id": answer_id, "content": "two", "model": order.model},
            )
            assert refused.status_code == 503
    await box.database.close()  # the test's own connections are broken
    async with asyncio.timeout(20):
        while (row := await _row(ann, answer_id)).state == "streaming":
            await box.clock.sleep_ms(POLL_MS)
    assert (row.state, row.content) == ("complete", "".join(f" word{number}" for number in range(9)))
    (usage,) = await box.usage(1)
    assert (usage.outcome, usage.output_tokens) == ("completed", row.output_tokens) == ("completed", 9)
    await ann.http.aclose()


async def _row(writer: Writer, answer_id: str) -> Message:
    async with writer.box.database.transaction(of=writer.person.user.id) as session:
        row = await session.get(Message, UUID(answer_id))
    assert row is not None
    return row
