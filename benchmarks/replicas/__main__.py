"""Runs all of it and prints a table; see benchmarks/replicas/__init__.py."""

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.engine import MODEL
from benchmarks.replicas import __doc__ as theory
from benchmarks.replicas.loads import Load, Told
from benchmarks.replicas.proxies import KINDS, found, proxy
from benchmarks.replicas.servers import Replica, replicas
from benchmarks.stage import clock, free_port, program, stage, until_up
from quotas.ledger import Ledger
from server import VERSION
from server.db.session import Database
from server.sharing.redis import connect_redis
from server.usage.invariants import LedgerCheck

SERVERS = 3
PEOPLE = ("ann", "bob", "cid", "dan")
SLOTS = 16
TOKENS, PACE_MS = 20, 20
SETTLES_MS_MAX = 60_000
HANGS_MS = (3_000, 8_000)
SETTINGS = {
    "WIRTHFORGE_ENGINE_SLOTS": str(SLOTS),
    "WIRTHFORGE_RESERVED_SLOTS": "0",
    "WIRTHFORGE_CALIBRATES": "false",
    "WIRTHFORGE_PRELOADS": "false",
    "WIRTHFORGE_LOG_LEVEL": "error",
    "WIRTHFORGE_SHUTDOWN_DELAY_MS": "3000",
    "WIRTHFORGE_SHUTDOWN_GRACE_MS": "30000",
}


@dataclass
class Scene:
    """What stands.

    Attributes:
        ways: URLs by what leads there; `one` only to the first server.
    """

    servers: Sequence[Replica]
    ways: Mapping[str, str]
    one: Mapping[str, str]
    keys: Sequence[str]
    ledger: Ledger
    check: LedgerCheck
    clients: int
    seconds: int

    def load(self, ways: Mapping[str, str]) -> Load:
        """Clients on these ways."""
        body = {"model": MODEL, "max_tokens": TOKENS, "pace_ms": PACE_MS}
        body |= {"messages": [{"role": "user", "content": "benchmark"}]}
        return Load(ways, self.keys, body, b'" token"', self.clients)


def percentile(values: Sequence[int], percent: int) -> int:
    """Of these, or 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else 0


def row(name: str, told: Sequence[Told], duration_ms: int) -> None:
    """One line: how many came to what, and when their first token came."""
    firsts = [one.first_ms - one.began_ms for one in told if one.is_well and one.first_ms]
    well = [one for one in told if one.is_well]
    before = [one for one in told if not one.is_well and not one.has_begun]
    begun = [one for one in told if not one.is_well and one.has_begun]
    median = statistics.median(firsts) if firsts else 0
    print(
        f"  {name:<28} {len(well) * 1000 / max(duration_ms, 1):6.1f} a second   first token p50 {median:5.0f}"
        f"  p99 {percentile(firsts, 99):5d}  max {max(firsts, default=0):5d} ms   {len(well):5d} whole"
        f"  failed: {len(before)} not begun, {len(begun)} begun",
        flush=True,
    )
    for fault, count in Counter(one.fault for one in (*before, *begun)).most_common(3):
        print(f"      {count} × {fault[:150]}")


async def plain(scene: Scene) -> None:
    """One server and three, each way by itself."""
    print(f"plain: {scene.clients} clients, {SLOTS} slots, answers of {TOKENS} tokens in {TOKENS * PACE_MS} ms")
    ways = [(f"one server, {name}", {name: url}) for name, url in scene.one.items()]
    ways += [("three servers, direct", {server.address: server.url for server in scene.servers})]
    ways += [(f"three servers, {name}", {name: url}) for name, url in scene.ways.items()]
    for name, urls in ways:
        load, began_ms = scene.load(urls), clock.monotonic_ms()
        load.begin()
        await clock.sleep_ms(scene.seconds * 1000)
        told = await load.end()
        row(name, told, clock.monotonic_ms() - began_ms)


async def disturbed(scene: Scene, title: str, disturb: Callable[[Load], Awaitable[None]]) -> list[Told]:
    """Load through both proxies before, during and after something; who began when counts there."""
    print(f"{title}: {scene.clients} clients, half of them through each proxy")
    load, marks = scene.load(scene.ways), [clock.monotonic_ms()]
    load.begin()
    await clock.sleep_ms(scene.seconds * 1000)
    marks.append(clock.monotonic_ms())
    await disturb(load)
    marks.append(clock.monotonic_ms())
    await clock.sleep_ms(scene.seconds * 1000)
    told = await load.end()
    marks.append(clock.monotonic_ms())
    for phase, name in enumerate(("before", "during", "after")):
        for way in scene.ways:
            part = [one for one in told if one.way == way and marks[phase] <= one.began_ms < marks[phase + 1]]
            row(
                f"{name} ({(marks[phase + 1] - marks[phase]) / 1000:.0f} s), {way}",
                part,
                marks[phase + 1] - marks[phase],
            )
    return told


async def restart(scene: Scene) -> bool:
    """Each server in turn; whether nothing failed."""

    async def roll(_: Load) -> None:
        for server in scene.servers:
            server.signal(signal.SIGTERM)
            await server.ended()
            await server.start()

    return all(one.is_well for one in await disturbed(scene, "restart", roll))


async def running(scene: Scene) -> set[str]:
    """The requests that hold a slot."""
    return {one.id for engine in (await scene.ledger.view()).engines for one in engine.running}


async def kill(scene: Scene) -> None:
    """One of three, which comes back when its slots are free."""
    victim, back_ms, dead = scene.servers[1], 0, set[str]()

    async def strike(_: Load) -> None:
        nonlocal back_ms, dead
        victim.signal(signal.SIGKILL)
        killed_ms = clock.monotonic_ms()
        await victim.ended()
        there = await running(scene)
        # Longer than any answer takes.
        await clock.sleep_ms(2_000)
        dead = there & await running(scene)
        while dead & await running(scene):
            await clock.sleep_ms(50)
        back_ms = clock.monotonic_ms() - killed_ms
        await victim.start()

    await disturbed(scene, "kill", strike)
    print(f"  {len(dead)} slots of the killed server were free after {back_ms} ms")


async def hang(scene: Scene, duration_ms: int) -> None:
    """One of three."""
    victim = scene.servers[2]

    async def freeze(_: Load) -> None:
        victim.signal(signal.SIGSTOP)
        await clock.sleep_ms(duration_ms)
        victim.signal(signal.SIGCONT)
        await clock.sleep_ms(2_000)

    await disturbed(scene, f"hang of {duration_ms} ms", freeze)


async def books(scene: Scene) -> bool:
    """Whether usage is exact, as soon as nothing is pending."""
    deadline_ms = clock.monotonic_ms() + SETTLES_MS_MAX
    while True:
        verdict = await scene.check.run()
        pending = verdict.running + verdict.waiting + verdict.events
        if not pending or clock.monotonic_ms() >= deadline_ms:
            break
        await clock.sleep_ms(500)
    print(f"ledger: {'ok' if verdict.is_well else 'broken'}, {len(verdict.lines)} budgets compared, {pending} pending")
    for breach in verdict.broken:
        print(f"  {breach.sentence}")
    return verdict.is_well and not pending


@asynccontextmanager
async def standing(clients: int, seconds: int) -> AsyncIterator[Scene]:
    """Start everything, end everything."""
    folder, engine_port = Path(tempfile.mkdtemp(prefix="wf-")), free_port()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        services = await stack.enter_async_context(stage(*PEOPLE))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await stack.enter_async_context(program("benchmarks.engine", str(engine_port), str(SLOTS)))
        await until_up(f"http://127.0.0.1:{engine_port}/v1/models", session)
        environment = {**os.environ, **services.environment, **SETTINGS}
        environment |= {
            "WIRTHFORGE_ENGINES": f"http://127.0.0.1:{engine_port}/v1",
            "WIRTHFORGE_DATA_DIR": str(folder / "data"),
        }
        servers = await stack.enter_async_context(replicas(SERVERS, folder, environment))
        ways: dict[str, str] = {}
        one = {"direct": servers[0].url}
        for kind in KINDS:
            for urls, count in ((ways, SERVERS), (one, 1)):
                place = folder / f"{kind}-{count}"
                place.mkdir()
                addresses = [server.address for server in servers[:count]]
                urls[kind] = await stack.enter_async_context(proxy(kind, place, addresses))
        database = Database(services.environment["DATABASE_URL"], connections_max=2)
        stack.push_async_callback(database.close)
        redis = connect_redis(services.environment["REDIS_URL"])
        stack.push_async_callback(redis.aclose)
        ledger = Ledger(redis)
        check = LedgerCheck(ledger, database, clock)
        yield Scene(servers, ways, one, list(services.keys.values()), ledger, check, clients, seconds)


async def run(clients: int, seconds: int) -> bool:
    """All of it; whether all is as it should be."""
    async with standing(clients, seconds) as scene:
        await plain(scene)
        is_well = await restart(scene)
        await kill(scene)
        for duration_ms in HANGS_MS:
            await hang(scene, duration_ms)
        return await books(scene) and is_well


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(theory or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=24)
    given = parser.parse_args()
    if missing := [kind for kind in KINDS if found(kind) is None]:
        sys.exit(f"{' and '.join(missing)} not installed: tools/install-proxies")
    print(f"wirthforge {VERSION}: {given.clients} clients, {given.seconds} s")
    sys.exit(0 if uvloop.run(run(given.clients, given.seconds)) else 1)


if __name__ == "__main__":
    main()
