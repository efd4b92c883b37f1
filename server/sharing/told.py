"""What Prometheus is told of requests: when one enters, pauses or ends; and once a second, of all that are there."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import get_args

from quotas.window import Window
from server.clock import Clock
from server.sharing.lease import Lease, Outcome
from server.sharing.waiting import Waiting
from server.telemetry import (
    CACHED_TOKENS,
    ENGINE_SLOTS,
    FIRST_TOKEN_SECONDS,
    GATE_QUEUE_SECONDS,
    LEASES_REAPED,
    LOOP_LAG_SECONDS,
    MODEL_REQUESTS,
    OUTPUT_TOKEN_SECONDS,
    PAUSED_SECONDS,
    PAUSES,
    QUEUE_OLDEST_SECONDS,
    REDIS_UP,
    REFUSALS,
    REQUESTS_PAUSED,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    TOKENS,
)

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STANDING = (ENGINE_SLOTS, QUEUE_OLDEST_SECONDS, REQUESTS_PAUSED, REQUESTS_RUNNING, REQUESTS_WAITING)


def admitted(lease: Lease) -> None:
    """A request got a slot."""
    GATE_QUEUE_SECONDS.labels(lease.entry.engine).observe(lease.queue_ms / 1000)


def refused(engine: str, reason: str) -> None:
    """A request gets none."""
    REFUSALS.labels(engine, reason).inc()


def interrupted(lease: Lease) -> None:
    """An answer gives up its slot."""
    PAUSES.labels(lease.entry.engine, "moved" if lease.taken == "moved" else "paused").inc()


def settled(lease: Lease, outcome: Outcome) -> None:
    """A request has ended."""
    engine = lease.entry.engine
    MODEL_REQUESTS.labels(engine, outcome).inc()
    TOKENS.labels(engine, "input").inc(lease.input_tokens)
    TOKENS.labels(engine, "output").inc(lease.output_tokens)
    CACHED_TOKENS.labels(engine).inc(lease.cached_tokens)
    if lease.pauses:
        PAUSED_SECONDS.labels(engine).observe(lease.paused_ms / 1000)
    if lease.first_token_ms >= 0:
        FIRST_TOKEN_SECONDS.labels(engine).observe(lease.first_token_ms / 1000)
        if lease.output_tokens > 1:
            wrote_ms = lease.elapsed_ms - lease.first_token_ms - lease.paused_ms
            OUTPUT_TOKEN_SECONDS.labels(engine).observe(max(wrote_ms, 0) / 1000 / (lease.output_tokens - 1))


def reaped(count: int) -> None:
    """Leases of servers that are gone were taken back."""
    LEASES_REAPED.inc(count)


def redis_answered(*, is_up: bool) -> None:
    """Or it did not."""
    REDIS_UP.set(is_up)


def show(
    leases: Collection[Lease], waiting: Collection[Waiting], windows: Mapping[str, Window], *, clock: Clock
) -> None:
    """Replace what was told of all requests that are there."""
    for gauge in STANDING:
        gauge.clear()
    running = Counter(lease.entry.engine for lease in leases)
    queued = Counter(each.entry.engine for each in waiting if each.lease is None)
    paused = Counter(each.entry.engine for each in waiting if each.lease is not None)
    now_ms = int(clock.now().timestamp() * 1000)
    oldest_ms: dict[str, int] = {}
    for each in waiting:
        if each.lease is None:
            age_ms = max(now_ms - each.entry.started_at_ms, 0)
            oldest_ms[each.entry.engine] = max(age_ms, oldest_ms.get(each.entry.engine, 0))
    for engine, window in windows.items():
        ENGINE_SLOTS.labels(engine).set(window.slots)
        # There from the beginning, at 0: what comes later has nothing that it could have grown from.
        for outcome in OUTCOMES:
            MODEL_REQUESTS.labels(engine, outcome)
    # Of an engine that is going some may still be there.
    for engine in {*windows, *running, *queued, *paused}:
        REQUESTS_RUNNING.labels(engine).set(running[engine])
        REQUESTS_WAITING.labels(engine).set(queued[engine])
        REQUESTS_PAUSED.labels(engine).set(paused[engine])
        QUEUE_OLDEST_SECONDS.labels(engine).set(oldest_ms.get(engine, 0) / 1000)


async def sleep_ms(clock: Clock, duration_ms: int) -> None:
    """Sleep, and tell how much longer it took."""
    began_ms = clock.monotonic_ms()
    await clock.sleep_ms(duration_ms)
    LOOP_LAG_SECONDS.observe(max(clock.monotonic_ms() - began_ms - duration_ms, 0) / 1000)
