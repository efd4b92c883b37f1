"""What traces cost: a server that traces everything, and one that traces nothing, against the same engine in one run.

    python -m benchmarks.tracing [--before FOLDER]

The servers take turns, request by request, so that a slow moment of the machine hits all of them. `--before` names a
folder with another state of the code (`server`, `quotas`, `migrations`), whose server takes part, too. Processor time
is the kernel's count for each server's process; everything else that a request needs is on as it always is.
"""

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import uvloop
from aiohttp import web

from benchmarks.latency import describe, first_token_ms
from benchmarks.stage import Stage, free_port, program, stage, until_up

PAIRS = 400
WARM_ROUNDS = 40
TOKENS = 16
CROWD, CROWD_TOKENS, CROWD_ROUNDS = 32, 150, 3


@dataclass
class Server:
    """One of those that are compared."""

    name: str
    url: str
    process: psutil.Process
    first_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    crowd_cpu_s: float = 0.0

    def used_s(self) -> float:
        """Processor time so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)


@asynccontextmanager
async def box(
    services: Stage, engine: str, session: aiohttp.ClientSession, more: Mapping[str, str]
) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A server in front of the engine, with more in its environment."""
    port = free_port()
    environment = {**services.environment, "WIRTHFORGE_ENGINE_SLOTS": str(CROWD), **more}
    arguments = ("server", "serve", "--port", str(port), "--engine", engine)
    async with program(*arguments, environment=environment) as process:
        await until_up(f"http://127.0.0.1:{port}/readyz", session)
        yield f"http://127.0.0.1:{port}", process


async def measure(servers: list[Server], session: aiohttp.ClientSession, key: str) -> None:
    """One request after the other, and then many at once, by turns."""
    for _ in range(WARM_ROUNDS):
        for server in servers:
            await first_token_ms(session, server.url, key, TOKENS, 0)
    for number in range(PAIRS):
        # Nobody is always first.
        for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
            before_s = server.used_s()
            server.first_ms.append(await first_token_ms(session, server.url, key, TOKENS, 0))
            server.cpu_s += server.used_s() - before_s
    for _ in range(CROWD_ROUNDS):
        for server in servers:
            before_s = server.used_s()
            await asyncio.gather(*(first_token_ms(session, server.url, key, CROWD_TOKENS, 20) for _ in range(CROWD)))
            server.crowd_cpu_s += server.used_s() - before_s


def tell(servers: list[Server], spans: int, batches: int) -> None:
    """The figures."""
    off = next(server for server in servers if server.name == "off")
    print(f"one at a time, {PAIRS} rounds; {CROWD} streams at once, {CROWD_TOKENS} tokens each, {CROWD_ROUNDS} rounds")
    for server in servers:
        apart = [one - other for one, other in zip(server.first_ms, off.first_ms, strict=True)]
        chunks = CROWD * CROWD_TOKENS * CROWD_ROUNDS
        print(
            f"  {server.name:7} first token {describe(server.first_ms)}   "
            f"against off {statistics.median(apart):+.2f} ms   "
            f"CPU {server.cpu_s * 1e3 / PAIRS:.2f} ms a request, {server.crowd_cpu_s * 1e6 / chunks:.1f} µs a chunk   "
            f"memory {server.process.memory_info().rss / 2**20:.0f} MiB"
        )
    print(f"  the collector took {batches} batches, {spans} KiB")


async def main(folder: str) -> None:
    """Start everything, measure, end everything."""
    bodies: list[int] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(len(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", collector := free_port()).start()
    kinds: dict[str, dict[str, str]] = {"off": {}, "on": {"WIRTHFORGE_TRACES_URL": f"http://127.0.0.1:{collector}"}}
    if folder:
        kinds["before"] = {"PYTHONSAFEPATH": "1", "PYTHONPATH": folder}
    engine_port = free_port()
    engine = f"http://127.0.0.1:{engine_port}"
    async with (
        stage("benchmark") as services,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        program("benchmarks.engine", str(engine_port)),
        AsyncExitStack() as stack,
    ):
        await until_up(f"{engine}/v1/models", session)
        servers = []
        for name, more in kinds.items():
            url, process = await stack.enter_async_context(box(services, f"{engine}/v1", session, more))
            servers.append(Server(name, url, process))
        await measure(servers, session, services.keys["benchmark"])
        tell(servers, sum(bodies) // 1024, len(bodies))
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main(str(Path(sys.argv[2]).resolve()) if sys.argv[1:2] == ["--before"] else ""))
