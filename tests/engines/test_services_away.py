"""Postgres and Redis go away while engines are registered and prompts lie in their caches; both of the test's own."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from benchmarks import tiny_model
from server.clock import SystemClock
from server.db.migrate import migrate
from server.embedded.llama import Llama
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox, adapter
from tests.engines.test_isolation import CACHED_MIN, TEMPLATE_MAX, cached, prompt
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order

ENGINES = "/api/admin/engines"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """A Postgres that may be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    postgres = Postgres(folder, SystemClock())
    await postgres.start()
    await migrate(postgres.owner_url)
    yield postgres
    await postgres.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def own_redis() -> AsyncIterator[Redis]:
    """A Redis that may be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    redis = Redis(folder, SystemClock())
    await redis.start()
    yield redis
    await redis.stop()
    shutil.rmtree(folder)


async def call(box: Box, someone: Person, method: str, path: str, **body: Any) -> httpx.Response:
    """One request."""
    async with box.http(headers=someone.bearer) as client:
        return await client.request(method, path, json=body or None)


async def test_registered_engines_outlive_postgres(
    make_box: MakeBox, settings: Settings, own_postgres: Postgres, engine_url: str, order: Order
) -> None:
    """Whose key is known goes on; changes get a 503 and are not half done; afterwards they come, and all rows."""
    box = await make_box(replace(settings, database_url=own_postgres.url))
    root, ann = await box.person("root", "admin"), await box.person("ann")
    async with openai_engine.serve(Order()) as other_url:
        new = {"name": "b", "kind": "openai", "url": other_url}
        assert (await call(box, root, "POST", ENGINES, name="a", kind="openai", url=engine_url)).status_code == 201
        assert (await call(box, ann, "POST", "/v1/chat/completions", **CHAT)).status_code == 200
        asked = len(order.seen)
        await own_postgres.stop()
        for _ in range(3):
            answer = await call(box, ann, "POST", "/v1/chat/completions", **CHAT)
            assert (answer.status_code, answer.headers["x-wirthforge-engine"]) == (200, "a")
        for method, path, body in (
            ("GET", ENGINES, {}),
            ("POST", ENGINES, new),
            ("PATCH", f"{ENGINES}/a", {"is_draining": True}),
            ("DELETE", f"{ENGINES}/a", {}),
        ):
            answer = await call(box, root, method, path, **body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        answer = await call(box, ann, "POST", "/v1/chat/completions", **CHAT)
        assert (answer.status_code, answer.headers["x-wirthforge-engine"]) == (200, "a")
        assert len(order.seen) == asked + 4
        await own_postgres.start()
        # The connections of before are broken; each may be found out once.
        while (answer := await call(box, root, "POST", ENGINES, **new)).status_code == 503:
            assert answer.json()["error"]["code"] == "database_unavailable"
        assert answer.status_code == 201
        assert (await call(box, root, "DELETE", f"{ENGINES}/a")).status_code == 204
        answer = await call(box, ann, "POST", "/v1/chat/completions", **CHAT)
        assert (answer.status_code, answer.headers["x-wirthforge-engine"]) == (200, "b")
        await box.database.close()
        assert {row.outcome for row in await box.usage(6)} == {"completed"}
        assert sum(await box.ledger.load("a")) + sum(await box.ledger.load("b")) == 0


async def until_cached(box: Box, someone: Person, text: str) -> None:
    """Ask until the prompt is found: what was noted over a connection that had broken is noted with the next one."""
    async with asyncio.timeout(10):
        while await cached(box, someone, text) <= CACHED_MIN:
            pass


async def test_nobody_finds_anothers_prompt_after_redis_was_away(
    make_box: MakeBox, settings: Settings, own_redis: Redis, llama: Llama
) -> None:
    """A Redis that comes back knows whose slots were, not what was done since: at first nothing is anybody's."""
    box = await make_box(replace(settings, redis_url=own_redis.url), engines=[adapter(llama, name=tiny_model.NAME)])
    ann, ben = await box.person("ann"), await box.person("ben")
    for _ in range(2):
        text = prompt()
        assert await cached(box, ann, text) <= TEMPLATE_MAX
        await own_redis.stop()
        await own_redis.start()
        assert await cached(box, ben, text) <= TEMPLATE_MAX
        assert await cached(box, ann, text) <= TEMPLATE_MAX
        await until_cached(box, ann, text)
        await until_cached(box, ben, text)
    assert sum(await box.ledger.load(tiny_model.NAME)) == 0
