"""What the ledger holds of budgets and requests at one moment, to be compared with the usage rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tally:
    """What one window of a budget holds.

    Attributes:
        which: days, or months, since January 1970.
        tokens: of settled requests, and what the others have reserved.
        requests: their number; None where the window began before that was counted.
    """

    which: int
    tokens: int
    requests: int | None


@dataclass(frozen=True, slots=True)
class Account:
    """The budget of one flow: the day and the month in which it was used last.

    Attributes:
        since_ms: what was admitted before is not counted, since Redis lost it.
    """

    flow: str
    since_ms: int
    day: Tally
    month: Tally


@dataclass(frozen=True, slots=True)
class Held:
    """A request that waits or runs.

    Attributes:
        deadline_ms: of its lease; 0 for one that waits.
        flow: empty where its record is gone.
        reserved: the tokens that its budget counts for it until it ends.
        day, month: the windows in which it counts.
    """

    id: str
    engine: str
    is_running: bool
    deadline_ms: int
    flow: str
    reserved: int
    day: int
    month: int


@dataclass(frozen=True, slots=True)
class Audit:
    """The ledger at one moment.

    Attributes:
        now_ms: by Redis' clock.
        replicas: how many servers were heard of lately.
        last_event: where the settled stream ended; empty where nothing waits in it.
    """

    now_ms: int
    replicas: int
    last_event: str
    accounts: tuple[Account, ...]
    held: tuple[Held, ...]


def read_audit(reply: Sequence[Any]) -> Audit:
    """Decode the reply of audit.lua."""
    now_ms, replicas, last_event, budgets, requests = reply
    return Audit(
        int(now_ms),
        int(replicas),
        last_event,
        tuple(_account(*budget) for budget in budgets),
        tuple(_held(*request) for request in requests),
    )


def _account(flow: str, since_ms: str, *tallies: str) -> Account:
    day, day_tokens, day_requests, month, month_tokens, month_requests = tallies
    return Account(
        flow,
        int(since_ms or 0),
        Tally(int(day), int(day_tokens), int(day_requests) if day_requests else None),
        Tally(int(month), int(month_tokens), int(month_requests) if month_requests else None),
    )


def _held(request: str, engine: str, state: str, deadline_ms: str, *entry: str) -> Held:
    flow, reserved, day, month = entry
    return Held(
        request,
        engine,
        state == "running",
        int(float(deadline_ms or 0)),
        flow,
        int(reserved or 0),
        # A window that there never is, where the record is gone.
        int(day or -1),
        int(month or -1),
    )
