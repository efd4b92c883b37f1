"""What a request is told that may not enter, and what every answer tells of the caller's budget."""

from quotas.ledger import Admission, Budget
from quotas.policy import Limits
from server.errors import InvalidRequest, TooMany, Unavailable, WirthforgeError

TOKEN_WINDOWS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month")
WORDS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
    "tokens_per_month": "tokens a month",
}
FULL_RETRY_S = 10
CROWDED_RETRY_S = 5


def budget_headers(limits: Limits, budget: Budget) -> dict[str, str]:
    """`x-ratelimit-*` as OpenAI names them; of several token budgets the one that has least left. None: no limits."""
    headers: dict[str, str] = {}
    if limits.requests_per_minute is not None:
        left = limits.requests_per_minute - budget.requests_per_minute
        headers |= _triple("requests", limits.requests_per_minute, left, budget.minute_ends_ms)
    ends_ms = (budget.minute_ends_ms, budget.day_ends_ms, budget.month_ends_ms)
    lefts = [
        (limit - getattr(budget, name), limit, end_ms)
        for name, end_ms in zip(TOKEN_WINDOWS, ends_ms, strict=True)
        if (limit := getattr(limits, name)) is not None
    ]
    if lefts:
        left, limit, end_ms = min(lefts)
        headers |= _triple("tokens", limit, left, end_ms)
    return headers


def _triple(kind: str, limit: int, left: int, ends_ms: int) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(max(left, 0)),
        f"x-ratelimit-reset-{kind}": f"{_seconds(ends_ms)}s",
    }


def _seconds(duration_ms: int) -> int:
    """Rounded up: who comes after so many seconds does not come too early."""
    return -(-duration_ms // 1000)


def _duration(seconds: int) -> str:
    """For people: the largest unit of which there are two."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{-(-seconds // size)} {unit}"
    return f"{seconds} s"


def refusal(admission: Admission, limits: Limits, *, room_in_ms: int | None = None) -> WirthforgeError:
    """The error for an admission that is "full", "crowded" or "limited".

    Args:
        room_in_ms: when the caller's own queue will have room, where it is that which is full.
    """
    match admission.state:
        case "full":
            return Unavailable(
                f"The box is full: {admission.limit} requests wait for this model already. Try again later.",
                code="queue_full",
                retry_after_s=FULL_RETRY_S,
            )
        case "crowded":
            return TooMany(
                f"You have {admission.limit} requests waiting, which is as many as you may. "
                "Try again when one of them has begun.",
                code="queue_limit_exceeded",
                retry_after_s=CROWDED_RETRY_S if room_in_ms is None else _seconds(room_in_ms),
            )
        case _:
            return _over_budget(admission, limits)


def _over_budget(admission: Admission, limits: Limits) -> WirthforgeError:
    limit: int = getattr(limits, admission.limit)
    words = WORDS[admission.limit]
    if admission.ends_ms == 0:
        return InvalidRequest(
            f"Prompt and longest answer together are more than your {limit} {words}. Ask for less (max_tokens).",
            code="request_exceeds_quota",
        )
    left = max(limit - getattr(admission.budget, admission.limit), 0)
    return TooMany(
        f"This request needs more than the {left} that are left of your {limit} {words}; "
        f"they are renewed in {_duration(_seconds(admission.ends_ms))}.",
        retry_after_s=_seconds(admission.ends_ms),
        headers=budget_headers(limits, admission.budget),
    )


def out_of_time(*, is_paused: bool) -> Unavailable:
    """No slot became free in time, for a newcomer or for an answer that was paused."""
    if is_paused:
        return Unavailable(
            "This answer was paused, and no slot became free in time.", code="pause_timeout", retry_after_s=30
        )
    return Unavailable("No slot became free in time. Try again later.", code="queue_timeout", retry_after_s=30)


def lost() -> Unavailable:
    """The ledger gave the slot away, or the place in the queue."""
    return Unavailable("The server lost the slot of this answer.", code="lease_lost", retry_after_s=1)


def removed() -> Unavailable:
    """There is nothing left to wait for."""
    return Unavailable("The engine of this request was removed.", code="engine_gone", retry_after_s=1)
