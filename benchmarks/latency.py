"""What the server adds to the first token, against the same engine asked directly, in one run.

    python -m benchmarks.latency

The whole path is on: key, gate in Redis, leases, charges, usage into Postgres, metrics, logs. Direct and through the
server take turns, request by request, so that a slow moment of the machine hits both.
"""

import asyncio
import os
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp
import psutil
import uvloop

from benchmarks.engine import MODEL
from server.accounts.keys import ApiKeys
from server.accounts.passwords import Passwords
from server.accounts.users import Users
from server.clock import SystemClock
from server.db.migrate import migrate
from server.db.session import Database
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis

ALONE_ROUNDS = 300
TOKENS = 16
CROWD_TOKENS = 150
CROWDS = (8, 64)
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


async def first_token_ms(session: aiohttp.ClientSession, base: str, key: str, tokens: int, pace_ms: int) -> float:
    """Ask, read to the end, and tell when the first token came, in milliseconds."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "benchmark"}],
        "stream": True,
        "max_tokens": tokens,
        "pace_ms": pace_ms,
    }
    began, first = perf_counter(), 0.0
    async with session.post(
        f"{base}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
    ) as response:
        assert response.status == 200, await response.text()  # noqa: PLR2004
        text = b""
        async for chunk in response.content.iter_any():
            if not first and b" token" in chunk:
                first = perf_counter()
            text += chunk
    assert text.count(b" token") == tokens
    return (first - began) * 1000


def describe(values: list[float]) -> str:
    """p50 and p99."""
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):7.2f} ms   p99 {ordered[int(len(ordered) * 0.99)]:7.2f} ms"


async def measure(session: aiohttp.ClientSession, engine: str, box: str, key: str, server: psutil.Process) -> None:
    """All figures."""
    for base in (engine, box):
        for _ in range(20):
            await first_token_ms(session, base, key, TOKENS, 0)
    direct: list[float] = []
    through: list[float] = []
    for _ in range(ALONE_ROUNDS):
        direct.append(await first_token_ms(session, engine, key, TOKENS, 0))
        through.append(await first_token_ms(session, box, key, TOKENS, 0))
    added = [with_server - without for with_server, without in zip(through, direct, strict=True)]
    print(f"one at a time, {ALONE_ROUNDS} pairs")
    print(f"  direct   {describe(direct)}\n  through  {describe(through)}\n  added    {describe(added)}")
    for crowd in CROWDS:
        print(f"{crowd} streams at once, {CROWD_TOKENS} tokens each, 50 tokens/s")
        for name, base in (("direct", engine), ("through", box)):
            before = server.cpu_times()
            answers = await asyncio.gather(
                *(first_token_ms(session, base, key, CROWD_TOKENS, 20) for _ in range(crowd))
            )
            used = server.cpu_times()
            cpu_us = (used.user + used.system - before.user - before.system) * 1e6 / (crowd * CROWD_TOKENS)
            print(f"  {name:8} {describe(list(answers))}" + (f"   CPU {cpu_us:.0f} µs a chunk" if base == box else ""))


async def main() -> None:
    """Start everything, measure, end everything."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    postgres, redis = Postgres(folder, clock), Redis(folder, clock)
    try:
        await postgres.start()
        await redis.start()
        await migrate(postgres.url)
        database = Database(postgres.url, connections_max=1)
        user = await Users(database, Passwords(), clock).add("benchmark", "member")
        _, key = await ApiKeys(database, clock).create(user.id, "benchmark")
        await database.close()
        engine_port, box_port = free_port(), free_port()
        engine, box = f"http://127.0.0.1:{engine_port}", f"http://127.0.0.1:{box_port}"
        environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "WIRTHFORGE_ENGINE_SLOTS": str(max(CROWDS)),
        }
        serve = ("server", "serve", "--port", str(box_port), "--engine", f"{engine}/v1")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            program("benchmarks.engine", str(engine_port)),
        ):
            await until_up(f"{engine}/v1/models", session)
            async with program(*serve, environment=environment) as server:
                await until_up(f"{box}/readyz", session)
                await measure(session, engine, box, key, server)
    finally:
        await redis.stop()
        await postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    uvloop.run(main())
