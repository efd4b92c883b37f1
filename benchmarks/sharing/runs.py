"""Running suites, several at a time, each replay with a Redis of its own."""

import asyncio
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

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


def run_all(names: Sequence[str], seeds: int, *, small: bool, processes: int) -> dict[str, list[Figures]]:
    """Everything, on some processors; what takes long begins first."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {(name, seed): pool.submit(run, name, seed, small) for name in names for seed in range(1, seeds + 1)}
        results: dict[str, list[Figures]] = {name: [] for name in names}
        for (name, seed), future in running.items():
            results[name].append(future.result())
            if seed == seeds and not small:
                print(f"{name} done", file=sys.stderr, flush=True)
    return results
