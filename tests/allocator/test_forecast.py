"""What is expected: never less than nothing, never less for more requests, and little from little data."""

import math
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.allocator.forecast import (
    CELLS_MAX,
    DAY_H,
    HALF_LIFE_MS,
    HISTORY_MS_MAX,
    HOUR_MS,
    LATELY_MS,
    PAIRS_MAX,
    PRIOR_PER_HOUR,
    WEEK_H,
    WEEK_MS,
    Cell,
    Expected,
    Forecast,
    History,
    Lately,
    chance,
    hour_of_week,
    watched_h,
    weight_of_age,
)

# Monday, 23 November 2026, 12:00 UTC.
NOON_MS = 1_795_435_200_000
NOON = 12
WITHIN_MS = 900_000
USERS, MODELS = ("ann", "bob", "eve"), ("m", "n")


@dataclass
class Past:
    """What somebody asked: past hours as cells, the last minutes one by one."""

    since_ms: int = NOON_MS - 8 * WEEK_MS
    cells: list[Cell] = field(default_factory=list)
    lately: list[tuple[int, str, str]] = field(default_factory=list)

    def expect(self, now_ms: int = NOON_MS, within_ms: int = WITHIN_MS) -> Expected:
        """From what is there."""
        seen = Lately(since_ms=NOON_MS - HOUR_MS)
        for at_ms, user, model in self.lately:
            seen.saw(user, model, at_ms)
        history = History(since_ms=self.since_ms, at_ms=NOON_MS, cells=tuple(self.cells))
        return Forecast(history).expect(seen, now_ms, within_ms)


CELLS = st.builds(
    Cell,
    st.sampled_from(USERS),
    st.sampled_from(MODELS),
    st.integers(0, WEEK_H - 1) | st.just(NOON),
    st.floats(0, 1e6),
)
# Times around noon, in any order: clocks jump.
TIMES = st.integers(NOON_MS - WEEK_MS, NOON_MS + WEEK_MS) | st.integers(NOON_MS - LATELY_MS, NOON_MS)
REQUESTS = st.tuples(TIMES, st.sampled_from(USERS), st.sampled_from(MODELS))
PASTS = st.builds(
    Past,
    st.integers(NOON_MS - 2 * HISTORY_MS_MAX, NOON_MS + WEEK_MS),
    st.lists(CELLS, max_size=12),
    st.lists(REQUESTS, max_size=12),
)


def to_model(expected: Expected, model: str = "m") -> float:
    """All that is expected to one model, of anybody."""
    return expected.unknown + sum(models.get(model, 0.0) for models in expected.requests.values())


def test_an_hour_of_the_week_is_counted_from_monday() -> None:
    """Monday begins at 0, Sunday's last hour is the last, and time before 1970 has hours too."""
    assert hour_of_week(NOON_MS) == NOON
    assert hour_of_week(NOON_MS - 12 * HOUR_MS) == 0
    assert hour_of_week(NOON_MS - 12 * HOUR_MS - 1) == WEEK_H - 1
    assert 0 <= hour_of_week(-1) < WEEK_H


@given(within_ms=st.integers(-10, 2 * DAY_H * HOUR_MS), now_ms=TIMES)
def test_an_empty_history_says_the_prior(within_ms: int, now_ms: int) -> None:
    """Somebody unknown asks any one model once a week, whatever the hour; nobody else is there."""
    expected = Past().expect(now_ms, within_ms)
    hours = min(max(within_ms, 0), DAY_H * HOUR_MS) / HOUR_MS
    prior = PRIOR_PER_HOUR * hours
    assert [to_model(expected), expected.of_others("ann")] == pytest.approx([prior] * 2)
    assert expected.chances() == {}


@given(past=PASTS, now_ms=TIMES, within_ms=st.integers(0, 2 * DAY_H * HOUR_MS))
def test_nothing_is_ever_negative(past: Past, now_ms: int, within_ms: int) -> None:
    """Whatever was asked, and whatever the clock says; chances lie between 0 and 1, and sums fit together."""
    expected = past.expect(now_ms, within_ms)
    numbers = [number for models in expected.requests.values() for number in models.values()]
    assert all(number >= 0 and math.isfinite(number) for number in numbers)
    assert all(0 <= each <= 1 for each in expected.chances().values())
    everybody = sum(numbers) + expected.unknown
    assert expected.of_others("nobody") == pytest.approx(everybody)
    for user in expected.requests:
        assert expected.of_others(user) + sum(expected.requests[user].values()) == pytest.approx(everybody)


@given(past=PASTS, cell=CELLS, now_ms=TIMES, within_ms=st.integers(0, DAY_H * HOUR_MS))
def test_more_requests_never_lower_the_forecast(past: Past, cell: Cell, now_ms: int, within_ms: int) -> None:
    """Neither for their own hour nor for any other, nor for any model or person."""
    before = past.expect(now_ms, within_ms)
    past.cells.append(cell)
    after = past.expect(now_ms, within_ms)
    _never_lower(before, after)


@given(past=PASTS, request=REQUESTS, within_ms=st.integers(0, DAY_H * HOUR_MS))
def test_a_request_just_now_never_lowers_the_forecast(
    past: Past, request: tuple[int, str, str], within_ms: int
) -> None:
    """The last of those that began does not make the next less likely, whatever jumps the clock made before."""
    before = past.expect(within_ms=within_ms)
    past.lately.append((NOON_MS, *request[1:]))
    _never_lower(before, past.expect(within_ms=within_ms))


def _never_lower(before: Expected, after: Expected) -> None:
    slack = 1 + 1e-9
    for user, models in before.requests.items():
        for model, number in models.items():
            assert after.requests[user][model] * slack >= number
    assert all(after.chances()[model] * slack >= each for model, each in before.chances().items())
    assert all(after.of_others(user) * slack >= before.of_others(user) for user in USERS)


@given(past=PASTS, now_ms=TIMES, one=st.integers(0, DAY_H * HOUR_MS), other=st.integers(0, DAY_H * HOUR_MS))
def test_a_longer_time_never_holds_fewer_requests(past: Past, now_ms: int, one: int, other: int) -> None:
    """What is expected within five minutes is expected within ten."""
    _never_lower(past.expect(now_ms, min(one, other)), past.expect(now_ms, max(one, other)))


def test_a_habit_is_expected_at_its_hour_and_hardly_at_another() -> None:
    """Eight Mondays at noon with six requests each: near their rate then, hardly any at night."""
    faded = sum(weight_of_age(week * WEEK_MS) for week in range(1, 9))
    past = Past(cells=[Cell("ann", "m", NOON, 6 * faded)])
    at_noon = to_model(past.expect(within_ms=HOUR_MS))
    at_night = to_model(past.expect(NOON_MS + 12 * HOUR_MS, HOUR_MS))
    assert 3 < at_noon < 6
    assert at_night < at_noon / 30


def test_minutes_before_its_hour_a_habit_is_expected_already() -> None:
    """Ten minutes before the hour, the next fifteen minutes hold a part of it."""
    past = Past(cells=[Cell("ann", "m", NOON, 60.0)])
    early, night = past.expect(NOON_MS - 600_000), past.expect(NOON_MS - 6 * HOUR_MS)
    assert to_model(early) > 5 * to_model(night)


def test_one_week_says_less_than_eight() -> None:
    """The same rate, seen for longer, is believed more; and other days get something of an hour of the day."""
    short = Past(NOON_MS - WEEK_MS, [Cell("ann", "m", NOON, 6.0)])
    faded = sum(weight_of_age(week * WEEK_MS) for week in range(1, 9))
    long = Past(NOON_MS - 8 * WEEK_MS, [Cell("ann", "m", NOON, 6.0 * faded)])
    assert to_model(short.expect()) < to_model(long.expect())
    tuesday = NOON_MS + DAY_H * HOUR_MS
    assert to_model(short.expect(tuesday)) > 2 * to_model(short.expect(tuesday + 6 * HOUR_MS))


def test_what_was_asked_just_now_is_expected_again_and_fades() -> None:
    """A request without any habit raises the chance at once; half an hour later little is left, after hours nothing."""
    past = Past(lately=[(NOON_MS, "ann", "m")])
    chances = [past.expect(NOON_MS + later).chances()["m"] for later in (0, 600_000, 1_800_000, 6 * HOUR_MS)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.25
    assert chances[2] < chances[0] / 5
    assert to_model(past.expect(NOON_MS + DAY_H * HOUR_MS)) < 3 * PRIOR_PER_HOUR * WITHIN_MS / HOUR_MS


@given(jump=st.integers(2 * HOUR_MS, 10 * WEEK_MS), sign=st.sampled_from((-1, 1)))
def test_a_clock_that_jumps_makes_the_last_minutes_forgotten(jump: int, sign: int) -> None:
    """Forwards and backwards alike: a stamp of another time does not stand for ever."""
    lately = Lately(since_ms=NOON_MS)
    for _ in range(20):
        lately.saw("ann", "m", NOON_MS)
    now_ms = NOON_MS + sign * jump
    assert lately.requests("ann", "m", now_ms) < 0.001
    lately.saw("ann", "m", now_ms)
    assert lately.requests("ann", "m", now_ms) == pytest.approx(1, abs=0.001)
    assert 0 <= lately.watched_h(now_ms) <= LATELY_MS / HOUR_MS


def test_quiet_minutes_lower_what_habit_says() -> None:
    """Who is usually there and is not today is expected less; a server that has just begun knows nothing of that."""
    history = History(since_ms=NOON_MS - 8 * WEEK_MS, at_ms=NOON_MS, cells=(Cell("ann", "m", NOON, 30.0),))
    forecast = Forecast(history)
    quiet = to_model(forecast.expect(Lately(since_ms=NOON_MS - HOUR_MS), NOON_MS, WITHIN_MS))
    begun = to_model(forecast.expect(Lately(since_ms=NOON_MS), NOON_MS, WITHIN_MS))
    assert quiet < begun < 2 * quiet


@given(age_ms=st.integers(0, HISTORY_MS_MAX))
def test_age_halves_every_half_life(age_ms: int) -> None:
    """And nothing counts more for being of the future."""
    assert weight_of_age(age_ms + HALF_LIFE_MS) == pytest.approx(weight_of_age(age_ms) / 2)
    assert weight_of_age(-age_ms) == 1


@given(since_ms=st.integers(NOON_MS - 2 * HISTORY_MS_MAX, NOON_MS + WEEK_MS))
def test_hours_that_were_watched_are_those_that_passed(since_ms: int) -> None:
    """Each of the last weeks counts once, faded; a beginning in the future has seen nothing."""
    found = watched_h(since_ms, NOON_MS)
    passed_ms = min(max(0, NOON_MS - since_ms), HISTORY_MS_MAX)
    assert all(each >= 0 for each in found)
    mean_weight = -math.expm1(-math.log(2) * passed_ms / HALF_LIFE_MS) / math.log(2) * HALF_LIFE_MS
    assert sum(found) == pytest.approx(mean_weight / HOUR_MS, rel=1e-3, abs=1e-3)


def test_memory_is_bounded() -> None:
    """Of too many cells the smallest are left out, of too many pairs those that were seen longest ago."""
    lately = Lately(since_ms=NOON_MS)
    for number in range(PAIRS_MAX + 50):
        lately.saw(f"user{number % 70}", f"model{number}", NOON_MS + 1_000 * number)
    assert sum(map(len, lately.seen.values())) == PAIRS_MAX
    assert lately.requests("user1", "model1", NOON_MS) == 0
    cells = tuple(Cell(f"person{number}", "m", NOON, float(number)) for number in range(CELLS_MAX + 10))
    expected = Forecast(History(since_ms=NOON_MS - WEEK_MS, at_ms=NOON_MS, cells=cells)).expect(lately, NOON_MS, 1)
    assert "person9" not in expected.requests
    assert f"person{CELLS_MAX}" in expected.requests


def test_it_travels() -> None:
    """History and last minutes survive msgspec's JSON."""
    lately = Lately(since_ms=1)
    lately.saw("ann", "m", 2)
    history = History(since_ms=1, at_ms=2, cells=(Cell("ann", "m", 3, 4.5),))
    assert msgspec.json.decode(msgspec.json.encode(lately), type=Lately) == lately
    assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history


def test_a_chance_is_that_of_poisson() -> None:
    """Of none at all, of few, of many."""
    assert chance(0) == 0
    assert chance(-1) == 0
    assert chance(math.log(2)) == pytest.approx(0.5)
    assert chance(1e9) == 1
