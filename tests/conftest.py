"""Services and boxes for tests.

Postgres and Redis are real: those at DATABASE_URL and REDIS_URL, which tests may empty, or embedded ones that each
test process starts for itself. The schema is migrated once into a template, and every test gets a copy of it.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import tiny_model
from quotas.ledger import Ledger
from server.clock import SystemClock
from server.db.migrate import migrate
from server.db.session import async_url
from server.embedded.llama import Llama
from server.embedded.models import DEMONSTRATION
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis as EmbeddedRedis
from server.engines.openai_compatible import OpenAICompatible
from server.settings import Settings
from server.sharing.redis import connect_redis
from tests.boxes import Box, serve_box
from tests.stand_ins import openai_engine, wanderer

EXTERNAL_REDIS_DATABASE_FIRST = 8
# Each test gets a database of its own, which is many files: they are kept in memory where there is room.
MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 2_000_000_000  # noqa: S108
SILENCE_MS_MAX = 3_000
# A real engine on a busy machine may take its time.
REAL_SILENCE_MS_MAX = 60_000


@pytest.fixture(scope="session")
def short_dir() -> Iterator[Path]:
    """A folder with a short path, because sockets will lie in it."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN
    folder = Path(tempfile.mkdtemp(prefix="wf-", dir=MEMORY if has_room else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres_url(short_dir: Path) -> AsyncIterator[str]:
    """A role that may create databases."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    postgres = Postgres(short_dir, SystemClock())
    await postgres.start()
    yield str(make_url(postgres.url).set(username="postgres").render_as_string(hide_password=False))
    await postgres.stop()


async def execute(url: str, *statements: str) -> None:
    """As whoever the URL names, each by itself."""
    engine = create_async_engine(async_url(url), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


def _with_database(url: str, name: str) -> str:
    return make_url(async_url(url)).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
async def template(postgres_url: str) -> AsyncIterator[str]:
    """The name of a migrated, empty database."""
    name = f"wirthforge_template_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    await migrate(_with_database(postgres_url, name))
    yield name
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres_url: str, template: str) -> AsyncIterator[str]:
    """A database of the test's own."""
    name = f"wirthforge_test_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _with_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def redis_server_url(short_dir: Path, worker_id: str) -> AsyncIterator[str]:
    """A Redis database that this test process has for itself."""
    if url := os.environ.get("REDIS_URL"):
        number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
        yield f"{url.rsplit('/', 1)[0] if url.count('/') > 2 else url}/{EXTERNAL_REDIS_DATABASE_FIRST + number}"
        return
    redis = EmbeddedRedis(short_dir, SystemClock())
    await redis.start()
    yield redis.url
    await redis.stop()


@pytest.fixture
async def redis_url(redis_server_url: str) -> str:
    """That database, empty."""
    async with Redis.from_url(redis_server_url) as redis:
        await redis.flushdb()
    return redis_server_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of it."""
    async with connect_redis(redis_url) as client:
        yield client


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    """A ledger in virtual time, which begins at one second."""
    return Ledger(redis, now_ms=1_000)


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of a box on a free port, with limits that a test can reach."""
    return Settings(
        port=0,
        database_url=database_url,
        redis_url=redis_url,
        engine_slots=4,
        # What engines are asked is what tests ask them.
        calibrates=False,
        engine_silence_ms_max=SILENCE_MS_MAX,
        shutdown_grace_ms=2_000,
        redis_grace_ms=500,
        log_level="warning",
        request_bytes_max=16 * 1024 * 1024,
    )


@pytest.fixture
def order() -> openai_engine.Order:
    """What the stand-in engine does; change it at will."""
    return openai_engine.Order()


@pytest.fixture
async def engine_url(order: openai_engine.Order) -> AsyncIterator[str]:
    """A stand-in engine."""
    async with openai_engine.serve(order) as url:
        yield url


MakeBox = Callable[..., Awaitable[Box]]


@pytest.fixture
async def make_box(settings: Settings) -> AsyncIterator[MakeBox]:
    """Starts boxes that end with the test."""
    async with AsyncExitStack() as stack:

        async def make(settings: Settings = settings, **options: object) -> Box:
            return await stack.enter_async_context(serve_box(settings, **options))  # type: ignore[arg-type]

        yield make


@pytest.fixture
async def box(make_box: MakeBox, settings: Settings, engine_url: str) -> Box:
    """A box in front of the stand-in engine, with four slots."""
    return await make_box(replace(settings, engines=(engine_url,)))


async def _llama(folder: Path, *, name: str, layers: int, slots: int) -> Llama:
    path = folder / f"{name}.gguf"
    tiny_model.build(path, layers=layers)
    llama = Llama(path, name=name, slots=slots, context_tokens=4096, data_dir=folder, clock=SystemClock())
    await llama.start()
    return llama


@pytest.fixture(scope="session")
async def llama(short_dir: Path) -> AsyncIterator[Llama]:
    """llama.cpp with a model of one layer, which says anything, fast."""
    running = await _llama(short_dir, name=tiny_model.NAME, layers=1, slots=4)
    yield running
    await running.stop()


@pytest.fixture(scope="session")
async def slow_llama(short_dir: Path) -> AsyncIterator[Llama]:
    """llama.cpp with layers enough to take seconds for an answer."""
    running = await _llama(short_dir, name="slow", layers=24, slots=2)
    yield running
    await running.stop()


@pytest.fixture(scope="session")
async def wandering(short_dir: Path) -> AsyncIterator[Llama]:
    """llama.cpp with a model whose every token depends on all before it."""
    data_dir = short_dir / "wanderer"
    data_dir.mkdir()
    wanderer.build(data_dir / "model.gguf")
    llama = Llama(
        data_dir / "model.gguf", name="w", slots=2, context_tokens=4096, data_dir=data_dir, clock=SystemClock()
    )
    await llama.start()
    yield llama
    await llama.stop()


def adapter(llama: Llama, *, name: str) -> OpenAICompatible:
    """The engine of a running llama.cpp, as `up` makes it."""
    return OpenAICompatible(
        llama.base_url,
        name=name,
        slots=4,
        silence_ms_max=REAL_SILENCE_MS_MAX,
        api_key=llama.api_key,
        is_demonstration=True,
    )


@pytest.fixture
async def llama_box(make_box: MakeBox, llama: Llama) -> Box:
    """A box in front of llama.cpp."""
    return await make_box(engines=[adapter(llama, name=tiny_model.NAME)])


@pytest.fixture(scope="session")
async def built_in(short_dir: Path) -> AsyncIterator[dict[str, Llama]]:
    """The models that `up` serves when it is given none, each in a llama.cpp of its own."""
    running: dict[str, Llama] = {}
    for path in DEMONSTRATION:
        clock = SystemClock()
        llama = Llama(path, name=path.stem, slots=4, context_tokens=2048, data_dir=short_dir, clock=clock)
        await llama.start()
        running[path.stem] = llama
    yield running
    for llama in running.values():
        await llama.stop()


@pytest.fixture
async def built_in_box(make_box: MakeBox, built_in: dict[str, Llama]) -> Box:
    """A box as a stranger starts it: three small models that know this server."""
    return await make_box(engines=[adapter(llama, name=name) for name, llama in built_in.items()])
