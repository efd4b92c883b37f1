"""Which pictures there are: service over time and first tokens of light clients, first come first served and ours."""

from redis.asyncio import Redis

from benchmarks.sharing import metrics, pictures
from benchmarks.sharing.engine import A10G
from benchmarks.sharing.ours import Ours, play
from benchmarks.sharing.replay import Result
from benchmarks.sharing.schedulers import Fcfs, Vtc, Windowed
from benchmarks.sharing.vtc import LIGHT_CLIENTS, REAL_SLOTS
from benchmarks.sharing.workloads import SUITES

HEAVY = 5
END_S = 600
EVERY_S = 10
WINDOW_S = 30


def service_rates(result: Result) -> dict[str, pictures.Points]:
    """Weighted tokens a second of each client, over half a minute, those with the most requests first."""
    at = {round(sample.at_ms / 1000): sample.service for sample in result.samples}
    requests: dict[str, int] = {}
    for record in result.records:
        requests[record.job.client] = requests.get(record.job.client, 0) + 1
    return {
        f"client {client}": [
            (second, (at[second].get(client, 0) - at[second - WINDOW_S].get(client, 0)) / WINDOW_S)
            for second in range(WINDOW_S, END_S + 1, EVERY_S)
        ]
        for client in sorted(requests, key=lambda each: -requests[each])
    }


async def draw(redis: Redis) -> dict[str, str]:
    """All pictures by the names of their files."""
    suite = SUITES["real"]
    results = {
        "first come, first served": await play(suite.workload(0), A10G, Windowed(Fcfs(), REAL_SLOTS)),
        "VTC": await play(suite.workload(0), A10G, Windowed(Vtc(), REAL_SLOTS)),
        "WIRTHFORGE": await Ours(redis, A10G).play(suite.workload(0)),
    }
    images = {}
    for file, name in (("fcfs", "first come, first served"), ("ours", "WIRTHFORGE")):
        images[f"sharing-service-{file}.svg"] = pictures.lines(
            f"Service of each of 27 clients, {name}",
            *("seconds", "weighted tokens/s"),
            service_rates(results[name]),
            named=HEAVY,
        )
    waits = {}
    for name, result in results.items():
        light = metrics.lightest(result.records, LIGHT_CLIENTS)
        waits[name] = [
            (share, value / 1000) for share, value in pictures.distribution(metrics.ttfts_ms(result.records, light))
        ]
    images["sharing-first-tokens.svg"] = pictures.lines(
        "Time to the first token of the 20 lightest clients", "percent of their requests", "seconds", waits
    )
    return images
