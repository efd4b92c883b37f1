"""A lease: one running slot, owned by the request that was admitted; and what that request came with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from quotas.cost import Cost
from quotas.forecast import Standing
from quotas.ledger import Admission, Entry, Progress
from quotas.policy import Limits
from server.clock import Clock

Outcome = Literal["completed", "cancelled", "failed", "revoked"]
# Lost: the ledger gave the slot away, since nobody renewed the lease. Revoked: somebody who waits needs the slot.
# Paused: the same, and the answer goes on later. Moved: its engine ends, and the answer goes on elsewhere.
Taken = Literal["lost", "revoked", "paused", "moved"]


# Told where a waiting request stands, and the headers that its answer will have.
Tell = Callable[[Standing, Mapping[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A request as it comes to the gate.

    Attributes:
        limits: what its person may.
        cost: of its model.
        version: the policy version that the limits were read under.
        tell: called about every second while it waits.
    """

    entry: Entry
    limits: Limits
    cost: Cost
    version: str = ""
    tell: Tell | None = None


class Lease:
    """What the request counts on while it runs; counting costs an addition, the gate reports for all leases together.

    It ends once: whoever calls `settle` first decides the outcome, so the exit stack may always call it last.

    Attributes:
        admission: what the ledger said when the request entered.
        taken: why the lease was taken away, if it was; then its request has to end, or to wait for another slot.
        pauses, paused_ms: how often it was, and how long that took.
        can_go_on: whether the answer could be cut now, and go on later.
        has_token: whether there was one since it began, or went on.
    """

    def __init__(
        self,
        asking: Asking,
        admission: Admission,
        *,
        clock: Clock,
        entered_ms: int,
        pauses_max: int,
        settle: Callable[["Lease", Outcome], None],
        on_first_token: Callable[["Lease"], None],
    ) -> None:
        self.entry = asking.entry
        self.limits = asking.limits
        self.admission = admission
        self.input_tokens = asking.entry.input_tokens
        self.cached_tokens = 0
        self.output_tokens = 0
        self.queue_ms = clock.monotonic_ms() - entered_ms
        self.first_token_ms = -1
        self.taken: Taken | None = None
        # Called when the lease is taken away: closes the engine's stream, whose reader then sees `taken`.
        self.on_taken: Callable[[], object] | None = None
        # For a model that had to be loaded for it.
        self.load_cost = 0
        self.pauses = 0
        self.paused_ms = 0
        self.can_go_on: Callable[[], bool] = lambda: False
        self.has_token = False
        # Since when it is paused.
        self._stepped_ms: int | None = None
        self._pauses_max = pauses_max
        self._cost = asking.cost
        self._clock = clock
        self._entered_ms = entered_ms
        self._settle = settle
        self._on_first_token = on_first_token
        self._is_settled = False

    @property
    def elapsed_ms(self) -> int:
        """Since the request entered the gate."""
        return self._clock.monotonic_ms() - self._entered_ms

    @property
    def cost(self) -> int:
        """What the request has cost so far, in service units."""
        return self._cost.of(self.input_tokens, self.output_tokens, self.cached_tokens) + self.load_cost

    @property
    def progress(self) -> Progress:
        """What the ledger is told while the request runs."""
        first_token_ms = self.first_token_ms if self.has_token else -1
        return Progress(self.entry.id, self.output_tokens, first_token_ms, self.cost, self.is_pausable)

    @property
    def is_pausable(self) -> bool:
        """Whether the answer may be interrupted now."""
        return self.pauses < self._pauses_max and self._is_movable

    @property
    def _is_movable(self) -> bool:
        return self.has_token and self.can_go_on()

    def see_first_token(self) -> None:
        """Note when the first token came; after a pause, the first new one."""
        if not self.has_token:
            self.has_token = True
            if self.first_token_ms < 0:
                self.first_token_ms = self.elapsed_ms
            self._on_first_token(self)

    def take_away(self, reason: Taken) -> None:
        """The slot goes to somebody else. What cannot be interrupted is not, and the next report says so."""
        is_able = {"paused": self.is_pausable, "moved": self._is_movable}.get(reason, True)
        if self.taken is None and is_able:
            self.taken = reason
            if self.on_taken is not None:
                self.on_taken()

    def step_aside(self, engine: str) -> int:
        """It gives up its slot, or its place, to go on with `engine` later; returns which pause that is."""
        self.pauses += 1
        self.has_token = False
        self._end_pause()
        self._stepped_ms = self._clock.monotonic_ms()
        self.entry = replace(self.entry, engine=engine)
        return self.pauses

    def step_in(self) -> None:
        """It has a slot again."""
        self._end_pause()
        self.taken = self.on_taken = None

    def _end_pause(self) -> None:
        if self._stepped_ms is not None:
            self.paused_ms += self._clock.monotonic_ms() - self._stepped_ms
            self._stepped_ms = None

    def settle(self, outcome: Outcome) -> None:
        """End the lease; does not wait, cannot fail, and counts once."""
        if not self._is_settled:
            self._is_settled = True
            self._end_pause()
            # Where an engine failed without a token, nothing was used.
            if outcome == "failed" and self.output_tokens == 0:
                self.input_tokens = 0
            self._settle(self, outcome)

    def annul(self) -> None:
        """It never was: whoever settles it later changes nothing."""
        self._is_settled = True

    def event(self, outcome: Outcome) -> Mapping[str, str | int]:
        """The usage event of this request."""
        return self.entry.usage_fields() | {
            "id": self.entry.id,
            "engine": self.entry.engine,
            "outcome": outcome,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "queue_ms": self.queue_ms,
            "first_token_ms": self.first_token_ms,
            "total_ms": self.elapsed_ms,
            "pauses": self.pauses,
            "paused_ms": self.paused_ms,
        }
