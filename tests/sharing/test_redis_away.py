"""Redis comes and goes: a Redis of the test's own, real boxes in front of a stand-in engine."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.clock import SystemClock
from server.embedded.redis import Redis as EmbeddedRedis
from server.errors import Unavailable
from server.settings import Settings
from server.sharing.gate import Gate
from server.sharing.outlook import Outlook
from tests.boxes import Box, Person, serve_box
from tests.conftest import MakeBox
from tests.quotas.reference import LEASE_MS
from tests.sharing.replicas import asking
from tests.stand_ins.openai_engine import MODEL, Order

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/chat/completions"


@pytest.fixture
async def own_redis() -> AsyncIterator[EmbeddedRedis]:
    """A Redis that may be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    redis = EmbeddedRedis(folder, SystemClock())
    await redis.start()
    yield redis
    await redis.stop()
    shutil.rmtree(folder)


@pytest.fixture
def own_settings(settings: Settings, own_redis: EmbeddedRedis, engine_url: str) -> Settings:
    """A box with two slots on that Redis."""
    return replace(settings, redis_url=own_redis.url, engines=(engine_url,), engine_slots=2)


@pytest.fixture
async def own_ledger(own_redis: EmbeddedRedis) -> AsyncIterator[Ledger]:
    """What that Redis holds, in real time."""
    async with Redis.from_url(own_redis.url, decode_responses=True) as client:
        yield Ledger(client)


async def load_is(ledger: Ledger, engine_url: str, expected: tuple[int, int], within_ms: int = 5_000) -> None:
    """Wait until so many run and wait."""
    clock = SystemClock()
    deadline_ms = clock.monotonic_ms() + within_ms
    while (found := await ledger.load(engine_url.split("/")[2])) != expected:
        assert clock.monotonic_ms() < deadline_ms, f"{found} instead of {expected}"
        await clock.sleep_ms(10)


def asked(client: httpx.AsyncClient, count: int) -> list[asyncio.Task[httpx.Response]]:
    """So many requests."""
    return [asyncio.create_task(client.post(PATH, json=CHAT)) for _ in range(count)]


async def test_while_redis_is_away_streams_go_on_and_newcomers_are_told(
    make_box: MakeBox, own_settings: Settings, own_redis: EmbeddedRedis, own_ledger: Ledger, order: Order
) -> None:
    """Newcomers get a 503 after the grace; streams end well, who waited is served, and all rows are written."""
    box = await make_box(own_settings)
    ann = await box.person("ann")
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        asking = asked(client, 3)
        await load_is(own_ledger, own_settings.engines[0], (2, 1))
        await own_redis.stop()
        started_ms = box.clock.monotonic_ms()
        refused = await client.post(PATH, json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_unavailable")
        assert refused.headers["retry-after"] == "5"
        assert (
            own_settings.redis_grace_ms <= box.clock.monotonic_ms() - started_ms < own_settings.redis_grace_ms + 3_000
        )
        assert (await client.get("/readyz")).json() == {"status": "not ready"}
        order.hold.set()
        first, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result().status_code for task in first} == {200}
        assert first.pop().result().text.endswith("data: [DONE]\n\n")
        await own_redis.start()
        assert [(await task).status_code for task in asking] == [200] * 3
    assert [row.outcome for row in await box.usage(3)] == ["completed"] * 3
    await load_is(own_ledger, own_settings.engines[0], (0, 0))


async def test_a_redis_that_forgets_everything_costs_no_answer(
    make_box: MakeBox, own_settings: Settings, own_ledger: Ledger, order: Order
) -> None:
    """FLUSHALL under load: streams and queue are entered again, every answer comes, every row is written."""
    box = await make_box(own_settings)
    ann = await box.person("ann")
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        asking = asked(client, 6)
        await load_is(own_ledger, own_settings.engines[0], (2, 4))
        await own_ledger._redis.flushall()
        await load_is(own_ledger, own_settings.engines[0], (2, 4))
        order.hold.set()
        assert [(await task).status_code for task in asking] == [200] * 6
    assert [row.outcome for row in await box.usage(6)] == ["completed"] * 6
    assert order.running_max == 2


async def budget_is_used_once(box: Box, person: Person, ledger: Ledger, count: int) -> None:
    """Wait for so many rows; what they say is what the budget holds."""
    rows = await box.usage(count)
    assert len({row.request_id for row in rows}) == len(rows) == count
    assert {row.outcome for row in rows} == {"completed"}
    used = sum(row.input_tokens + row.output_tokens for row in rows)
    async with asyncio.timeout(5):
        while (await ledger.budget(str(person.user.id))).tokens_per_day != used:
            await box.clock.sleep_ms(10)


async def test_an_outage_charges_nobody_twice(
    make_box: MakeBox, own_settings: Settings, own_redis: EmbeddedRedis, own_ledger: Ledger, order: Order
) -> None:
    """Redis dies in mid-stream and comes back with its file: each request is one row, and counted once."""
    box = await make_box(own_settings)
    ann = await box.person("ann")
    await box.allow(ann, tokens_per_day=100_000, requests_per_minute=100)
    order.tokens, order.held_after = 9, 3
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        asking = asked(client, 4)
        await load_is(own_ledger, own_settings.engines[0], (2, 2))
        await own_redis.stop()
        order.hold.set()
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await own_redis.start()
        assert [(await each).status_code for each in asking] == [200] * 4
        await budget_is_used_once(box, ann, own_ledger, 4)
        # And the next is admitted under the same rule.
        answer = await client.post(PATH, json=CHAT | {"max_tokens": 9})
        assert answer.headers["x-ratelimit-limit-tokens"] == "100000"
    # Its end is carried to Redis after the client has its answer.
    await load_is(own_ledger, own_settings.engines[0], (0, 0))


async def test_a_redis_that_forgets_everything_counts_what_goes_on(
    make_box: MakeBox, own_settings: Settings, own_ledger: Ledger, order: Order
) -> None:
    """FLUSHALL in mid-stream: limits stay in force, everybody starts level, and what still runs is counted once."""
    box = await make_box(own_settings)
    ann = await box.person("ann")
    await box.allow(ann, tokens_per_day=10_000, in_flight_max=1)
    async with box.http(headers=ann.bearer) as client:
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        await budget_is_used_once(box, ann, own_ledger, 1)
        order.tokens, order.held_after = 9, 3
        order.hold.clear()
        asking = asked(client, 3)
        await load_is(own_ledger, own_settings.engines[0], (1, 2))
        await own_ledger._redis.flushall()
        await load_is(own_ledger, own_settings.engines[0], (1, 2))
        order.hold.set()
        assert [(await each).status_code for each in asking] == [200] * 3
        rows = (await box.usage(4))[1:]
        assert [row.outcome for row in rows] == ["completed"] * 3
        used = sum(row.input_tokens + row.output_tokens for row in rows)
        async with asyncio.timeout(5):
            while (await own_ledger.budget(str(ann.user.id))).tokens_per_day != used:
                await box.clock.sleep_ms(10)
        assert (await client.post(PATH, json=CHAT | {"max_tokens": 10_001})).status_code == 400
    assert order.running_max == 1


async def reap_from_afar(ledger: Ledger) -> list[str]:
    """Take the leases back as a replica would that hears nothing of the others."""
    seconds, microseconds = await ledger._redis.time()
    while True:
        for later_ms in range(0, LEASE_MS + 2_001, 1_000):
            ledger.now_ms = seconds * 1000 + microseconds // 1000 + later_ms
            if reaped := await ledger.reap():
                ledger.now_ms = None
                return reaped


async def _silent(order: Order, _request: Any, _body: dict[str, Any]) -> Any:
    await order.hold.wait()
    raise ConnectionError


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_stream_that_lost_its_lease_is_cut(
    make_box: MakeBox, own_settings: Settings, own_ledger: Ledger, order: Order, has_begun: bool, is_stream: bool
) -> None:
    """Its client is told, in the stream or by the status, and the engine is let go, also while it is still silent."""
    box = await make_box(replace(own_settings, engine_silence_ms_max=60_000))
    ann = await box.person("ann")
    order.tokens, order.held_after = 9, 3
    order.hold.clear()
    order.behaviour = None if has_begun else _silent
    async with box.http(headers=ann.bearer) as client:
        asking = asyncio.create_task(client.post(PATH, json={**CHAT, "stream": is_stream}))
        await order.began.wait()
        await load_is(own_ledger, own_settings.engines[0], (1, 0))
        assert len(await reap_from_afar(own_ledger)) == 1
        async with asyncio.timeout(5):
            await order.gone.wait()
            answer = await asking
    assert answer.status_code == (200 if has_begun and is_stream else 503)
    assert '"lease_lost"' in answer.text
    async with asyncio.timeout(5):
        while (row := (await box.usage(1))[0]).outcome == "abandoned":
            await box.clock.sleep_ms(10)
    assert row.outcome == "failed"
    await load_is(own_ledger, own_settings.engines[0], (0, 0))


async def test_what_waits_for_redis_has_a_bound(
    own_redis: EmbeddedRedis, own_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many give up while Redis is away, few of their cancellations are kept."""
    monkeypatch.setattr("server.sharing.ends.LEAVES_MAX", 5)
    clock = SystemClock()
    outlook = Outlook(own_ledger, clock)
    gate = Gate(own_ledger, outlook, replica="one", clock=clock, settings=Settings(redis_grace_ms=1))
    await own_redis.stop()
    results = await asyncio.gather(*(gate.admit(asking()) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    assert gate._ends._ends.qsize() == 5
    assert not gate._waiting


@pytest.mark.parametrize("is_redis_away", [False, True])
async def test_a_server_that_is_stopped_leaves_nothing_behind(
    make_box: MakeBox,
    own_settings: Settings,
    own_redis: EmbeddedRedis,
    own_ledger: Ledger,
    order: Order,
    *,
    is_redis_away: bool,
) -> None:
    """After the grace streams end with an error and who waits is turned away with it; all rows are there, in time."""
    order.tokens, order.held_after = 9, 3
    order.hold.clear()
    leaving = replace(own_settings, shutdown_grace_ms=1_000)
    async with serve_box(leaving) as box:
        ann = await box.person("ann")
        client = box.http(headers=ann.bearer)
        asking = asked(client, 6)
        async with asyncio.timeout(5):
            while len(order.running) < 2:
                await box.clock.sleep_ms(10)
        await load_is(own_ledger, own_settings.engines[0], (2, 4))
        if is_redis_away:
            await own_redis.stop()
        stopped_ms = box.clock.monotonic_ms()
    assert SystemClock().monotonic_ms() - stopped_ms < 8_000
    answers = await asyncio.gather(*asking)
    # Who was told in the stream that it waits is told in the stream that it is over.
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum("word" in answer.text for answer in answers) == 2
    for answer in answers:
        assert '"shutting_down"' in answer.text.rstrip().rpartition("\n")[2]
    await client.aclose()
    assert not order.running
    if is_redis_away:
        await own_redis.start()
    else:
        await check_rows(await make_box(leaving), 3)


async def check_rows(box: Box, tokens: int) -> None:
    """Both streams that were cut have a row."""
    rows = await box.usage(2)
    assert [(row.outcome, row.output_tokens) for row in rows] == [("cancelled", tokens)] * 2
