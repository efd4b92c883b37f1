"""A box with three engines and a GPU that do what a test says, whose Postgres and Redis can be cut off."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from server.clock import SystemClock
from server.hardware.devices import Device, Sample
from server.hardware.providers import Loaded
from server.settings import Settings
from server.telemetry import REGISTRY
from server.upkeep.jobs import DONE, note_ended
from server.upkeep.owner import Owner
from tests.boxes import Box, Person, serve_box
from tests.hardware.parts import GIB, Made
from tests.metrics.relays import Relay, before_postgres, before_redis
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Order

ENGINES = ("well", "busy", "gone")
GPU = "GPU-stand-in"


def cool(device: Device) -> Sample:
    """A GPU at work."""
    return Sample(
        uuid=device.uuid,
        at=SystemClock().now(),
        used_bytes=40 * GIB,
        free_bytes=40 * GIB,
        utilisation_percent=50,
        power_mw=300_000,
        power_limit_mw=400_000,
        energy_mj=1_000,
        temperature_c=60,
        throttle=(),
    )


@dataclass
class Stage:
    """The box, and what can be done to it.

    Attributes:
        orders: of each engine, whose only model has its name.
        settings: those that do not go through the relays.
        leave: ends an engine, by its name.
        end: ends the server.
    """

    box: Box
    root: Person
    settings: Settings
    postgres: Relay
    redis: Relay
    gpu: Made
    leave: dict[str, Callable[[], Any]]
    end: Callable[[], Any]
    orders: dict[str, Order]

    async def ask(self, engine: str, *, stream: bool = True) -> int:
        """One request to an engine's model; its status."""
        body = {"model": engine, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        async with self.box.http(headers=self.root.bearer) as client:
            return (await client.post("/v1/chat/completions", json=body)).status_code

    async def page(self) -> str:
        """What Prometheus gets."""
        async with self.box.http(headers=self.root.bearer) as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 200, answer.text
        return answer.text

    async def note(self, *tasks: str) -> None:
        """These were done now: what upkeep and backups write down at their end."""
        async with Owner(self.settings.database_url).connection() as connection:
            for task in tasks:
                await note_ended(connection, task, SystemClock(), outcome=DONE, took_ms=5)


@pytest.fixture
async def stage(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """All well."""
    gpu = Made(uuids=[GPU])
    gpu.sampled = cool
    # As of a process that has just begun: engines of other tests are down by now.
    for collector in set(REGISTRY._collector_to_names):
        if {"engine", "xid"} & set(getattr(collector, "_labelnames", ())):
            cast("Any", collector).clear()
    monkeypatch.setattr("server.app.hardware_of", lambda _clock: Loaded((gpu,), {}))
    monkeypatch.setattr("server.hardware.monitor.SAMPLE_EVERY_MS", 500)
    monkeypatch.setattr("server.engines.pool.PROBE_EVERY_MS", 500)
    orders = {name: Order(model=name) for name in ENGINES}
    async with AsyncExitStack() as stack:
        leave, urls = {}, []
        for name, order in orders.items():
            serving = await stack.enter_async_context(AsyncExitStack())
            urls.append(f"{name}={await serving.enter_async_context(openai_engine.serve(order))}")
            leave[name] = serving.aclose
        postgres, database_url = await stack.enter_async_context(before_postgres(settings.database_url))
        redis, redis_url = await stack.enter_async_context(before_redis(settings.redis_url))
        cut_off = replace(
            settings,
            database_url=database_url,
            redis_url=redis_url,
            engines=tuple(urls),
            data_dir=tmp_path / "data",
        )
        serving = await stack.enter_async_context(AsyncExitStack())
        box = await serving.enter_async_context(serve_box(cut_off))
        root = await box.person("root", "admin")
        yield Stage(box, root, settings, postgres, redis, gpu, leave, serving.aclose, orders)
