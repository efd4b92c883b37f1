"""Sizes over time."""

from hypothesis import given
from hypothesis import strategies as st

from server.allocator.steadiness import COOL_MS, RISE_MS, Steady

looks = st.lists(st.tuples(st.integers(0, 12_000), st.integers(-1, 8)), min_size=1, max_size=80)
any_clock = st.lists(st.tuples(st.integers(-(1 << 60), 1 << 60), st.integers(-5, 70)), min_size=1, max_size=40)


@given(looks)
def test_it_never_flaps_faster_than_it_may(told: list[tuple[int, int]]) -> None:
    """Up by one at a time, ten seconds after the last step up and thirty after the last down; down at once."""
    steady, now_ms, before = Steady(), 0, None
    up_ms = down_ms = None
    for passed_ms, possible in told:
        now_ms += passed_ms
        steady, ceiling = steady.step(now_ms, possible)
        assert 1 <= ceiling <= max(possible, 1)
        if before is not None and ceiling > before:
            assert ceiling == before + 1
            assert up_ms is None or now_ms - up_ms >= RISE_MS
            assert down_ms is None or now_ms - down_ms >= COOL_MS
            up_ms = now_ms
        if before is not None and ceiling < before:
            assert ceiling == max(possible, 1)
            down_ms = now_ms
        before = ceiling


@given(looks)
def test_it_rises_only_after_calm(told: list[tuple[int, int]]) -> None:
    """At every look of the ten seconds before a rise more was possible than the ceiling."""
    steady, now_ms, before = Steady(), 0, None
    seen: list[tuple[int, int]] = []
    for passed_ms, possible in told:
        now_ms += passed_ms
        steady, ceiling = steady.step(now_ms, possible)
        seen.append((now_ms, possible))
        if before is not None and ceiling > before:
            assert all(each > before for at_ms, each in seen if at_ms > now_ms - RISE_MS)
            assert any(each > before for at_ms, each in seen if at_ms <= now_ms - RISE_MS)
        before = ceiling


@given(any_clock)
def test_no_clock_breaks_it(told: list[tuple[int, int]]) -> None:
    """Wherever it jumps, the ceiling is possible, and rises by one at a time."""
    steady, before = Steady(), None
    for now_ms, possible in told:
        steady, ceiling = steady.step(now_ms, possible)
        assert 1 <= ceiling <= max(possible, 1)
        assert before is None or ceiling <= before + 1
        before = ceiling


@given(any_clock)
def test_after_any_clock_it_rises_again(told: list[tuple[int, int]]) -> None:
    """Once time goes on as it should, what is possible is reached: ten seconds a step, after the cool-down."""
    steady = Steady()
    now_ms = 0
    for now_ms, possible in told:
        steady, _ = steady.step(now_ms, possible)
    steady, ceiling = steady.step(now_ms, 6)
    for _ in range((COOL_MS + 6 * RISE_MS) // 1000):
        now_ms += 1000
        steady, ceiling = steady.step(now_ms, 6)
    assert ceiling == 6


def ceilings(*told: tuple[int, int]) -> list[int]:
    """Of these looks: at so many seconds, so much was possible."""
    steady, found = Steady(), []
    for at_s, possible in told:
        steady, ceiling = steady.step(at_s * 1000, possible)
        found.append(ceiling)
    return found


def test_a_day_in_short() -> None:
    """Six, then somebody comes: two at once; thirty seconds of rest, then one more every ten."""
    told = [(0, 6), (1, 2), *((at, 6) for at in range(2, 73))]
    found = dict(zip((at for at, _ in told), ceilings(*told), strict=True))
    assert [found[at] for at in (0, 1, 30, 31, 40, 41, 51, 61, 72)] == [6, 2, 2, 3, 3, 4, 5, 6, 6]


def test_a_dip_ends_the_calm() -> None:
    """Four would be possible but for one look: the ten seconds begin again."""
    told = [(0, 3), *((at, 4) for at in range(1, 9)), (9, 3), *((at, 4) for at in range(10, 21))]
    found = ceilings(*told)
    assert found[-2:] == [3, 4]


def test_what_nobody_saw_counts_for_ten_seconds() -> None:
    """A clock that jumps a year ahead has not cooled anything down."""
    year_s = 365 * 24 * 3600
    assert ceilings((0, 6), (1, 2), (2, 6), (year_s, 6), (2 * year_s, 6), (3 * year_s, 6))[-3:] == [2, 2, 3]
