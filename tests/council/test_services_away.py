"""Postgres or Redis goes away in the midst of a council: it answers all the same, and its rows come later."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from msgspec.structs import replace

from server.council.runs import RUNNING
from server.embedded.redis import Redis
from server.settings import Settings
from tests.boxes import POLL_MS
from tests.conftest import MakeBox
from tests.council.conftest import Panel
from tests.council_stores.parts import rows
from tests.engines.test_services_away import own_redis as own_redis  # noqa: PLC0414 (a fixture)
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Order
from tests.usage.test_writer import no_database

QUESTION: Any = [{"role": "user", "content": "What is the best way to store bread for a week, and why?"}]
ANSWERS = {"a": "In a box of wood.", "b": "In paper.", "c": "In the freezer."}
WITHIN_S = 20


async def _held(panel: Panel, tasks: asyncio.TaskGroup) -> asyncio.Task[Any]:
    """A council of two whose members have begun, and wait."""
    panel.say(**{model: text for model, text in ANSWERS.items() if model in panel.orders})
    for order in panel.orders.values():
        order.held_after = 1
        order.hold.clear()
    http = panel.box.http(headers=panel.ann.bearer)
    body = {"model": "council:2", "messages": QUESTION}

    async def ask() -> Any:
        async with http:
            return await http.post("/v1/chat/completions", json=body)

    asking = tasks.create_task(ask())
    async with asyncio.timeout(WITHIN_S):
        while sum(bool(order.running) for order in panel.orders.values()) < 2:
            await panel.box.clock.sleep_ms(POLL_MS)
    return asking


async def test_a_council_outlives_a_database_that_is_away(panel: Panel, database_url: str, postgres_url: str) -> None:
    """Its answer comes meanwhile, and later one row of it and one of each request."""
    async with asyncio.TaskGroup() as tasks:
        asking = await _held(panel, tasks)
        async with no_database(database_url, postgres_url):
            for order in panel.orders.values():
                order.hold.set()
            answer = await asking
    assert answer.status_code == 200, answer.text
    council = answer.json()["wirthforge"]["council"]
    assert [each["state"] for each in council["members"]].count("done") >= 2
    await panel.box.database.close()  # the test's own connections are broken
    assert await _outcomes(panel, 3) == ("completed", {"completed"})


async def test_a_council_outlives_a_redis_that_is_away(make_box: MakeBox, settings: Settings, own_redis: Redis) -> None:
    """Members that have begun go on; who is to join their answers finds no slot, so the leader's answer is given."""
    orders = {model: Order(model=model) for model in ("a", "b")}
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(openai_engine.serve(order)) for order in orders.values()]
        box = await make_box(replace(settings, engines=tuple(urls), redis_url=own_redis.url))
        panel = Panel(box, await box.person("ann"), orders)
        async with asyncio.TaskGroup() as tasks:
            asking = await _held(panel, tasks)
            await own_redis.stop()
            for order in orders.values():
                order.hold.set()
            answer = await asking
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] in {"In a box of wood.", "In paper."}
        states = {each["role"]: each["state"] for each in answer.json()["wirthforge"]["council"]["members"]}
        assert states == {"member": "done", "chair": "failed"}
        await own_redis.start()
        assert await _outcomes(panel, 2) == ("completed", {"completed"})


async def _outcomes(panel: Panel, count: int) -> tuple[str, set[str]]:
    """Of the council, and of its requests, as soon as the rows say it."""
    async with asyncio.timeout(WITHIN_S):
        while not (runs := list((await rows(panel.box.database)).values())) or runs[0].outcome == RUNNING:
            await panel.box.clock.sleep_ms(POLL_MS)
    used = await panel.box.usage(count)
    assert {row.council_id for row in used} == {runs[0].id}
    return runs[0].outcome, {row.outcome for row in used}
