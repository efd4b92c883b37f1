"""Councils where two servers share the box: one's members give way to the other's people, and both count alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from server.clock import SystemClock
from server.settings import Settings
from tests.boxes import POLL_MS, Box
from tests.conftest import MakeBox
from tests.council.conftest import Panel
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Order, saying

QUESTION: Any = [{"role": "user", "content": "What is the best way to store bread for a week, and why?"}]
WITHIN_S = 20


@pytest.fixture
async def panels(make_box: MakeBox, settings: Settings) -> AsyncIterator[tuple[Panel, Box]]:
    """Models a and b, each with one slot, behind two servers; the second one's box."""
    orders = {model: Order(model=model) for model in ("a", "b")}
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(openai_engine.serve(order)) for order in orders.values()]
        shared = replace(settings, engines=tuple(urls), engine_slots=1, engine_silence_ms_max=60_000)
        here, there = [await make_box(shared) for _ in range(2)]
        yield Panel(here, await here.person("ann"), orders), there


async def _until_asked(box: Box, order: Order, count: int = 1) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(order.seen) < count:
            await box.clock.sleep_ms(POLL_MS)


async def _until(client: httpx.AsyncClient, is_so: Callable[[Any], bool], how_many: Callable[[Any], bool]) -> None:
    """Until its server sees that of its engines."""
    async with asyncio.timeout(WITHIN_S):
        while not how_many(is_so(each) for each in (await client.get("/api/share")).json()["engines"]):
            await SystemClock().sleep_ms(POLL_MS)


async def test_a_member_on_one_server_gives_way_to_a_person_on_the_other(panels: tuple[Panel, Box]) -> None:
    """The slot is taken back at once, the council goes on smaller and says why, and its answer comes."""
    panel, there = panels
    panel.say(a="Bread keeps best in a box of wood.", b="In paper.")
    for order in panel.orders.values():
        order.held_after = 1
        order.hold.clear()
    bob = await panel.box.person("bob")
    body = {"model": "council:2", "messages": QUESTION}
    async with (
        panel.box.http(headers=panel.ann.bearer) as ann,
        there.http(headers=bob.bearer) as other,
        asyncio.TaskGroup() as tasks,
    ):
        asking = tasks.create_task(ann.post("/v1/chat/completions", json=body))
        for order in panel.orders.values():
            await _until_asked(panel.box, order)
        light = [
            tasks.create_task(other.post("/v1/chat/completions", json={"model": model, "messages": QUESTION}))
            for model in panel.orders
        ]
        # The leader's slot is firm; the other one is taken back for bob.
        async with asyncio.timeout(WITHIN_S):
            while not any(order.gone.is_set() for order in panel.orders.values()):
                await panel.box.clock.sleep_ms(POLL_MS)
        for order in panel.orders.values():
            order.behaviour = saying("Thanks.")
            order.hold.set()
        council = (await asking).json()
        answers = [await each for each in light]
    assert [answer.status_code for answer in answers] == [200] * 2
    states = [each["state"] for each in council["wirthforge"]["council"]["members"]]
    assert states.count("revoked") == 1, council
    assert council["choices"][0]["message"]["content"]


async def test_councils_on_two_servers_leave_room_for_each_other(panels: tuple[Panel, Box]) -> None:
    """Two slots: while the one's two members speak, the other's council knows that there is no room for it."""
    panel, there = panels
    panel.say(a="In wood.", b="In paper.")
    for order in panel.orders.values():
        order.held_after = 1
        order.hold.clear()
    bob = await panel.box.person("bob")
    body = {"model": "council:2", "messages": QUESTION}
    async with (
        panel.box.http(headers=panel.ann.bearer) as ann,
        there.http(headers=bob.bearer) as other,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(ann.post("/v1/chat/completions", json=body))
        for order in panel.orders.values():
            await _until_asked(panel.box, order)
        # The other server looks at the load about every second.
        await _until(other, lambda each: each["running"] == each["slots"], all)
        second = tasks.create_task(other.post("/v1/chat/completions", json=body))
        await _until(other, lambda each: each["waiting"] > 0, any)
        for order in panel.orders.values():
            order.hold.set()
        councils = [(await each).json()["wirthforge"]["council"] for each in (first, second)]
    assert [each["size"] for each in councils][1] == 1, councils
    assert councils[1]["reason"]
