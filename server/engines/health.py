"""Whether an engine is worth asking: a circuit breaker.

    closed ──failures in a row──► open ──after a while──► half-open ──one trial succeeds──► closed
                                    ▲                          │
                                    └───────the trial fails────┘  (and the while doubles)

While it is open nobody is sent there to fail; half-open, one request tries for all. Only what requests see counts, not
probes: an engine may list its models and answer nothing. Requests that were under way when it opened change nothing by
failing: a hundred that break at once are one fault.
"""

from server.clock import Clock

FAILURES_MAX = 3
OPEN_MS_FIRST = 1_000
OPEN_MS_MAX = 30_000


class Breaker:
    """The breaker of one engine, in one replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._opens = 0
        self._open_until_ms: int | None = None
        self._trial_until_ms = 0

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        if self._open_until_ms is None:
            return "closed"
        return "open" if self._clock.monotonic_ms() < self._open_until_ms else "half-open"

    @property
    def lets_pass(self) -> bool:
        """Whether a request may go there now."""
        return self.state == "closed" or (
            self.state == "half-open" and self._clock.monotonic_ms() >= self._trial_until_ms
        )

    @property
    def rest_ms(self) -> int:
        """How long nobody is sent there; 0 if somebody may be."""
        until_ms = max(self._open_until_ms or 0, self._trial_until_ms)
        return max(until_ms - self._clock.monotonic_ms(), 0)

    def try_one(self) -> bool:
        """A request goes there; while half-open nobody else does, until it is known what became of it.

        Returns:
            Whether it is the trial: then it has to call `release` when it ends.
        """
        is_trial = self.state == "half-open" and self.lets_pass
        if is_trial:
            self._trial_until_ms = self._clock.monotonic_ms() + OPEN_MS_MAX
        return is_trial

    def succeed(self) -> None:
        """It has answered."""
        self._failures = self._opens = self._trial_until_ms = 0
        self._open_until_ms = None

    def fail(self) -> None:
        """It has failed by its own fault."""
        self._failures += 1
        if self.state == "half-open" or (self.state == "closed" and self._failures >= FAILURES_MAX):
            open_ms = min(OPEN_MS_FIRST << min(self._opens, 10), OPEN_MS_MAX)
            self._opens += 1
            self._open_until_ms = self._clock.monotonic_ms() + open_ms
            self._trial_until_ms = 0

    def release(self) -> None:
        """The trial ended without saying anything of the engine: its client left."""
        self._trial_until_ms = 0
