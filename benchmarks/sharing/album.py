"""Which pictures there are: service over time, and first tokens of light clients."""

from redis.asyncio import Redis

from benchmarks.sharing import metrics, pictures
from benchmarks.sharing.engine import A10G
from benchmarks.sharing.ours import Ours, play
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
    return images
