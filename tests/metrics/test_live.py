"""The dashboard and the alerts against a real Prometheus that scrapes a real box."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from server.clock import SystemClock
from server.hardware.devices import Device, Sample
from server.sharing.redis import connect_redis
from server.telemetry import (
    CLOUD_ENDS,
    CLOUD_SENDS,
    CLOUD_SENT_BYTES,
    MODEL_LOAD_SECONDS,
    MODEL_MEMORY_RATIO,
    MODEL_PRELOADS,
    PAUSED_SECONDS,
    PAUSES,
)
from tests.conftest import execute
from tests.metrics.conftest import Stage, cool
from tests.metrics.prometheus import dashboard, needs_prometheus, rules, scraping, shortened
from tests.sharing.replicas import ENGINE, asking, house_of

pytestmark = needs_prometheus

QUERIES = [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", ())]
ALL = {rule["alert"] for rule in rules()}
# Grafana's words, and what they are here.
WORDS = {"$engine": ".*", "$__rate_interval": "5s", "$__range": "10s"}
# People read before they ask again.
PAUSE_MS = 100


def substituted(expression: str) -> str:
    """An expression as Grafana sends it, all engines chosen."""
    for word, value in WORDS.items():
        expression = expression.replace(word, value)
    assert "$" not in expression
    return expression


@asynccontextmanager
async def busy(stage: Stage) -> AsyncIterator[None]:
    """People ask for as long as the block takes; of a person with a small budget most is refused."""
    ben = await stage.box.person("ben")
    await stage.box.allow(ben, requests_per_minute=1)

    async def go_on() -> None:
        async with stage.box.http(headers=ben.bearer) as client:
            while True:
                assert await stage.ask("well") == 200
                assert await stage.ask("council:2") == 200
                body = {"model": "well", "messages": [{"role": "user", "content": "hi"}]}
                assert (await client.post("/v1/chat/completions", json=body)).status_code in {200, 429}
                await SystemClock().sleep_ms(PAUSE_MS)

    asked = asyncio.create_task(go_on())
    try:
        yield
    finally:
        if not asked.done():
            asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked


def count_what_is_elsewhere(times: int) -> None:
    """Count what takes a cloud, a GPU that loads models, or a pause: other tests show that these count there."""
    for _ in range(times):
        CLOUD_SENDS.labels("stand-in").inc()
        CLOUD_SENT_BYTES.labels("stand-in").inc(100)
        CLOUD_ENDS.labels("completed").inc()
        MODEL_LOAD_SECONDS.labels("well").observe(3)
        MODEL_PRELOADS.labels("well", "loaded").inc()
        MODEL_MEMORY_RATIO.labels("well").observe(1)
        PAUSES.labels("well", "paused").inc()
        PAUSED_SECONDS.labels("well").observe(2)


async def test_every_panel_of_the_dashboard_shows_something(stage: Stage, tmp_path: Path) -> None:
    """Under load each of its queries is understood, and gives numbers."""
    stage.orders["well"].usage = {"prompt_tokens": 7, "completion_tokens": 3}
    await stage.note("partitions", "backup")
    async with scraping(tmp_path, stage.box, stage.root) as prometheus, busy(stage):
        for title, query in QUERIES:
            count_what_is_elsewhere(1)
            assert await prometheus.gives(substituted(query)), title
        (running,) = await prometheus.query('max(wirthforge_engine_slots{engine="well"})')
        assert running["value"][1] == "4"
        (page,) = await prometheus.query('sum(wirthforge_refusals_total{reason="limited"})')
        assert float(page["value"][1]) >= 1


async def test_each_alert_fires_when_it_should_and_no_other(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is pending while all is well; then everything breaks, each in its own way, and each is told."""
    await stage.note("partitions", "backup")
    async with scraping(tmp_path, stage.box, stage.root, [shortened(rule) for rule in rules()]) as prometheus:
        async with busy(stage):
            await prometheus.gives("count_over_time(wirthforge_build_info[20s]) > 4")
        await prometheus.is_quiet()
        assert set((await prometheus.evaluations()).values()) == {""}

        await _break_things(stage, monkeypatch)
        async with _lost_server(stage), _broken_engine(stage), _long_wait(stage):
            away = {"WirthforgePostgresAway", "WirthforgeRedisAway", "WirthforgeServerGone"}
            await prometheus.fires(*(ALL - away), within_ms=30_000)
        assert prometheus.fired["WirthforgeEngineDown"]["labels"]["engine"] == "gone"
        assert prometheus.fired["WirthforgeLongWaits"]["labels"]["engine"] == "busy"
        assert away.isdisjoint(prometheus.fired)

        await stage.postgres.cut()
        await prometheus.fires("WirthforgePostgresAway")
        assert "WirthforgeServerGone" not in prometheus.fired
        await stage.redis.cut()
        await prometheus.fires("WirthforgeRedisAway")
        assert "WirthforgeServerGone" not in prometheus.fired
        await stage.end()
        await prometheus.fires("WirthforgeServerGone")
        assert set(prometheus.fired) == ALL
        for alert in prometheus.fired.values():
            assert not re.search("<|%!", alert["annotations"]["summary"]), alert


async def _break_things(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine leaves, the GPU is hot and full and has a fault, the disk is full, upkeep and backup are old."""

    def hot(device: Device) -> Sample:
        return replace(cool(device), temperature_c=95, free_bytes=0, xids=(79,))

    stage.gpu.sampled = hot
    monkeypatch.setattr("server.telemetry.shutil.disk_usage", lambda _: _DiskUsage(100, 98, 2))
    await stage.leave["gone"]()
    await execute(stage.settings.database_url, "UPDATE upkeep_runs SET ended_at = ended_at - interval '3 days'")


class _DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


@asynccontextmanager
async def _lost_server(stage: Stage) -> AsyncIterator[None]:
    """A second server's gate takes a slot, and is cut off."""
    redis = connect_redis(stage.settings.redis_url)
    async with house_of(redis, stage.settings) as house:
        gate = house.replica("lost", 4)
        await gate.admit(asking(version=await house.ledger.policy_version()))
        await house.cut_off("lost")
        yield
        assert await house.ledger.load(ENGINE) == (0, 0)
    await redis.aclose()


@asynccontextmanager
async def _broken_engine(stage: Stage) -> AsyncIterator[None]:
    """An engine breaks each answer off in the middle, and others ask it all the same."""

    async def breaks(*_: Any) -> Any:
        raise ConnectionError

    stage.orders["well"].behaviour = breaks

    async def go_on() -> None:
        while True:
            assert await stage.ask("well", stream=False) >= 500
            await SystemClock().sleep_ms(2 * PAUSE_MS)

    asked = asyncio.create_task(go_on())
    try:
        yield
    finally:
        asked.cancel()
        await asyncio.wait([asked])


@asynccontextmanager
async def _long_wait(stage: Stage) -> AsyncIterator[None]:
    """All slots of an engine are taken by answers that do not end."""
    stage.orders["busy"].hold.clear()
    asked = [asyncio.create_task(stage.ask("busy")) for _ in range(6)]
    try:
        yield
    finally:
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)
        stage.orders["busy"].hold.set()
