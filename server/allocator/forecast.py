"""What will be asked in the next minutes, and of which model: by habit, and by what is going on.

Habits repeat by the week. Requests are counted by person, model and hour of the week in UTC (0 is Monday from 0 to 1;
any time zone has the same pattern, shifted; where clocks change twice a year it moves by an hour and is learned anew).
Old weeks fade: a request, and an hour that was watched, count half for every HALF_LIFE_MS of age. Discounting both
alike is the steady model of Smith ("A generalization of the Bayesian steady forecasting model", JRSS B 41, 1979).

Counts are taken to be Poisson, rates to be Gamma. With a prior of mean r and the weight of b hours, n requests in e
hours give the rate (Gelman et al., Bayesian Data Analysis, 3rd edition, section 2.6):

    rate = (b * r + n) / (b + e)

It is applied four times, each with the one before as its prior, so that little data says little:

    pair of person and model    r = one request a week       b = WEIGHT_PAIR_H     n, e over all hours
    its hour of the day         r = the pair                 b = WEIGHT_DAY_H      n, e of the same hour on all days
    its hour of the week        r = the hour of the day      b = WEIGHT_WEEK_H     n, e of that hour
    now                         r = the hour of the week     b = WEIGHT_NOW_H      n, e of the last minutes

The last minutes fade with LATELY_MS. How long what is going on goes on is not known; it is taken to give way to habit
as quickly: a moment that is s ahead has the rate `w * now + (1 - w) * habit` with w = exp(-s / LATELY_MS). That is the
exponential kernel of a self-exciting process (Hawkes, Biometrika 58, 1971). Summed over the next minutes this gives
the expected number of requests, and 1 - exp(-number) the chance that there is one. Requests come in bursts, so that the
chance is too high where few bursts make up the number; as an order of models, which is what it is for, it will do.

Somebody unknown, with no more than the first prior, always counts: so nothing is impossible, and an empty history says
the prior. Nothing here reads a clock. A clock that jumps makes the last minutes forgotten, in either direction.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct, field

HOUR_MS = 3_600_000
DAY_H, WEEK_H = 24, 168
WEEK_MS = WEEK_H * HOUR_MS
# 1 January 1970 was a Thursday.
EPOCH_H = 3 * DAY_H
HALF_LIFE_MS = 3 * WEEK_MS
# Four half-lives; what is older would count less than a sixteenth.
HISTORY_MS_MAX = 12 * WEEK_MS
LATELY_MS = 600_000
# Hours that each prior is worth. One of the hour of the week is worth one week of watching it.
WEIGHT_PAIR_H, WEIGHT_DAY_H, WEIGHT_WEEK_H, WEIGHT_NOW_H = 24.0, 2.0, 1.0, LATELY_MS / HOUR_MS
PRIOR_PER_HOUR = 1 / WEEK_H
# Some megabytes. The smallest are left out.
CELLS_MAX = 50_000
PAIRS_MAX = 2_048
WITHIN_MS_MAX = DAY_H * HOUR_MS


class Cell(Struct, frozen=True):
    """Requests of one person to one model in one hour of the week.

    Attributes:
        hour: of the week, 0 to 167.
        requests: faded, so no whole number.
    """

    user: str
    model: str
    hour: int
    requests: float


class History(Struct, frozen=True, kw_only=True):
    """What past weeks say.

    Attributes:
        since_ms, at_ms: what was watched, by the wall clock; older requests than `since_ms` are not counted.
        cells: those that hold something, faded to `at_ms`.
    """

    since_ms: int
    at_ms: int
    cells: tuple[Cell, ...] = ()


class Recent(Struct):
    """A faded number of requests, and when it was true."""

    requests: float
    at_ms: int

    def at(self, now_ms: int) -> float:
        """What it is now."""
        return self.requests * math.exp(-abs(now_ms - self.at_ms) / LATELY_MS)


class Lately(Struct, kw_only=True):
    """What the last minutes say, by person and model; changes in place.

    Attributes:
        since_ms: when the watching began.
    """

    since_ms: int
    seen: dict[str, dict[str, Recent]] = field(default_factory=dict)

    def saw(self, user: str, model: str, now_ms: int) -> None:
        """A request began."""
        models = self.seen.setdefault(user, {})
        before = models.get(model)
        models[model] = Recent(1 + (before.at(now_ms) if before else 0), now_ms)
        if before is None and sum(map(len, self.seen.values())) > PAIRS_MAX:
            self._forget_one(now_ms)

    def requests(self, user: str, model: str, now_ms: int) -> float:
        """The faded number of requests of a pair."""
        recent = self.seen.get(user, {}).get(model)
        return recent.at(now_ms) if recent else 0.0

    def watched_h(self, now_ms: int) -> float:
        """The faded hours in which they were seen: at most those of LATELY_MS."""
        return -math.expm1(-abs(now_ms - self.since_ms) / LATELY_MS) * LATELY_MS / HOUR_MS

    def _forget_one(self, now_ms: int) -> None:
        pairs = ((recent.at(now_ms), user, model) for user, of in self.seen.items() for model, recent in of.items())
        _, user, model = min(pairs)
        del self.seen[user][model]
        if not self.seen[user]:
            del self.seen[user]


class Expected(Struct, frozen=True, kw_only=True):
    """How many requests are expected within some time.

    Attributes:
        requests: by person, then by model.
        unknown: of somebody whom nobody knows, to any one model.
    """

    requests: Mapping[str, Mapping[str, float]]
    unknown: float

    def of_others(self, but_user: str) -> float:
        """All but those of one person."""
        known = (sum(models.values()) for user, models in self.requests.items() if user != but_user)
        return self.unknown + sum(known)

    def chances(self) -> dict[str, float]:
        """By model that was ever asked: how likely it is asked at least once."""
        numbers: defaultdict[str, float] = defaultdict(lambda: self.unknown)
        for models in self.requests.values():
            for model, number in models.items():
                numbers[model] += number
        return {model: chance(number) for model, number in numbers.items()}


class _Pair:
    """The rates of one person and one model, in requests an hour."""

    __slots__ = ("day", "overall", "week")

    def __init__(self, cells: Sequence[Cell], watched: Sequence[float]) -> None:
        self.overall = posterior(
            PRIOR_PER_HOUR, WEIGHT_PAIR_H, sum(max(0.0, cell.requests) for cell in cells), sum(watched)
        )
        day: defaultdict[int, float] = defaultdict(float)
        week: defaultdict[int, float] = defaultdict(float)
        for cell in cells:
            day[cell.hour % DAY_H] += max(0.0, cell.requests)
            week[cell.hour % WEEK_H] += max(0.0, cell.requests)
        self.day = {
            hour: posterior(self.overall, WEIGHT_DAY_H, requests, sum(watched[hour::DAY_H]))
            for hour, requests in day.items()
        }
        self.week = {
            hour: posterior(self.day[hour % DAY_H], WEIGHT_WEEK_H, requests, watched[hour])
            for hour, requests in week.items()
        }

    def rate(self, hour: int, watched: Sequence[float]) -> float:
        """Of an hour of the week."""
        if (known := self.week.get(hour)) is not None:
            return known
        day = self.day.get(hour % DAY_H)
        if day is None:
            day = posterior(self.overall, WEIGHT_DAY_H, 0, sum(watched[hour % DAY_H :: DAY_H]))
        return posterior(day, WEIGHT_WEEK_H, 0, watched[hour])


class Forecast:
    """A history, made ready to be asked."""

    def __init__(self, history: History) -> None:
        self._watched = watched_h(history.since_ms, history.at_ms)
        cells: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
        most = history.cells
        if len(most) > CELLS_MAX:
            most = tuple(sorted(most, key=lambda cell: cell.requests, reverse=True)[:CELLS_MAX])
        for cell in most:
            cells[cell.user, cell.model].append(cell)
        self._pairs = {pair: _Pair(found, self._watched) for pair, found in cells.items()}
        # Of whom nothing is known but the last minutes.
        self._new = _Pair((), self._watched)

    def expect(self, lately: Lately, now_ms: int, within_ms: int) -> Expected:
        """What is expected from now on, within so long (at most a day)."""
        within_ms = min(max(within_ms, 0), WITHIN_MS_MAX)
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        e_h = lately.watched_h(now_ms)
        hours = list(_hours(now_ms, within_ms))
        for user, model in self._pairs.keys() | {(user, model) for user, of in lately.seen.items() for model in of}:
            pair = self._pairs.get((user, model), self._new)
            habit = pair.rate(hour_of_week(now_ms), self._watched)
            now = posterior(habit, WEIGHT_NOW_H, lately.requests(user, model, now_ms), e_h)
            found[user][model] = sum(
                now * fading_h + pair.rate(hour, self._watched) * (all_h - fading_h) for hour, all_h, fading_h in hours
            )
        return Expected(requests=dict(found), unknown=PRIOR_PER_HOUR * within_ms / HOUR_MS)


def posterior(prior: float, weight_h: float, requests: float, hours: float) -> float:
    """The mean of a Gamma rate, an hour, after so many requests in so many hours."""
    return (weight_h * prior + requests) / (weight_h + hours)


def chance(expected: float) -> float:
    """That a Poisson number with this mean is not zero."""
    return -math.expm1(-max(0.0, expected))


def hour_of_week(now_ms: int) -> int:
    """0 is Monday from 0 to 1, UTC."""
    return (now_ms // HOUR_MS + EPOCH_H) % WEEK_H


def weight_of_age(age_ms: float) -> float:
    """What something counts that is so old: half for every half-life."""
    return math.exp2(-max(0.0, age_ms) / HALF_LIFE_MS)


def watched_h(since_ms: int, at_ms: int) -> list[float]:
    """For each hour of the week, how long it was watched between these times: faded, in hours."""
    found = [0.0] * WEEK_H
    since_ms = max(since_ms, at_ms - HISTORY_MS_MAX)
    for begin_ms in range(since_ms // HOUR_MS * HOUR_MS, at_ms, HOUR_MS):
        from_ms, to_ms = max(since_ms, begin_ms), min(at_ms, begin_ms + HOUR_MS)
        found[hour_of_week(begin_ms)] += (to_ms - from_ms) / HOUR_MS * weight_of_age(at_ms - (from_ms + to_ms) / 2)
    return found


def _hours(now_ms: int, within_ms: int) -> Iterator[tuple[int, float, float]]:
    """The hours of the week ahead: which, how much of each, and how much of that belongs to now (w, see above)."""
    next_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
    borders = [now_ms, *range(next_ms, now_ms + within_ms, HOUR_MS), now_ms + within_ms]
    for from_ms, to_ms in pairwise(borders):
        near, far = ((each - now_ms) / LATELY_MS for each in (from_ms, to_ms))
        fading_ms = (math.exp(-near) - math.exp(-far)) * LATELY_MS
        yield hour_of_week(from_ms), (to_ms - from_ms) / HOUR_MS, fading_ms / HOUR_MS
