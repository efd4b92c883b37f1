"""Run the benchmark of sharing.

    python -m benchmarks.sharing [--small] [--seeds N] [--only SUITE]… [--out docs/sharing-figures.md]

`--small` runs the main suites on two seeds, prints target and measured, and fails if the sharing is worse than bounds
that no change should break. `--only` takes the beginning of a suite's name, and may be given several times. Without
`--small` everything is run on ten seeds, on two processors, and written with pictures beside it.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.sharing.album import draw, waits_and_throughput
from benchmarks.sharing.ledger_scheduler import redis_url
from benchmarks.sharing.ours import Figures
from benchmarks.sharing.report import plain_table, scheduler_table, target_table, verdicts
from benchmarks.sharing.runs import run_all
from benchmarks.sharing.suites import SUITE
from benchmarks.sharing.workloads import SUITES
from server import VERSION
from server.clock import SystemClock

SEEDS, SMALL_SEEDS = 10, 2
OUT = Path("docs") / "sharing-figures.md"


async def pictures(results: dict[str, list[Figures]]) -> dict[str, str]:
    """Draw them."""
    async with redis_url() as url, Redis.from_url(url, decode_responses=True) as redis:
        images = await draw(redis)
    if image := waits_and_throughput(results):
        images["sharing-waits-throughput.svg"] = image
    return images


def page(results: dict[str, list[Figures]], images: Sequence[str], command: str, took_s: float) -> str:
    """docs/sharing-figures.md."""
    day = SystemClock().now().date()
    seeds = len(next(iter(results.values())))
    vtc = [name for name in results if name in SUITES]
    ways = {name: runs for name, runs in results.items() if ", " in name}
    hogs = {
        name: runs
        for name, runs in results.items()
        if "p99 / alone" in runs[0] and "reserve" not in name and name not in ways
    }
    reserves = {name: runs for name, runs in results.items() if name.startswith("reserve")}
    rest = [name for name in results if name not in {*vtc, *hogs, *ways, *reserves}]
    head = (
        f"`{command}` (version {VERSION}, {day}): the real scripts in a real Redis, engines simulated, {seeds} seeded"
        f" replays of each suite, mean ± standard deviation; it took {took_s / 60:.0f} minutes on two processors.\n"
    )
    parts = ["# Figures of sharing\n", head, "## Targets\n", target_table(verdicts(results)), "## Pictures\n"]
    parts += [f"![{image}](images/{image})" for image in images]
    if vtc:
        parts += ["\n## VTC's workloads\n", *(scheduler_table(name, results[name]) for name in vtc)]
    if hogs:
        parts += ["\n## A noisy neighbour\n", plain_table(hogs)]
    if ways:
        parts += ["\n## Ways to a slot\n", plain_table(ways)]
    if reserves:
        parts += ["\n## Slots kept for sparse flows\n", plain_table(reserves)]
    parts += [f"\n## {SUITE[name].title}\n\n{plain_table({name: results[name]})}" for name in rest]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="the main suites on two seeds")
    parser.add_argument("--seeds", type=int, help=f"replays of each suite ({SEEDS}; {SMALL_SEEDS} if small)")
    parser.add_argument("--only", action="append", default=[], metavar="SUITE", help="suites that begin with this")
    parser.add_argument("--out", type=Path, help=f"write the page there ({OUT} for a full run)")
    parser.add_argument("--results", type=Path, help="keep figures there, and do not run again what it holds")
    parser.add_argument("--processes", type=int, default=2, help="at a time")
    given = parser.parse_args(arguments)
    names = [name for name, suite in SUITE.items() if suite.is_small or not given.small]
    if given.only:
        names = [name for name in SUITE if any(name.startswith(start) for start in given.only)]
    if not names:
        parser.error(f"there are {', '.join(SUITE)}")
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    seeds = given.seeds or (SMALL_SEEDS if given.small else SEEDS)
    results = run_all(names, seeds, small=given.small, processes=given.processes, results_file=given.results)
    found = verdicts(results)
    print(target_table(found))
    out = given.out or (None if given.small or given.only else OUT)
    if out:
        images = asyncio.run(pictures(results))
        (out.parent / "images").mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            (out.parent / "images" / name).write_text(image)
        took_s = (clock.monotonic_ms() - began_ms) / 1000
        command = " ".join(["python -m benchmarks.sharing", *(arguments if arguments is not None else sys.argv[1:])])
        out.write_text(page(results, list(images), command, took_s))
    print(f"{(clock.monotonic_ms() - began_ms) / 1000:.0f} s", file=sys.stderr)
    broken = [verdict for verdict in found if verdict.is_broken]
    for verdict in broken:
        print(f"broken: {verdict.suite}, {verdict.target.figure}: {verdict.measured}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
