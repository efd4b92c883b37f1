"""Answers that move to another engine: theirs is drained or removed, or dies in mid-answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from server.engines.openai_compatible import OpenAICompatible
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.continuation.stage import SLOTS, Stage, storytellers
from tests.stand_ins.storyteller import FAST, HOLD, PROMPT_TOKENS, WORDS, asked, story


@asynccontextmanager
async def staged(
    make_box: MakeBox, settings: Settings, redis: Redis, *names: str
) -> AsyncIterator[tuple[Stage, Person]]:
    """A box whose engines an admin has registered."""
    async with storytellers(*names) as (tellers, engines):
        box = await make_box(replace(settings, reserved_slots=0), engines=[])
        admin = await box.person("boss", "admin")
        await register(box, admin, engines)
        for teller in tellers.values():
            teller.begun.clear()
            teller.held_after = 3
        stage = Stage(box, tellers, redis)
        yield stage, admin
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        for engine in engines:
            await engine.close()


async def register(box: Box, admin: Person, engines: list[OpenAICompatible], api_key: str = "") -> None:
    """As an admin does; they are tested at once."""
    async with box.http(headers=admin.bearer) as client:
        for engine in engines:
            spec: dict[str, Any] = {"name": engine.name, "url": engine.base_url, "kind": engine.kind, "slots": SLOTS}
            answer = await client.post("/api/admin/engines", json=spec | {"api_key": api_key}, timeout=60)
            assert answer.status_code == 201, answer.text
            assert answer.json()["conformance"]["continues"] == "yes", answer.text


async def admin_says(box: Box, admin: Person, method: str, engine: str, **body: Any) -> None:
    """Drain or remove."""
    async with box.http(headers=admin.bearer) as client:
        answer = await client.request(method, f"/api/admin/engines/{engine}", json=body or None, timeout=60)
        assert answer.status_code in {200, 204}, answer.text


def engine_of(stage: Stage) -> str:
    """Where the only answer is."""
    return next(name for name, teller in stage.tellers.items() if teller.begun)


@pytest.mark.parametrize("how", ["drain", "remove"])
async def test_an_answer_leaves_an_engine_that_is_emptied(
    make_box: MakeBox, settings: Settings, redis: Redis, how: str
) -> None:
    """It goes on with the other engine, as one answer; the row says where it ended and that it moved."""
    async with staged(make_box, settings, redis, "one", "two") as (stage, admin):
        ann = await stage.box.person("ann")
        heard, task = stage.hear(ann, asked(HOLD))
        await stage.until(lambda: "wörd2" in heard.text)
        first = engine_of(stage)
        other = "two" if first == "one" else "one"
        stage.tellers[other].held_after = None
        if how == "drain":
            await admin_says(stage.box, admin, "PATCH", first, is_draining=True)
        else:
            await admin_says(stage.box, admin, "DELETE", first)
        async with asyncio.timeout(20):
            await task
        assert (heard.text, heard.reasons, heard.error) == (story(), ["stop"], None)
        assert heard.comments("paused moving")
        assert (heard.usage["prompt_tokens"], heard.usage["completion_tokens"]) == (PROMPT_TOKENS, WORDS)
        assert stage.tellers[other].begun == [3]
        (row,) = await stage.settled(1)
        assert (row.engine, row.pauses, row.outcome, row.output_tokens) == (other, 1, "completed", WORDS)


@pytest.mark.parametrize("half", [b"", b'data: {"choices":[{"index":0,"delta":{"content":"lo'])
async def test_an_answer_survives_its_engine(make_box: MakeBox, settings: Settings, redis: Redis, half: bytes) -> None:
    """The engine dies between two events or in the midst of one; the client gets every word once."""
    async with staged(make_box, settings, redis, "one", "two") as (stage, _):
        ann = await stage.box.person("ann")
        heard, task = stage.hear(ann, asked(HOLD))
        await stage.until(lambda: "wörd2" in heard.text)
        first = engine_of(stage)
        other = "two" if first == "one" else "one"
        stage.tellers[first].half, stage.tellers[first].dies_after = half, 3
        stage.tellers[other].held_after = None
        stage.tellers[first].go.set()
        async with asyncio.timeout(20):
            await task
        assert (heard.text, heard.reasons, heard.error) == (story(), ["stop"], None)
        assert heard.usage["completion_tokens"] == WORDS
        (row,) = await stage.settled(1)
        assert (row.engine, row.pauses, row.outcome) == (other, 1, "completed")


async def test_an_answer_in_one_piece_survives_too(make_box: MakeBox, settings: Settings, redis: Redis) -> None:
    """Its header says so."""
    async with staged(make_box, settings, redis, "one", "two") as (stage, _):
        ann = await stage.box.person("ann")
        asking = asyncio.create_task(stage.ask(ann, asked(HOLD)))
        await stage.until(lambda: any(teller.begun for teller in stage.tellers.values()))
        first = engine_of(stage)
        stage.tellers[first].dies_after = 3
        for teller in stage.tellers.values():
            teller.go.set()
        answer = await asking
        assert answer.json()["choices"][0]["message"]["content"] == story()
        assert answer.headers["x-wirthforge-pauses"] == "1"
        assert len(await stage.settled(1)) == 1


async def test_when_all_engines_die_there_is_one_error(make_box: MakeBox, settings: Settings, redis: Redis) -> None:
    """And one settled row, with what was written."""
    async with staged(make_box, settings, redis, "one", "two") as (stage, _):
        ann = await stage.box.person("ann")
        heard, task = stage.hear(ann, asked(HOLD))
        await stage.until(lambda: "wörd2" in heard.text)
        for teller in stage.tellers.values():
            teller.dies_after = 5 if not teller.begun else 3
            teller.go.set()
        async with asyncio.timeout(20):
            await task
        assert heard.error is not None
        assert heard.text == story(5)
        (row,) = await stage.settled(1)
        assert (row.pauses, row.outcome, row.output_tokens) == (1, "failed", 5)


async def test_without_another_engine_it_ends_as_ever(make_box: MakeBox, settings: Settings, redis: Redis) -> None:
    """A drained engine finishes what it began; one that dies is an error, and is blamed once."""
    async with staged(make_box, settings, redis, "one") as (stage, admin):
        ann = await stage.box.person("ann")
        drained = stage.hear(ann, asked(HOLD))
        await stage.until(lambda: "wörd2" in drained[0].text)
        await admin_says(stage.box, admin, "PATCH", "one", is_draining=True)
        stage.tellers["one"].go.set()
        async with asyncio.timeout(20):
            await drained[1]
        assert (drained[0].text, drained[0].comments("paused")) == (story(), [])
        await admin_says(stage.box, admin, "PATCH", "one", is_draining=False)
        stage.tellers["one"].dies_after = 3
        broken, task = stage.hear(ann, asked(HOLD))
        async with asyncio.timeout(20):
            await task
        assert broken.error is not None
        assert broken.text == story(3)
        assert [row.outcome for row in await stage.settled(2)] == ["completed", "failed"]


async def test_a_paused_answer_outlives_its_engine(make_box: MakeBox, settings: Settings, redis: Redis) -> None:
    """It waits for an engine that is removed: another takes it over; who only waits there gets an error at once."""
    async with staged(make_box, settings, redis, "one") as (stage, admin):
        hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
        told, guests = await stage.paused(hog, guest)
        waiting = asyncio.create_task(stage.ask(guest, asked(FAST)))

        async def waits() -> bool:
            return await stage.box.ledger.load("one") == (2, 2)

        await stage.until(waits)
        async with storytellers("two") as (tellers, engines):
            stage.tellers |= tellers
            await register(stage.box, admin, engines)
            tellers["two"].begun.clear()
            await admin_says(stage.box, admin, "DELETE", "one")
            async with asyncio.timeout(20):
                refused = await waiting
                await asyncio.gather(*(task for _, task in told), guests[1])
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_gone")
            for heard, _ in [*told, guests]:
                assert (heard.text, heard.reasons, heard.error) == (story(), ["stop"], None)
            assert tellers["two"].begun == [3, 3, 3]
            rows = await stage.settled(3)
            assert sorted((row.engine, row.pauses) for row in rows) == [("two", 1), ("two", 1), ("two", 2)]
            for engine in engines:
                await engine.close()
