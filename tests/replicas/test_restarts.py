"""Servers that end, are killed or hang under load, behind nginx and HAProxy at once."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from aiohttp import web
from sqlalchemy import select

from benchmarks.replicas.loads import Load, Told
from server.db.models import Usage
from tests.boxes import POLL_MS
from tests.replicas.conftest import Stage, clock
from tests.stand_ins import openai_engine

CLIENTS = 12
# Shorter than the answers of all clients together take, so that some wait in the queue all the time.
SLOTS = 8
TOKENS = 12
PACE_MS = 15
BODY = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": TOKENS}
LEASE_MS = 5_000
# Replicas look every second; a busy machine may take longer.
REAPED_MS_MAX = 10_000
# Servers start six times, which takes a busy machine a while.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def engine_slots() -> int:
    """Fewer than clients."""
    return SLOTS


async def paced(order: openai_engine.Order, request: web.Request, _: dict[str, object]) -> web.StreamResponse:
    """Token after token, as an engine that is asked by several."""
    response = await openai_engine.event_stream(request)
    await response.write(openai_engine.event({"role": "assistant", "content": None}))
    for number in range(TOKENS):
        await response.write(openai_engine.event({"content": f" word{number}"}))
        await clock.sleep_ms(PACE_MS)
    await response.write(openai_engine.event({}, "stop"))
    await response.write(openai_engine.usage_event({"prompt_tokens": 7, "completion_tokens": TOKENS}))
    order.running.discard(request.headers["X-Request-Id"])
    await response.write(b"data: [DONE]\n\n")
    return response


@pytest.fixture
async def load(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Load]:
    """Twelve clients of four people, half of them through each proxy."""
    stage.order.behaviour = paced
    keys = [(await stage.office.person(f"{request.node.name[-20:]}-{number}")).key for number in range(4)]
    load = Load(stage.proxies, keys, BODY, b" word", CLIENTS)
    load.begin()
    yield load
    await load.end()


async def outcomes(stage: Stage, told: list[Told], killed_ms: int | None = None) -> Counter[str]:
    """How the rows say that these ended; each has exactly one, and what was seen whole has all its tokens.

    A server that is killed may have said everything, and not have written it down.
    """
    verdict = await stage.verdict()
    assert verdict.is_well, [breach.sentence for breach in verdict.broken]
    asked = {UUID(one.request): one for one in told if one.request}
    async with stage.office.database.transaction(everybody=True) as session:
        found = (await session.scalars(select(Usage).where(Usage.request_id.in_(asked)))).all()
    assert {row.request_id for row in found} == asked.keys()
    for row in found:
        one = asked[row.request_id]
        if killed_ms is not None and row.outcome == "abandoned":
            assert one.began_ms <= killed_ms
        elif one.is_well:
            assert (row.outcome, row.output_tokens) == ("completed", TOKENS)
    return Counter(row.outcome for row in found)


async def test_a_rolling_restart_fails_no_request(stage: Stage, load: Load) -> None:
    """Each server in turn is asked to end and started anew; every answer comes whole, through either proxy."""
    await load.some(10)
    for server in stage.servers:
        server.signal(signal.SIGTERM)
        await server.until("ending")
        assert await server.ended() == 0, server.log.read_text()
        await load.some(5)
        await server.start()
        await load.some(5)
    told = await load.end()
    assert [one for one in told if not one.is_well] == []
    assert {one.way for one in told} == set(stage.proxies)
    assert {one.tokens for one in told if one.is_stream} == {TOKENS}
    assert await outcomes(stage, told) == {"completed": len(told)}


async def test_a_kill_breaks_only_what_its_server_was_saying(stage: Stage, load: Load) -> None:
    """Whoever had seen nothing yet is answered by another server; slots come back when the leases run out."""
    await load.some(10)
    victim = stage.servers[1]
    victim.signal(signal.SIGKILL)
    killed_ms = clock.monotonic_ms()
    await victim.ended()
    await load.some(10)
    broken = [one for one in load.told if one.ended_ms and not one.is_well]
    assert all(one.began_ms <= killed_ms <= one.ended_ms for one in broken), broken
    assert all(one.is_stream and one.status == 200 for one in broken), broken
    assert len(broken) <= CLIENTS
    while {one.request for one in broken} & await running(stage):
        assert clock.monotonic_ms() - killed_ms < LEASE_MS + REAPED_MS_MAX
        await clock.sleep_ms(POLL_MS)
    told = await load.end()
    assert [one for one in told if not one.is_well] == broken
    by_outcome = await outcomes(stage, told, killed_ms)
    assert len(told) - CLIENTS <= by_outcome["completed"] <= len(told) - len(broken)
    assert set(by_outcome) <= {"completed", "abandoned"}


async def running(stage: Stage) -> set[str]:
    """The requests that hold a slot."""
    view = await stage.office.ledger.view()
    return {one.id for engine in view.engines for one in engine.running}
