"""Engines that die and come back, over and over, while people ask: who is hurt, and what stays behind."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace
from structlog.testing import capture_logs

from benchmarks import tiny_model
from server.clock import SystemClock
from server.embedded.llama import Llama
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox, adapter
from tests.engines.test_isolation import CACHED_MIN, TEMPLATE_MAX, cached, prompt
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
RESTARTS = 3
AT_ONCE = 6
POLL_MS = 10


async def ask(box: Box, someone: Person, **body: Any) -> httpx.Response:
    """One request."""
    async with box.http(headers=someone.bearer) as client:
        return await client.post(PATH, json=CHAT | body)


async def one_token(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine that is in the middle of its answer when it dies."""
    response = await event_stream(request)
    await response.write(event({"content": "one"}))
    await asyncio.Event().wait()
    return response


async def load_goes(box: Box, *engines: str) -> None:
    """Until nothing runs and nobody waits."""
    for name in engines:
        while sum(await box.ledger.load(name)):
            await box.clock.sleep_ms(POLL_MS)


async def test_an_engine_that_restarts_over_and_over_hurts_nobody_elses_requests(
    make_box: MakeBox, settings: Settings
) -> None:
    """Only what it was in the middle of fails, with an error object; each request has one row, and no slot is held."""
    a, b = Order(), Order()
    running = openai_engine.serve(a)
    url = await running.__aenter__()
    async with openai_engine.serve(b) as url_b:
        box = await make_box(replace(settings, engines=(f"a={url}", f"b={url_b}"), engine_slots=AT_ONCE))
        people = [await box.person(f"person{number}") for number in range(3)]
        answers: list[httpx.Response] = []
        with capture_logs() as logs:
            for _ in range(RESTARTS):
                a.behaviour = one_token
                asking = [asyncio.create_task(ask(box, who, stream=True)) for who in people * 2]
                # Some are in the middle of an answer of a, unless its breaker sends all to b.
                began = asyncio.create_task(a.began.wait())
                await asyncio.wait([began, *asking], return_when=asyncio.FIRST_COMPLETED)
                began.cancel()
                await running.__aexit__(None, None, None)
                # While it is away, and again when it is back.
                asking += [asyncio.create_task(ask(box, who)) for who in people]
                answers += await asyncio.gather(*asking)
                a.behaviour = None
                a.began.clear()
                running = openai_engine.serve(a, int(url.split(":")[2].split("/")[0]))
                await running.__aenter__()
                answers += await asyncio.gather(*(ask(box, who) for who in people))
        rows = await box.usage(len(answers))
        await load_goes(box, "a", "b")
        await running.__aexit__(None, None, None)
    assert {answer.status_code for answer in answers} == {200}
    broken = [answer for answer in answers if '"error"' in answer.text]
    assert 1 <= len(broken) <= RESTARTS * AT_ONCE
    assert len(rows) == len(answers)
    failed = [row for row in rows if row.outcome == "failed"]
    assert len(failed) == len(broken)
    assert {row.engine for row in failed} == {"a"}
    assert [row for row in rows if row.outcome not in {"failed", "completed"}] == []
    # One line for each request, a few for each death.
    assert len(logs) <= len(answers) + len(broken) + RESTARTS * AT_ONCE * 2


@pytest.fixture
async def own_llama(short_dir: Path) -> AsyncIterator[Llama]:
    """A llama.cpp that may die, slow enough to be left."""
    path = short_dir / "mortal.gguf"
    tiny_model.build(path, layers=4)
    llama = Llama(path, name="mortal", slots=2, context_tokens=4096, data_dir=short_dir, clock=SystemClock())
    await llama.start()
    yield llama
    await llama.stop()


async def test_after_answers_that_broke_nobody_finds_anothers_prompt(make_box: MakeBox, own_llama: Llama) -> None:
    """Left by its client, or ended with its engine, which comes back at the same address: the paired probe holds."""
    engine = adapter(own_llama, name="mortal")
    box = await make_box(engines=[engine])
    (model,) = await engine.probe()
    ann, ben = await box.person("ann"), await box.person("ben")

    async def probe(text: str) -> tuple[int, int]:
        other = await cached(box, ben, text, model=model.id)
        return other, await cached(box, ann, text, model=model.id)

    left, died = prompt(), prompt()
    async with box.http(headers=ann.bearer) as client:
        body = {"model": model.id, "messages": [{"role": "user", "content": left}], "stream": True}
        async with client.stream("POST", PATH, json=body) as answer:
            await anext(answer.aiter_bytes())
        other, own = await probe(left)
        assert other <= TEMPLATE_MAX
        assert own > CACHED_MIN
        # It may say at any token that it has ended.
        body |= {"messages": [{"role": "user", "content": died}], "ignore_eos": True}
        async with client.stream("POST", PATH, json=body) as answer:
            chunks = answer.aiter_bytes()
            await anext(chunks)
            assert own_llama._child.pid is not None
            os.kill(own_llama._child.pid, signal.SIGKILL)
            assert b'"error"' in b"".join([chunk async for chunk in chunks])
    await own_llama.stop()
    await own_llama.start()
    assert max(await probe(died)) <= TEMPLATE_MAX
    # The next of each finds only what is one's own.
    for who in (ann, ben):
        text = prompt()
        assert await cached(box, who, text, model=model.id) <= TEMPLATE_MAX
        assert await cached(box, who, text, model=model.id) > CACHED_MIN
    await load_goes(box, "mortal")
