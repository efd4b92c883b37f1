"""Which pictures there are: service over time, first tokens of light clients, what ways to a slot bring and cost."""

from collections.abc import Mapping, Sequence
from statistics import mean

from redis.asyncio import Redis

from benchmarks.sharing import metrics, neighbours, pictures
from benchmarks.sharing.engine import A10G, BOX4
from benchmarks.sharing.ours import Figures, Ours, play
from benchmarks.sharing.replay import Result
from benchmarks.sharing.schedulers import Fcfs, Vtc, Windowed
from benchmarks.sharing.vtc import LIGHT_CLIENTS, REAL_SLOTS
from benchmarks.sharing.workloads import SUITES

END_S, EVERY_S, WINDOW_S = 600, 10, 60
NAMES = {"0": "asks for its share", "1": "asks for twice as much"}


def service_rates(result: Result) -> dict[str, pictures.Points]:
    """Weighted tokens a second of each client, over the minute before."""
    at = {round(sample.at_ms / 1000): sample.service for sample in result.samples}
    return {
        words: [
            (second, (at[second].get(client, 0) - at[second - WINDOW_S].get(client, 0)) / WINDOW_S)
            for second in range(WINDOW_S, END_S + 1, EVERY_S)
        ]
        for client, words in NAMES.items()
    }


# Ways to a slot, and what they are called in pictures.
WAYS = {"none": "no slot kept", "static": "one kept", "adaptive": "one kept, for 10 %", "pause": "pause"}


async def waits_over_time(redis: Redis) -> str:
    """When the victim asked, and how long it waited, for each way to a slot."""
    curves = {}
    for way, ours in neighbours.protections(redis, BOX4).items():
        if way in WAYS:
            result = await ours.play(neighbours.beside("decode-heavy", 1, neighbours.UNTIL_MS), 1)
            curves[WAYS[way]] = [
                (record.arrived_ms / 1000, record.ttft_ms / 1000)
                for record in result.records
                if record.job.client == neighbours.VICTIM and record.has_begun
            ]
    title = "4 slots, a hog has them all: a light user's first token"
    return pictures.lines(title, "second of the request", "seconds", curves, is_log=True)


def waits_and_throughput(results: Mapping[str, Sequence[Figures]]) -> str | None:
    """What each way to a slot costs of the throughput, and how long the victim waits; None where that was not run."""
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for machine, words in (("W16", "16 slots"), ("W4", "4 slots")):
        for way, name in WAYS.items():
            if runs := results.get(f"{machine} decode-heavy, {way}"):
                wait_s = mean(run["p99 ms"] for run in runs) / 1000
                place = wait_s, mean(run["throughput / FCFS"] for run in runs)
                groups.setdefault(words, {})[name] = place
    title = "A light user beside a hog: what the wait costs"
    return (
        pictures.points(title, "first token, p99, seconds", "throughput / FCFS", groups, y_min=0.8) if groups else None
    )


async def draw(redis: Redis) -> dict[str, str]:
    """All pictures by the names of their files."""
    suite = SUITES["overload"]
    fcfs = await play(suite.workload(1), A10G, Windowed(Fcfs(), REAL_SLOTS))
    ours = await Ours(redis, A10G).play(suite.workload(1))
    images = {
        f"sharing-service-{file}.svg": pictures.lines(
            f"Two clients, both want more than there is: {name}",
            *("seconds", "weighted tokens/s"),
            service_rates(result),
        )
        for file, name, result in (("fcfs", "first come, first served", fcfs), ("ours", "WIRTHFORGE", ours))
    }
    suite = SUITES["real"]
    results = {
        "first come, first served": await play(suite.workload(0), A10G, Windowed(Fcfs(), REAL_SLOTS)),
        "VTC": await play(suite.workload(0), A10G, Windowed(Vtc(), REAL_SLOTS)),
        "WIRTHFORGE": await Ours(redis, A10G).play(suite.workload(0)),
    }
    waits = {}
    for name, result in results.items():
        light = metrics.lightest(result.records, LIGHT_CLIENTS)
        waits[name] = [
            (share, value / 1000) for share, value in pictures.distribution(metrics.ttfts_ms(result.records, light))
        ]
    images["sharing-first-tokens.svg"] = pictures.lines(
        *("The 20 lightest of 27 clients: time to the first token", "percent of their requests", "seconds"),
        waits,
        is_log=True,
    )
    images["sharing-waits.svg"] = await waits_over_time(redis)
    return images
