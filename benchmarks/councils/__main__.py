"""Run the simulation of councils.

    python -m benchmarks.councils [--hours 24] [--seeds 3] [--way WAY]… [--out docs/council-figures.md]

Prints the targets and everything that was measured, for each way to choose a size. `--out` writes the tables and the
pictures (images/ beside it); what stands there below the mark is kept, for people to write.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.councils.council import Played, Way
from benchmarks.councils.day import RUSH, Day
from benchmarks.councils.figures import NONE, figures, pictures
from benchmarks.councils.play import play
from benchmarks.sharing.ledger_scheduler import redis_url
from benchmarks.sharing.ours import Figures
from benchmarks.sharing.report import Measured, measured, number, table
from benchmarks.sharing.suites import Target
from server import VERSION
from server.clock import SystemClock

WAYS: tuple[Way, ...] = ("allocated", "maximum", "solo")
ALONE = "alone"
RUSH_HOURS = 0.25
TARGETS = (
    Target("leaders p95 s", "≤", 2.0),
    Target("light p50 / alone", "≤", 2.0),
    Target("light p95 / alone", "≤", 2.0),
    Target("light p95 / alone, rush", "≤", 2.0),
    Target("until it was taken back, longest ms", "≤", 1000.0),
    Target("size / most, idle", "≥", 1.0),
    Target("size / most, night", "≥", 1.0),
    Target("size / most, late", "≥", 1.0),
    Target("Jain, rush of its own", "≥", 0.999),
)
MARK = "<!-- written by hand from here on -->"


Days = dict[str, list[Played]]


async def play_all(hours: float, seeds: int, ways: Sequence[Way]) -> tuple[Days, Days]:
    """Every way, with every seed, one after the other: days, and a rush of its own each."""
    days: Days = {}
    rushes: Days = {}
    async with redis_url() as url, Redis.from_url(url, decode_responses=True) as redis:
        for seed in range(1, seeds + 1):
            day = Day(hours, seed)
            days.setdefault(ALONE, []).append(await play(redis, day, "solo", ()))
            for way in ways:
                days.setdefault(way, []).append(await play(redis, day, way))
                rush = Day(min(RUSH_HOURS, hours), seed, RUSH)
                rushes.setdefault(way, []).append(await play(redis, rush, way))
                print(f"{way}, seed {seed}: done", file=sys.stderr, flush=True)
    return days, rushes


def target_table(results: dict[str, list[Figures]]) -> str:
    """Targets, and what each way makes of them."""
    rows = []
    for target in TARGETS:
        cells = []
        for runs in results.values():
            found = over_seeds(runs)[target.figure]
            is_missed = not target.is_met(found.mean) and not isnan(found.mean)
            cells.append(f"**{found}**" if is_missed else shown(found))
        rows.append([target.figure, f"{target.relation} {number(target.value)}", *cells])
    return table(["", "target", *results], rows)


def over_seeds(runs: Sequence[Figures]) -> dict[str, Measured]:
    """Mean and spread of every figure, over the days that have it."""
    found: dict[str, Measured] = {}
    for figure in runs[0]:
        known = [{figure: run[figure]} for run in runs if not isnan(run[figure])]
        found |= measured(known) if known else {figure: Measured(NONE, 0.0)}
    return found


def shown(found: Measured) -> str:
    """A figure, also where there was nothing to measure."""
    return "none" if isnan(found.mean) else str(found)


def figure_table(results: dict[str, list[Figures]]) -> str:
    """Every figure, a row each."""
    everything = [over_seeds(runs) for runs in results.values()]
    return table(["", *results], [[figure, *(shown(each[figure]) for each in everything)] for figure in everything[0]])


def page(results: dict[str, list[Figures]], images: Sequence[str], command: str, took_s: float, kept: str) -> str:
    """docs/council-figures.md."""
    seeds, day = len(next(iter(results.values()))), SystemClock().now().date()
    head = (
        f"`{command}` (version {VERSION}, {day}): the real scene, allocator, steadiness and ledger, engines and people"
        f" simulated, {seeds} seeded days, mean ± standard deviation; it took {took_s / 60:.0f} minutes.\n"
    )
    parts = ["# Figures of councils\n", head, "## Targets\n", "Missed ones are bold.\n", target_table(results)]
    parts += ["## Pictures\n", *(f"![{image}](images/{image})" for image in images)]
    parts += ["\n## Everything\n", figure_table(results), MARK + kept]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.councils", description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=24.0, help="of the day; the phases shrink with it")
    parser.add_argument("--seeds", type=int, default=3, help="days")
    parser.add_argument("--way", action="append", choices=WAYS, help="only this; may be given several times")
    parser.add_argument("--out", type=Path, help="write the page there")
    given = parser.parse_args(arguments)
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    days, rushes = asyncio.run(play_all(given.hours, given.seeds, given.way or WAYS))
    alone = days[ALONE]
    results: dict[str, list[Figures]] = {
        way: [figures(*of_seed) for of_seed in zip(days[way], alone, rushes[way], strict=True)] for way in rushes
    }
    print(target_table(results))
    print(figure_table(results))
    took_s = (clock.monotonic_ms() - began_ms) / 1000
    if given.out:
        images = pictures(days)
        (given.out.parent / "images").mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            (given.out.parent / "images" / name).write_text(image)
        command = " ".join(["python -m benchmarks.councils", *(arguments if arguments is not None else sys.argv[1:])])
        kept = given.out.read_text().partition(MARK)[2] if given.out.exists() else "\n"
        given.out.write_text(page(results, list(images), command, took_s, kept))
    print(f"{took_s:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
