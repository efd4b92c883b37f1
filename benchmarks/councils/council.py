"""What is kept of a simulated council, and of the day that it was part of."""

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from benchmarks.councils.day import Day, Habit
from benchmarks.sharing.job import Job, Record
from benchmarks.sharing.replay import Result
from server.allocator.terms import Allocation

Way = Literal["allocated", "maximum", "solo"]
Role = Literal["leader", "member", "chair"]


@dataclass(slots=True, eq=False)
class Call:
    """One request of a council."""

    role: Role
    model: str
    sample: int
    record: Record | None = None

    @property
    def is_open(self) -> bool:
        """It was asked, and nothing has come of it yet."""
        return self.record is not None and self.record.outcome == "open"

    @property
    def is_done(self) -> bool:
        """It has answered."""
        return self.record is not None and self.record.outcome == "completed"

    @property
    def is_over(self) -> bool:
        """It was asked, and is open no more."""
        return self.record is not None and not self.is_open


@dataclass(slots=True, eq=False)
class Council:
    """A question and what becomes of it.

    Attributes:
        size_max: what the same person would get on an idle box.
        others: requests of anybody that ran or waited when it was asked.
        ceiling: of steadiness, then; None: there was none.
        ended_ms: negative while it sits.
    """

    id: str
    habit: Habit
    asked_ms: float
    allocation: Allocation
    size_max: int
    others: int
    ceiling: int | None
    prompt_tokens: int
    dice: Random
    calls: list[Call] = field(default_factory=list)
    late: int = 0
    ended_ms: float = -1.0

    @property
    def leader(self) -> Call:
        """Who was asked first."""
        return self.calls[0]

    @property
    def members(self) -> list[Call]:
        """Who sits here, without the chair."""
        return [call for call in self.calls if call.role != "chair"]

    @property
    def done(self) -> list[Call]:
        """Members that have answered."""
        return [call for call in self.members if call.is_done]


@dataclass(frozen=True, slots=True)
class Look:
    """What the box did at one moment."""

    at_ms: float
    running: int
    waiting: int
    ceiling: int | None


@dataclass(slots=True)
class Played:
    """What a day leaves.

    Attributes:
        taken_back: requests that were revoked, with the time.
        waited: light requests that found no slot, and whether one was lent to somebody who had to give it back.
    """

    day: Day
    way: Way
    result: Result
    councils: list[Council]
    looks: list[Look]
    taken_back: list[tuple[float, Job]]
    waited: list[tuple[Record, bool]]
