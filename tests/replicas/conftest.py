"""Three servers behind two proxies, for all tests of a file."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from benchmarks.replicas.proxies import KINDS, found, proxy
from benchmarks.replicas.servers import Replica, replicas
from quotas.ledger import Ledger
from server.clock import SystemClock
from server.db.session import Database
from server.sharing.redis import connect_redis
from server.usage.invariants import LedgerCheck
from server.usage.verdict import Verdict
from tests.boxes import POLL_MS, Box, Person
from tests.cli.programs import environment
from tests.conftest import _with_database, execute
from tests.stand_ins import openai_engine

SERVERS = 3
# What a killed server had read of the events is taken over after half a minute (usage/writer.py).
SETTLES_MS_MAX = 60_000
clock = SystemClock()
MISSING = [kind for kind in KINDS if found(kind) is None]


@asynccontextmanager
async def office(database_url: str, redis_url: str, url: str) -> AsyncIterator[Box]:
    """Where people, keys and rules are made, and rows are read, for servers at `url`."""
    database, redis = Database(database_url, connections_max=2), connect_redis(redis_url)
    try:
        yield Box(url, database, Ledger(redis), clock)
    finally:
        await database.close()
        await redis.aclose()


def short_folder(parent: Path, name: str) -> Path:
    """A new folder."""
    folder = parent / f"{name}-{uuid4().hex[:6]}"
    folder.mkdir()
    return folder


@dataclass
class Stage:
    """What stands.

    Attributes:
        proxies: their URLs, by kind.
        office: where people are made and rows are read; reaches the first server.
        order: what the engine does.
    """

    servers: list[Replica]
    proxies: dict[str, str]
    office: Box
    order: openai_engine.Order
    folder: Path
    database_url: str

    async def verdict(self) -> Verdict:
        """The books, when nothing is pending any more: as `wirthforge doctor ledger` looks at them."""
        check = LedgerCheck(self.office.ledger, self.office.database, clock)
        deadline_ms = clock.monotonic_ms() + SETTLES_MS_MAX
        while True:
            verdict = await check.run()
            if not (verdict.running or verdict.waiting or verdict.events):
                return verdict
            assert clock.monotonic_ms() < deadline_ms, verdict
            await clock.sleep_ms(POLL_MS)

    def at(self, url: str, person: Person | None = None) -> httpx.AsyncClient:
        """A client of a proxy or a server, with a cookie jar."""
        return httpx.AsyncClient(base_url=url, timeout=30, headers=person.bearer if person else {})


@pytest.fixture(scope="module")
def engine_slots() -> int:
    """How many requests run at a time; a file may have its own."""
    return 1


@pytest.fixture(scope="module")
async def stage(
    postgres_url: str, template: str, redis_server_url: str, short_dir: Path, engine_slots: int
) -> AsyncIterator[Stage]:
    """Three servers as processes, nginx and HAProxy, one Postgres, one Redis, one stand-in engine."""
    if MISSING:
        pytest.skip(f"{' and '.join(MISSING)} not installed: tools/install-proxies")
    name, folder = f"wirthforge_replicas_{uuid4().hex[:8]}", short_folder(short_dir, "replicas")
    await execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    async with Redis.from_url(redis_server_url) as redis:
        await redis.flushdb()
    database_url, order = _with_database(postgres_url, name), openai_engine.Order()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(execute, postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
        engine_url = await stack.enter_async_context(openai_engine.serve(order))
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_server_url,
            "WIRTHFORGE_ENGINES": engine_url,
            "WIRTHFORGE_DATA_DIR": str(folder / "data"),
            "WIRTHFORGE_ENGINE_SLOTS": str(engine_slots),
            "WIRTHFORGE_RESERVED_SLOTS": "0",
            "WIRTHFORGE_PRELOADS": "false",
            "WIRTHFORGE_LOG_LEVEL": "warning",
            # As docs/proxies/haproxy.cfg says.
            "WIRTHFORGE_SHUTDOWN_DELAY_MS": "3000",
            "WIRTHFORGE_SHUTDOWN_GRACE_MS": "20000",
        }
        servers = await stack.enter_async_context(replicas(SERVERS, folder, environment(folder, **settings)))
        addresses = [server.address for server in servers]
        proxies = {
            kind: await stack.enter_async_context(proxy(kind, short_folder(folder, kind), addresses)) for kind in KINDS
        }
        desk = await stack.enter_async_context(office(database_url, redis_server_url, servers[0].url))
        yield Stage(servers, proxies, desk, order, folder, database_url)


@pytest.fixture(params=KINDS)
def proxy_url(stage: Stage, request: pytest.FixtureRequest) -> str:
    """Each proxy."""
    return stage.proxies[request.param]
