"""The figures, as VTC's artifact computes them where it has them.

A response's service (prompt + 2 * answer) counts as spread evenly from its first token to its end. At each of 19 ticks
of a 600 s horizon, over a window of 60 s around it:

    diff = sum over clients of min(service of the best served - own service, |own demand - own service|)

which is 0 when everybody gets the same or all that it asked for. Max, mean and variance are over the ticks.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.sharing.job import Record, service_of
from benchmarks.sharing.replay import Result, Sample

HORIZON_S, WARM_UP_S, WINDOW_S, PARTS = 600.0, 30.0, 60.0, 20
SHORTEST_S = 1e-5


@dataclass(frozen=True, slots=True)
class Diff:
    """Weighted tokens a second."""

    largest: float
    mean: float
    variance: float


def _in_window(records: Iterable[Record], left: float, right: float) -> tuple[dict[str, float], dict[str, float]]:
    """Service and demand of each client between two times in seconds, in weighted tokens."""
    service: dict[str, float] = defaultdict(float)
    demand: dict[str, float] = defaultdict(float)
    for record in records:
        job = record.job
        cost = service_of(job.prompt_tokens, job.output_tokens)
        arrived, begun, ended = record.arrived_ms / 1000, record.first_token_ms / 1000, record.ended_ms / 1000
        if left <= arrived <= right:
            demand[job.client] += cost
        if record.outcome == "completed" and ended - begun > SHORTEST_S:
            overlap = max(0.0, min(right, ended) - max(left, begun))
            service[job.client] += cost * overlap / (ended - begun)
    return service, demand


def service_diff(records: Sequence[Record]) -> Diff:
    """VTC's measure of unfairness."""
    clients = {record.job.client for record in records}
    diffs = []
    for part in range(1, PARTS):
        middle = (HORIZON_S - WARM_UP_S) / PARTS * part + WARM_UP_S
        service, demand = _in_window(records, middle - WINDOW_S / 2, middle + WINDOW_S / 2)
        best = max(service.values(), default=0.0)
        total = sum(min(best - service[client], abs(demand[client] - service[client])) for client in clients)
        diffs.append(total / WINDOW_S)
    mean = sum(diffs) / len(diffs)
    return Diff(max(diffs), mean, sum((diff - mean) ** 2 for diff in diffs) / len(diffs))


def throughput(records: Iterable[Record]) -> float:
    """Tokens read and written a second, until the last end."""
    ended = [record for record in records if record.outcome == "completed"]
    tokens = sum(record.job.prompt_tokens + record.job.output_tokens for record in ended)
    return tokens / max((record.ended_ms for record in ended), default=1.0) * 1000


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all values do not exceed; interpolated."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def lightest(records: Iterable[Record], count: int) -> set[str]:
    """The clients with the fewest requests."""
    requests: dict[str, int] = defaultdict(int)
    for record in records:
        requests[record.job.client] += 1
    return set(sorted(requests, key=lambda client: (requests[client], client))[:count])


def ttfts_ms(records: Iterable[Record], clients: Collection[str] | None = None, ended_ms: float = 0.0) -> list[float]:
    """Waits for the first token. One that never came counts as waited for until `ended_ms`, if that is given."""
    chosen = [record for record in records if clients is None or record.job.client in clients]
    waits = [record.ttft_ms for record in chosen if record.has_begun]
    if ended_ms:
        waits += [
            ended_ms - record.arrived_ms for record in chosen if record.outcome == "open" and not record.has_begun
        ]
    return waits


def rate(result: Result) -> float:
    """Tokens read and written a second in a run that was cut off."""
    tokens = sum(record.job.prompt_tokens * record.has_begun + record.output_tokens for record in result.records)
    return tokens / result.ended_ms * 1000


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def _between(samples: Sequence[Sample], start_ms: float, end_ms: float) -> tuple[Sample, Sample, list[Sample]]:
    inside = [sample for sample in samples if start_ms <= sample.at_ms <= end_ms]
    return inside[0], inside[-1], inside


def shares(
    samples: Sequence[Sample], start_ms: float, end_ms: float, weights: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Service by weight that each client received between two times, of those who waited all the time."""
    first, last, inside = _between(samples, start_ms, end_ms)
    clients = set.intersection(*(sample.waiting for sample in inside))
    weights = weights or {}
    return {
        client: (last.service.get(client, 0.0) - first.service.get(client, 0.0)) * 100 / weights.get(client, 100)
        for client in sorted(clients)
    }


def worst_jain(result: Result, weights: Mapping[str, int], *, window_ms: float, warm_up_ms: float) -> float:
    """The smallest Jain index of service by weight over windows of a run."""
    count = int((result.ended_ms - warm_up_ms) // window_ms)
    edges = [warm_up_ms + window_ms * number for number in range(count + 1)]
    return min(jain(list(shares(result.samples, *edge, weights).values())) for edge in pairwise(edges))


def largest_gap(result: Result, weights: Mapping[str, int], warm_up_ms: float) -> float:
    """The most by which service by weight of two backlogged clients ever differs, in weighted tokens."""
    samples = [sample for sample in result.samples if sample.at_ms >= warm_up_ms]
    clients = set.intersection(*(sample.waiting for sample in samples))
    gap = 0.0
    for sample in samples:
        got = [
            (sample.service.get(client, 0.0) - samples[0].service.get(client, 0.0)) * 100 / weights.get(client, 100)
            for client in clients
        ]
        gap = max(gap, max(got) - min(got))
    return gap
