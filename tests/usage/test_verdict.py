"""What a look says, without Redis and Postgres: windows, sums, and what several looks agree on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from quotas.audit import Account, Audit, Held, Tally, read_audit
from server.usage.verdict import EPOCH, Breach, Look, Sum, Verdict, judge, lasting, span, title

ANN = UUID(int=1)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
amounts = st.integers(0, 10**12)


def months_of(moment: datetime) -> int:
    """Since January 1970."""
    return (moment.year - 1970) * 12 + moment.month - 1


@given(moments, moments)
def test_windows_are_those_of_the_calendar(moment: datetime, since: datetime) -> None:
    """A moment lies in its day and its month, which begin no earlier than what is counted."""
    since_ms = (since - EPOCH) // timedelta(milliseconds=1)
    for window, which, pattern in (
        ("day", (moment - EPOCH).days, "%Y-%m-%d"),
        ("month", months_of(moment), "%Y-%m"),
    ):
        first, until = span(window, which, 0)  # type: ignore[arg-type]
        assert first <= moment < until
        assert first.strftime(pattern) == moment.strftime(pattern) != until.strftime(pattern)
        assert title(window, which) == moment.strftime(pattern)  # type: ignore[arg-type]
        counted, _ = span(window, which, since_ms)  # type: ignore[arg-type]
        assert counted == max(first, EPOCH + timedelta(milliseconds=since_ms))


def held_of(request: UUID, tokens: int) -> Held:
    """A request of ann that waits."""
    return Held(
        str(request), "e", is_running=False, deadline_ms=0, flow=str(ANN), reserved=tokens, day=20_000, month=657
    )


def look_of(rows: Sum, waiting: list[int], held: list[int], **wrong: int) -> Look:
    """A day and a month of ann in which everything fits, but for what is `wrong`."""
    tokens = rows.tokens + sum(waiting) + sum(held) + wrong.get("tokens", 0)
    requests = rows.requests + len(waiting) + len(held) + wrong.get("requests", 0)
    account = Account(str(ANN), 0, Tally(20_000, tokens, requests), Tally(657, tokens, requests))
    entries = tuple(held_of(UUID(int=100 + number), some) for number, some in enumerate(held))
    now = EPOCH + timedelta(days=20_000, hours=12)
    events: dict[UUID, dict[str, Any]] = {
        UUID(int=10_000 + number): {
            "user_id": ANN,
            "outcome": "completed",
            "input_tokens": some,
            "output_tokens": 0,
            "started_at": now,
        }
        for number, some in enumerate(waiting)
    }
    return Look(
        audit=Audit((now - EPOCH) // timedelta(milliseconds=1), 1, "", (account,), entries),
        names={ANN: "ann"},
        rows={},
        events=events,
        event_count=len(waiting),
        oldest_event_ms=None,
        unreadable=[],
        sums={(ANN, "day"): rows, (ANN, "month"): rows},
        future_rows={},
        strays=frozenset(),
    )


few = st.lists(amounts, max_size=5)


@given(amounts, amounts, few, few, st.integers(-5, 5), st.integers(-5, 5))
def test_any_difference_is_told_and_nothing_else(
    tokens: int, rows: int, waiting: list[int], held: list[int], wrong_tokens: int, wrong_requests: int
) -> None:
    """In both windows, whatever is there."""
    look = look_of(Sum(tokens, rows), waiting, held, tokens=wrong_tokens, requests=wrong_requests)
    verdict = judge(look)
    found = [breach.rule for breach in verdict.broken]
    assert found == 2 * (["tokens"] * (wrong_tokens != 0) + ["requests"] * (wrong_requests != 0))
    assert verdict.is_well == (not found)
    assert (verdict.waiting, verdict.running, verdict.events) == (len(held), 0, len(waiting))


@given(few, few)
def test_what_was_read_twice_counts_once(waiting: list[int], held: list[int]) -> None:
    """An event that was written meanwhile is there as a row as well."""
    look = look_of(Sum(), waiting, held)
    assert judge(replace(look, rows=dict(look.events))).is_well


def verdict_of(*broken: str) -> Verdict:
    """A look that found these."""
    breaches = [Breach(rule="tokens", subject=subject, sentence=subject) for subject in broken]
    return Verdict(
        is_well=not broken, looks=1, servers=0, running=0, waiting=0, events=0, lines=[], broken=breaches, notes=[]
    )


@given(st.lists(st.sets(st.sampled_from("abcde")), min_size=1, max_size=4))
def test_what_lasts_is_what_every_look_found(looks: list[set[str]]) -> None:
    """Anything else had only moved."""
    verdict = lasting([verdict_of(*sorted(found)) for found in looks])
    assert {breach.subject for breach in verdict.broken} == set.intersection(*looks)
    assert verdict.is_well == (not set.intersection(*looks))
    assert verdict.looks == len(looks)


def test_an_audit_is_read_as_the_script_tells_it() -> None:
    """Also what older scripts did not note, and a request whose record is gone."""
    audit = read_audit(
        ["9", 2, "5-0", [["u", "", "1", "2", "", "3", "4", "5"]], [["r", "e", "running", "7.0", "", "", "", ""]]]
    )
    account = Account("u", 0, Tally(1, 2, None), Tally(3, 4, 5))
    held = Held("r", "e", is_running=True, deadline_ms=7, flow="", reserved=0, day=-1, month=-1)
    assert audit == Audit(9, 2, "5-0", (account,), (held,))
