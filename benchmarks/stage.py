"""What benchmarks share: programs of ours that end with the block, and a box in front of an engine."""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from quotas.ledger import Ledger
from server.accounts.access import Access
from server.accounts.keys import ApiKeys
from server.accounts.passwords import Passwords
from server.accounts.users import Users
from server.clock import SystemClock
from server.db.migrate import migrate
from server.db.session import Database
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis
from server.sharing.redis import connect_redis

START_MS_MAX = 20_000

clock = SystemClock()


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def program(*arguments: str, environment: dict[str, str] | None = None) -> AsyncIterator[psutil.Process]:
    """A Python program of ours that runs until the block ends."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env={**os.environ, **(environment or {})}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        await running.wait()


async def until_up(url: str, session: aiohttp.ClientSession) -> None:
    """Wait for a server to answer with success."""
    deadline_ms = clock.monotonic_ms() + START_MS_MAX
    while clock.monotonic_ms() < deadline_ms:
        try:
            async with session.get(url) as response:
                if response.ok:
                    return
        except aiohttp.ClientError:
            pass
        await clock.sleep_ms(50)
    sys.exit(f"{url} did not come up")


@dataclass(frozen=True)
class Stage:
    """Services with people on them.

    Attributes:
        keys: an API key for each person, by name.
    """

    environment: Mapping[str, str]
    keys: Mapping[str, str]

    @asynccontextmanager
    async def box(
        self, engine: str, session: aiohttp.ClientSession, **settings: object
    ) -> AsyncIterator[tuple[str, psutil.Process]]:
        """A server in front of an engine's base URL; gives its address and process."""
        port = free_port()
        environment = dict(self.environment)
        environment |= {f"WIRTHFORGE_{name.upper()}": str(value) for name, value in settings.items()}
        arguments = ("server", "serve", "--port", str(port), "--engine", engine)
        async with program(*arguments, environment=environment) as server:
            await until_up(f"http://127.0.0.1:{port}/readyz", session)
            yield f"http://127.0.0.1:{port}", server


@asynccontextmanager
async def stage(*names: str) -> AsyncIterator[Stage]:
    """Postgres and Redis, embedded, and people with keys; one who is called admin is one."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    postgres, redis = Postgres(folder, clock), Redis(folder, clock)
    try:
        await postgres.start()
        await redis.start()
        await migrate(postgres.owner_url)
        database = Database(postgres.url, connections_max=1)
        access, keys = Access(Ledger(connect_redis(redis.url)), clock), {}
        for name in names:
            user = await Users(database, access, Passwords(), clock).add(name, "admin" if name == "admin" else "member")
            _, keys[name] = await ApiKeys(database, access, clock).create(user.id, "benchmark")
        await database.close()
        yield Stage({"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}, keys)
    finally:
        await redis.stop()
        await postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
