"""What the server adds to the first token, against the same engine asked directly, in one run.

    python -m benchmarks.latency

The whole path is on: key, gate in Redis, leases, charges, usage into Postgres, metrics, logs. Direct and through the
server take turns, request by request, so that a slow moment of the machine hits both.
"""

import asyncio
import statistics
from time import perf_counter

import aiohttp
import psutil
import uvloop

from benchmarks.engine import MODEL
from benchmarks.stage import free_port, program, stage, until_up

ALONE_ROUNDS = 300
TOKENS = 16
CROWD_TOKENS = 150
CROWDS = (8, 64)


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
    engine_port = free_port()
    engine = f"http://127.0.0.1:{engine_port}"
    async with (
        stage("benchmark") as services,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        program("benchmarks.engine", str(engine_port)),
    ):
        await until_up(f"{engine}/v1/models", session)
        async with services.box(f"{engine}/v1", session, engine_slots=max(CROWDS)) as (box, server):
            await measure(session, engine, box, services.keys["benchmark"], server)


if __name__ == "__main__":
    uvloop.run(main())
