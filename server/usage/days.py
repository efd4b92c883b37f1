"""The days that a report is about, in somebody's time zone.

Borders are made here and given to Postgres as times, so that days are the same ones whatever zones it knows. A day
that a change of the clocks makes shorter or longer is as long as it was; where midnight did not exist, it begins with
the change.
"""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from server.errors import InvalidRequest

DAYS = 30
DAYS_MAX = 400
YEAR_MIN, YEAR_MAX = 2000, 2999
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
ZONE_CHARACTERS_MAX = 64
DAY = timedelta(days=1)


class Days(Struct, frozen=True):
    """Some days in a row.

    Attributes:
        dates: all of them.
        borders: when each of them begins, and when the last one ends, in UTC.
        zone: by its IANA name.
    """

    dates: tuple[date, ...]
    borders: tuple[datetime, ...]
    zone: str

    @property
    def since(self) -> datetime:
        """The beginning of the first day."""
        return self.borders[0]

    @property
    def until(self) -> datetime:
        """The end of the last day; it does not belong to it."""
        return self.borders[-1]


def days_of(now: datetime, *, first: str | None = None, last: str | None = None, zone: str = "UTC") -> Days:
    """The days from `first` to `last`, both of them included.

    Args:
        first: as 2026-11-01; None: DAYS days up to the last one.
        last: None: today.
        zone: the IANA name of a time zone.

    Raises:
        InvalidRequest: a date or a zone that is none, or too many days; `param` says which.
    """
    place = _zone(zone)
    to = now.astimezone(place).date() if last is None else _date(last, "to")
    since = _clamped(to - (DAYS - 1) * DAY) if first is None else _date(first, "from")
    if since > to:
        raise InvalidRequest(f"from ({since}) is after to ({to}).", param="from")
    count = (to - since).days + 1
    if count > DAYS_MAX:
        raise InvalidRequest(f"A report is about {DAYS_MAX} days at the most, not {count}.", param="from")
    borders = tuple(datetime(*_parts(since + each * DAY), tzinfo=place).astimezone(UTC) for each in range(count + 1))
    return Days(tuple(since + each * DAY for each in range(count)), borders, zone)


def _parts(day: date) -> tuple[int, int, int]:
    return day.year, day.month, day.day


def _date(text: str, param: str) -> date:
    try:
        found = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None or not YEAR_MIN <= found.year <= YEAR_MAX:
        raise InvalidRequest(f"{param} is a day from {YEAR_MIN}-01-01 on, written as 2026-11-01.", param=param)
    return found


def _clamped(day: date) -> date:
    return max(day, date(YEAR_MIN, 1, 1))


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        # The pattern keeps paths out, of which zoneinfo would refuse most, but not all, with an error of its own.
        if len(name) <= ZONE_CHARACTERS_MAX and _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InvalidRequest(f"There is no time zone {name[:100]!r}. Europe/Berlin is one, and UTC.", param="tz")
