"""The figures are those that VTC defines, and the simulation gives what VTC measured."""

import pytest

from benchmarks.sharing import metrics
from benchmarks.sharing.job import Job, Record
from benchmarks.sharing.published import Published, peak_tokens
from benchmarks.sharing.report import number
from benchmarks.sharing.workloads import SUITES, TRACE


def served(client: str, arrived_s: float, begun_s: float, ended_s: float, tokens: int) -> Record:
    """A complete answer to an empty prompt."""
    job = Job(f"{client}{arrived_s}", client, arrived_s * 1000, 0, tokens)
    return Record(
        job,
        arrived_s * 1000,
        first_token_ms=begun_s * 1000,
        ended_ms=ended_s * 1000,
        output_tokens=tokens,
        outcome="completed",
    )


def test_equal_service_is_no_unfairness() -> None:
    """Two clients that get the same all the time have no difference."""
    records = [served(client, 0, 0, 700, 70_000) for client in "ab"]
    assert metrics.service_diff(records) == metrics.Diff(0, 0, 0)


def test_a_client_that_got_all_it_asked_for_is_not_treated_unfairly() -> None:
    """The difference counts only as far as more was wanted."""
    hungry = served("a", 0, 0, 700, 70_000)
    content = [served("b", at, at, at + 1, 50) for at in range(5, 700, 10)]
    diff = metrics.service_diff([hungry, *content])
    assert diff.largest < 2


def test_who_waits_while_another_is_served_is_treated_unfairly() -> None:
    """In each window in which b asks for 10 units a second and gets none while a gets 20, the difference is 10."""
    greedy = served("a", 0, 0, 700, 7_000)
    starved = [Job(str(at), "b", at * 1000.0, 0, 50) for at in range(5, 700, 10)]
    diff = metrics.service_diff([greedy, *(Record(job, job.arrival_ms) for job in starved)])
    assert diff.mean == pytest.approx(10, rel=0.1)


def test_memory_of_the_future_is_known_when_lengths_are() -> None:
    """The peak is where the longest of those that remain has still to grow."""
    assert peak_tokens([(10, 5)]) == 15
    # The second ends after 2 more tokens of both; then only the first holds memory.
    assert peak_tokens([(10, 5), (20, 2)]) == max(10 + 5, 10 + 2 + 20 + 2)


@pytest.mark.parametrize(
    ("suite", "policy"), [("overload", "fcfs"), ("proportional", "fcfs"), ("on_off_less", "fcfs"), ("real", "fcfs")]
)
def test_vtcs_engine_is_simulated_as_it_was_measured(suite: str, policy: str) -> None:
    """Throughput within 4 %, average difference within 12 % of what the artifact's result files hold."""
    published = SUITES[suite].fcfs
    assert published is not None
    records = Published(policy).run(list(SUITES[suite].workload(0).jobs))
    assert metrics.throughput(records) == pytest.approx(published[3], rel=0.04)
    assert metrics.service_diff(records).mean == pytest.approx(published[1], rel=0.12)


def test_vtc_is_as_fair_in_the_simulation_as_it_was_measured() -> None:
    """Half of the unfairness of first come, first served or less, on the real trace."""
    jobs = list(SUITES["real"].workload(0).jobs)
    diffs = {policy: metrics.service_diff(Published(policy).run(jobs)).mean for policy in ("fcfs", "vtc")}
    assert diffs["vtc"] == pytest.approx(251.66, rel=0.2)
    assert diffs["vtc"] / diffs["fcfs"] == pytest.approx(0.58, abs=0.1)


def test_the_trace_is_the_published_one() -> None:
    """1500 requests of 27 clients, 588 695 tokens."""
    jobs = list(SUITES["real"].workload(0).jobs)
    assert len(TRACE.read_text().splitlines()) == len(jobs) == 1500
    assert len({job.client for job in jobs}) == 27
    assert sum(job.prompt_tokens + job.output_tokens for job in jobs) == 588_695


def test_numbers_are_written_with_the_digits_that_matter() -> None:
    """About three, and more just below 1."""
    assert [number(value) for value in (0, 0.0025, 0.4567, 0.99912, 9.8, 219.4, 31_187.0)] == [
        *("0", "0.00250", "0.457", "0.9991", "9.80", "219", "31187"),
    ]
