"""The schedulers that ours is compared with do what their names say."""

import pytest

from benchmarks.sharing.engine import Hardware
from benchmarks.sharing.job import Job
from benchmarks.sharing.metrics import jain, shares
from benchmarks.sharing.replay import Backlog, Replay, Result, Workload
from benchmarks.sharing.schedulers import Fcfs, Queue, RoundRobin, Rpm, Scheduler, Vtc, Windowed

HARDWARE = Hardware("quick", 10.0, 5.0, 0.1, 0.1, 1.0, pool_tokens=5_000, slots=64, chunk_tokens=512)
DEARER = (Backlog("cheap", 20, 20), Backlog("dear", 200, 200))


async def play(scheduler: Scheduler, workload: Workload) -> Result:
    """One replay."""
    return await Replay(workload, scheduler, {"a": HARDWARE}).run()


@pytest.mark.parametrize("queue", [Fcfs(), RoundRobin()])
async def test_who_counts_requests_favours_the_dear_ones(queue: Queue) -> None:
    """Ten times the tokens for as many requests."""
    result = await play(Windowed(queue, 8), Workload((), DEARER, 60_000))
    got = shares(result.samples, 10_000, 60_000)
    assert got["dear"] > 6 * got["cheap"]


async def test_vtc_shares_by_tokens_and_weight() -> None:
    """Whatever a request costs."""
    weights = {"cheap": 100, "dear": 300}
    result = await play(Windowed(Vtc(weights), 8), Workload((), DEARER, 120_000, weights))
    got = shares(result.samples, 20_000, 120_000, weights)
    assert jain(list(got.values())) > 0.99


async def test_no_more_than_the_window_is_in_the_engine() -> None:
    """Neither its slots nor its queue see more."""
    result = await play(Windowed(Fcfs(), 3), Workload((), DEARER, 20_000))
    events = sorted(
        [(record.dispatched_ms, 1) for record in result.records if record.dispatched_ms >= 0]
        + [(record.ended_ms, -1) for record in result.records if record.ended_ms >= 0]
    )
    running = peak = 0
    for _, change in events:
        running += change
        peak = max(peak, running)
    assert peak == 3


async def test_a_limit_on_requests_rejects_those_above_it() -> None:
    """Five a minute pass, of ten."""
    jobs = [Job(str(number), "ann", 1000.0 * number, 10, 10) for number in range(10)]
    result = await play(Rpm(5), Workload(jobs))
    assert [record.outcome for record in result.records] == ["completed"] * 5 + ["rejected"] * 5


async def test_a_client_may_leave_at_any_time() -> None:
    """Queued or streaming, its request ends then, and all others are served."""
    jobs = [
        Job(str(number), "ann", 0.0, 50, 100, leaves_after_ms=700.0 if number % 2 else None) for number in range(10)
    ]
    result = await play(Windowed(Vtc(), 4), Workload(jobs))
    outcomes = [record.outcome for record in result.records]
    assert outcomes == ["completed", "cancelled"] * 5
    assert all(record.ended_ms == 700 for record in result.records if record.outcome == "cancelled")
    assert any(record.has_begun for record in result.records if record.outcome == "cancelled")
    assert result.engines["a"].kv_tokens == 0
