"""Calendar months in UTC."""

from datetime import UTC, datetime
from typing import NamedTuple

MONTHS = 12
YEAR_MAX = 9998


class Month(NamedTuple):
    """One month; they compare as they follow each other."""

    year: int
    month: int

    @classmethod
    def of(cls, time: datetime) -> "Month":
        """The month of a time."""
        time = time.astimezone(UTC)
        return cls(time.year, time.month)

    def plus(self, count: int) -> "Month":
        """So many months later, or earlier."""
        years, month = divmod(self.year * MONTHS + self.month - 1 + count, MONTHS)
        return Month(min(max(years, 1), YEAR_MAX), month + 1)

    @property
    def begins(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        """The first moment after it."""
        return self.plus(1).begins

    def __str__(self) -> str:
        return f"{self.year:04}_{self.month:02}"
