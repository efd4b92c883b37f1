"""A light user beside a heavy one, over real HTTP: time to first token, and what the sharing costs in throughput.

    python -m benchmarks.neighbour            a simulated engine with 4 and 16 slots
    python -m benchmarks.neighbour --llama    the embedded llama.cpp with a slow model, 4 slots
    python -m benchmarks.neighbour --only "pauses (the default)"    only some of the ways; may be repeated

The hog keeps 64 requests outstanding. The victim asks now and then (exponential gaps, seeded). Without a gateway both
ask the engine itself. What an admin chooses from: slots that are kept cost 1/slots of throughput each while somebody
light is about, always (static) or as far as a bound allows (adaptive); an answer that pauses costs what it reads again.
The victim's first visit is told apart: before it nobody is known to be about, and the hog has every slot.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import perf_counter

import aiohttp
import uvloop

from benchmarks import tiny_model
from benchmarks.engine import MODEL
from benchmarks.stage import Stage, clock, free_port, program, stage, until_up
from server.embedded.llama import Llama

OUTSTANDING = 64
REFUSED_MS = 50
# What is compared: the settings, and the hog's service tier.
WAYS: Mapping[str, tuple[Mapping[str, int], str]] = {
    "nothing kept, no pauses": ({"reserved_slots": 0, "pauses_max": 0}, ""),
    "nothing kept, hog is revocable": ({"reserved_slots": 0, "pauses_max": 0}, "flex"),
    "one slot kept always": ({"reserved_slots": 1, "pauses_max": 0, "reserve_percent_max": 100}, ""),
    "one slot kept, at 10 %": ({"reserved_slots": 1, "pauses_max": 0}, ""),
    "two slots kept always": ({"reserved_slots": 2, "pauses_max": 0, "reserve_percent_max": 100}, ""),
    "pauses (the default)": ({}, ""),
}
SLOTS = (4, 16)
LLAMA_SLOTS = 4


@dataclass(frozen=True)
class Load:
    """What the two ask for, in tokens, and how long they do, in seconds."""

    model: str
    hog_tokens: int
    victim_tokens: int
    pace_ms: int
    gap_s: float
    seconds: int


SIMULATED = Load(MODEL, hog_tokens=200, victim_tokens=50, pace_ms=20, gap_s=1.0, seconds=40)
LLAMA = Load("slow", hog_tokens=300, victim_tokens=20, pace_ms=0, gap_s=4.0, seconds=60)


@dataclass
class Tally:
    """What came of one run."""

    tokens: int = 0
    first_token_ms: list[float] = field(default_factory=list)
    still_waits: bool = False

    def row(self, alone: "Tally") -> str:
        """The first visit, p50 and p99 of the others beside alone."""
        if not self.first_token_ms:
            raise RuntimeError("nobody was answered: the box refuses everything")
        first, *others = self.first_token_ms
        # Where the first visit is still waiting at the end, it is all there is.
        p50, p99 = quantiles(others or [first])
        waits = " (the last still waits)" if self.still_waits else ""
        base50, base99 = quantiles(alone.first_token_ms[1:])
        return (
            f"first {first:7.0f} ms   p50 {p50:7.1f} ms ({p50 / base50:6.1f}x)"
            f"   p99 {p99:7.1f} ms ({p99 / base99:6.1f}x)   n {len(others)}{waits}"
        )


def quantiles(values: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]


async def ask(session: aiohttp.ClientSession, base: str, key: str, load: Load, tally: Tally, **more: object) -> None:
    """One answer; the tally grows as it comes."""
    body = {
        "model": load.model,
        "messages": [{"role": "user", "content": "benchmark"}],
        "stream": True,
        "pace_ms": load.pace_ms,
        "ignore_eos": True,
    }
    began, has_begun = perf_counter(), False
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with session.post(f"{base}/chat/completions", json=body | more, headers=headers) as response:
            if response.status != HTTPStatus.OK:
                await clock.sleep_ms(REFUSED_MS)  # revoked before its first token
            async for line in response.content:
                if b'"content":"' in line and b'"content":""' not in line:
                    tally.tokens += 1
                    if not has_begun:
                        has_begun = True
                        tally.first_token_ms.append((perf_counter() - began) * 1000)
    except asyncio.CancelledError:
        if not has_begun:
            tally.first_token_ms.append((perf_counter() - began) * 1000)
            tally.still_waits = True
        raise


async def hog(session: aiohttp.ClientSession, base: str, key: str, load: Load, tally: Tally, tier: str) -> None:
    """One of the hog's lanes: asks again as soon as it has its answer."""
    more = {"max_tokens": load.hog_tokens} | ({"service_tier": tier} if tier else {})
    while True:
        try:
            await ask(session, base, key, load, tally, **more)
        except aiohttp.ClientError:
            await clock.sleep_ms(REFUSED_MS)


async def victim(session: aiohttp.ClientSession, base: str, key: str, load: Load, tally: Tally) -> None:
    """Asks now and then."""
    chance = random.Random(7)  # noqa: S311 (arrivals, not secrets)
    while True:
        await clock.sleep_ms(int(chance.expovariate(1 / load.gap_s) * 1000))
        await ask(session, base, key, load, tally, max_tokens=load.victim_tokens)


async def run(
    base: str, keys: dict[str, str], load: Load, *, with_hog: bool = True, with_victim: bool = True, tier: str = ""
) -> tuple[Tally, float]:
    """So many seconds; gives what the victim saw, and all tokens a second."""
    light, heavy = Tally(), Tally()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        lanes = [
            asyncio.create_task(hog(session, base, keys.get("hog", "none"), load, heavy, tier))
            for _ in range(OUTSTANDING * with_hog)
        ]
        await clock.sleep_ms(2_000 * with_hog)
        if with_victim:
            lanes.append(asyncio.create_task(victim(session, base, keys.get("victim", "none"), load, light)))
        before, began = heavy.tokens, perf_counter()
        await clock.sleep_ms(load.seconds * 1000)
        rate = (heavy.tokens - before + light.tokens) / (perf_counter() - began)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    return light, rate


# A box with these settings; gives its address.
MakeBox = Callable[[Mapping[str, int]], AbstractAsyncContextManager[str]]


async def compare(
    engine: str, key: str, boxes: MakeBox, keys: dict[str, str], load: Load, ways: Collection[str]
) -> None:
    """All rows for one engine."""
    direct = {"hog": key, "victim": key}
    alone, _ = await run(engine, direct, load, with_hog=False)
    print(f"  engine itself, alone            {alone.row(alone)}", flush=True)
    beside, best = await run(engine, direct, load)
    print(f"  engine itself, beside the hog   {beside.row(alone)}   {best:6.0f} tokens/s", flush=True)
    quiet = None
    for name, (settings, tier) in WAYS.items():
        if ways and name not in ways:
            continue
        async with boxes(settings) as box:
            await examined(box, keys["admin"])
            if quiet is None:
                quiet, _ = await run(f"{box}/v1", keys, load, with_hog=False)
            show(f"{name:30}", await run(f"{box}/v1", keys, load, tier=tier), quiet, best)


async def examined(box: str, key: str) -> None:
    """What the engine can is found out, so that it is known before the run."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        async with session.get(f"{box}/api/admin/engines") as response:
            names = [engine["name"] for engine in await response.json()]
        for name in names:
            async with session.post(f"{box}/api/admin/engines/test/{name}") as response:
                found = await response.json()
                if found.get("continues") != "yes":
                    raise RuntimeError(f"the engine cannot go on with answers: {found}")


def show(name: str, came: tuple[Tally, float], quiet: Tally, best: float) -> None:
    """One row."""
    light, rate = came
    print(f"  {name}   {light.row(quiet)}   {rate:6.0f} tokens/s ({rate / best:.3f})", flush=True)


async def with_simulated(services: Stage, slots: int, ways: Collection[str]) -> None:
    """The simulated engine."""
    port = free_port()
    engine = f"http://127.0.0.1:{port}/v1"
    async with program("benchmarks.engine", str(port), str(slots)), aiohttp.ClientSession() as session:
        await until_up(f"{engine}/models", session)

        @asynccontextmanager
        async def boxes(settings: Mapping[str, int]) -> AsyncIterator[str]:
            async with services.box(f"vllm+{engine}", session, engine_slots=slots, **settings) as (box, _):
                yield box

        print(f"\n{slots} slots, simulated; hog: {OUTSTANDING} outstanding, {SIMULATED.hog_tokens} tokens each")
        await compare(engine, "none", boxes, dict(services.keys), SIMULATED, ways)


async def with_llama(services: Stage, ways: Collection[str]) -> None:
    """The embedded llama.cpp: the engine itself for the first rows, `wirthforge up` for the others."""
    with tempfile.TemporaryDirectory(prefix="wf-") as name:
        folder = Path(name)
        path = folder / f"{LLAMA.model}.gguf"
        tiny_model.build(path, layers=24)
        llama = Llama(path, name=LLAMA.model, slots=LLAMA_SLOTS, context_tokens=4096, data_dir=folder, clock=clock)
        await llama.start()

        @asynccontextmanager
        async def boxes(settings: Mapping[str, int]) -> AsyncIterator[str]:
            await llama.stop()
            port = free_port()
            flags = ("--port", str(port), "--data-dir", str(folder / f"data{port}"), "--model", str(path))
            environment = dict(services.environment) | {"WIRTHFORGE_MODEL_SLOTS": str(LLAMA_SLOTS)}
            environment |= {f"WIRTHFORGE_{name.upper()}": str(value) for name, value in settings.items()}
            async with program("server", "up", *flags, environment=environment), aiohttp.ClientSession() as session:
                await until_up(f"http://127.0.0.1:{port}/readyz", session)
                yield f"http://127.0.0.1:{port}"

        print(f"\n{LLAMA_SLOTS} slots, llama.cpp; hog: {OUTSTANDING} outstanding, {LLAMA.hog_tokens} tokens each")
        await compare(llama.base_url, llama.api_key, boxes, dict(services.keys), LLAMA, ways)


async def main(ways: Collection[str], *, use_llama: bool) -> None:
    """Everything."""
    async with stage("admin", "hog", "victim") as services:
        if use_llama:
            await with_llama(services, ways)
            return
        for slots in SLOTS:
            await with_simulated(services, slots, ways)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", action="store_true", help="the embedded llama.cpp instead of a simulated engine")
    parser.add_argument("--only", action="append", choices=list(WAYS), default=[], help="one of the ways")
    chosen = parser.parse_args()
    uvloop.run(main(chosen.only, use_llama=chosen.llama))
