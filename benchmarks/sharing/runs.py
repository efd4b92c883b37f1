"""Running suites, several at a time, each replay with a Redis of its own."""

import asyncio
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.sharing.ledger_scheduler import redis_url
from benchmarks.sharing.ours import Figures
from benchmarks.sharing.suites import SUITE


async def _run(name: str, seed: int, *, small: bool) -> Figures:
    async with redis_url() as url, Redis.from_url(url, decode_responses=True) as redis:
        return await SUITE[name].case(seed, redis, small)


def run(name: str, seed: int, small: bool) -> Figures:  # noqa: FBT001 (a process is handed it by place)
    """One suite with one seed."""
    return asyncio.run(_run(name, seed, small=small))


def run_all(
    names: Sequence[str], seeds: int, *, small: bool, processes: int, results_file: Path | None = None
) -> dict[str, list[Figures]]:
    """Everything, on some processors. What the file already holds is not run again; it gets the rest."""
    results: dict[str, list[Figures]] = {}
    if results_file and results_file.exists():
        results = json.loads(results_file.read_text())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {
            name: [pool.submit(run, name, seed, small) for seed in range(1, seeds + 1)]
            for name in names
            if len(results.get(name, ())) != seeds
        }
        for name, futures in running.items():
            results[name] = [future.result() for future in futures]
            if not small:
                print(f"{name} done", file=sys.stderr, flush=True)
            if results_file:
                results_file.write_text(json.dumps(results))
    return {name: results[name] for name in names}
