"""Pauses in the benchmark: nothing of an answer is lost or written twice, whatever is paused and when."""

from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from benchmarks.sharing.engine import Engine, Hardware
from benchmarks.sharing.job import Job
from benchmarks.sharing.ledger_scheduler import LedgerScheduler
from benchmarks.sharing.ours import PAUSES_MAX, Ours, check_settled
from benchmarks.sharing.replay import Backlog, Replay, Result, Workload
from quotas.window import Window

SMALL = Hardware("small", 10.0, 5.0, 0.1, 1.0, 2.0, pool_tokens=400, slots=4, chunk_tokens=32)
FEW = Hardware("few slots", 10.0, 5.0, 0.1, 0.1, 1.0, pool_tokens=20_000, slots=3, chunk_tokens=512)
WINDOW = Window(slots=3, reserved_slots=1, reserve_percent_max=10, sparse_cost_max=1_000)
GUESTS = [Job(f"guest-{number}", "guest", 2_000.0 + 700 * number, 30, 40) for number in range(12)]
HEAVY = [Job(f"heavy-{number}", "heavy", 0.0, 200, 300) for number in range(9)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(2, 60)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 80), st.booleans()), max_size=8),
)
def test_an_engine_goes_on_where_an_answer_was_cut(
    sizes: list[tuple[int, int]], cuts: list[tuple[int, int, bool]]
) -> None:
    """Cut at any step and given back at once, each ends with its length; what is read again is computed again."""
    engine = Engine(SMALL)
    jobs = [Job(str(number), "ann", 0.0, *size) for number, size in enumerate(sizes)]
    for job in jobs:
        engine.submit(job)
    ended: list[str] = []
    lengths = {job.id: 0 for job in jobs}
    kept_of = {job.id: 0 for job in jobs}
    step = again = 0
    while engine.begin() is not None:
        ended += [job.id for job in engine.end().finished]
        step += 1
        for job in jobs:
            if engine.knows(job):
                assert lengths[job.id] <= engine.output_tokens(job) <= lengths[job.id] + 1
                lengths[job.id] = engine.output_tokens(job)
        for number, at, is_cached in cuts:
            job = jobs[number % len(jobs)]
            kept = lengths[job.id]
            # Not before a new token has come, as in life.
            if at == step and engine.knows(job) and kept > kept_of[job.id]:
                kept_of[job.id] = kept
                cached = (job.prompt_tokens + kept) // 2 if is_cached else 0
                engine.cancel(job)
                engine.submit(job, kept=kept, cached=cached)
                # The newest token had not been read before.
                again += job.prompt_tokens + kept - 1 - cached
    assert sorted(ended) == sorted(lengths)
    assert all(lengths[job.id] == job.output_tokens - 1 for job in jobs), "the last token is there with the end"
    assert (engine.kv_tokens, engine.running) == (0, 0)
    least = sum(job.prompt_tokens + job.output_tokens - 1 for job in jobs)
    assert engine.evictions or engine.tokens_computed == least + again


async def replay(redis: Redis, *, pauses_max: int, jobs: list[Job] | None = None) -> tuple[Result, dict[str, int]]:
    """Both of them on three slots; also what the ledger says that each has used."""
    scheduler = LedgerScheduler(redis, {"a": WINDOW}, pauses_max=pauses_max)
    workload = Workload(sorted(jobs or HEAVY + GUESTS, key=lambda job: job.arrival_ms))
    try:
        result = await Replay(workload, scheduler, {"a": FEW}).run()
        check_settled(result.records, await scheduler.settled())
        used = {name: (await scheduler.ledger.budget(name)).tokens_per_month for name in ("heavy", "guest")}
        assert await scheduler.ledger.load("a") == (0, 0)
    finally:
        await scheduler.close()
    assert not scheduler.errors
    return result, used


def longest_wait_ms(result: Result) -> float:
    """Of the guest, for a first token."""
    return max(record.ttft_ms for record in result.records if record.job.client == "guest")


async def test_answers_that_pause_are_whole_and_counted_once(redis: Redis) -> None:
    """All end with their length, settled once; budgets hold what was asked and answered; the guest hardly waits."""
    result, used = await replay(redis, pauses_max=PAUSES_MAX)
    assert {record.outcome for record in result.records} == {"completed"}
    assert used == {"heavy": 9 * 500, "guest": 12 * 70}
    paused = [record for record in result.records if record.pauses]
    assert paused
    assert {record.job.client for record in paused} == {"heavy"}
    assert max(record.pauses for record in paused) <= PAUSES_MAX
    assert all(record.paused_ms > 0 for record in paused)
    # Every pause makes its engine read at least the prompt again.
    least = sum(record.job.prompt_tokens + record.job.output_tokens - 1 for record in result.records)
    pauses = sum(record.pauses for record in paused)
    assert least + 200 * pauses < result.engines["a"].tokens_computed < least + 510 * pauses
    plain, _ = await replay(redis, pauses_max=0)
    assert not any(record.pauses for record in plain.records)
    assert longest_wait_ms(result) < 200 < longest_wait_ms(plain)


async def test_no_answer_pauses_more_often_than_it_may(redis: Redis) -> None:
    """One that has had its pauses runs to its end, and the guest waits for that."""
    result, _ = await replay(redis, pauses_max=1)
    assert max(record.pauses for record in result.records) == 1
    assert {record.outcome for record in result.records} == {"completed"}


async def test_a_client_may_leave_while_its_answer_is_paused(redis: Redis) -> None:
    """At any time: it is settled with what there was, and nothing stays behind."""
    impatient = [
        Job(job.id, job.client, 0.0, 200, 300, leaves_after_ms=2_000.0 + 450 * number)
        for number, job in enumerate(HEAVY)
    ]
    result, _ = await replay(redis, pauses_max=PAUSES_MAX, jobs=impatient + GUESTS)
    assert any(record.pauses and record.outcome == "cancelled" for record in result.records)
    assert result.engines["a"].kv_tokens == 0


async def test_a_prompt_cache_makes_pauses_cheap(redis: Redis) -> None:
    """With it the engine reads little twice; the same is written."""
    workload = Workload(GUESTS, (Backlog("heavy", 200, 300),), 20_000)
    cold, warm = [
        await Ours(redis, FEW, WINDOW, can_pause=True, keeps_prefixes=keeps).play(workload) for keeps in (False, True)
    ]
    written = [sum(record.output_tokens for record in result.records) for result in (cold, warm)]
    computed = [result.engines["a"].tokens_computed for result in (cold, warm)]
    assert all(any(record.pauses for record in result.records) for result in (cold, warm))
    assert computed[0] / written[0] > 1.05 * computed[1] / written[1]
