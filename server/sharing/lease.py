"""A lease: one running slot, owned by the request that was admitted."""

from collections.abc import Callable
from typing import Literal

from quotas.ledger import Entry, Progress
from server.clock import Clock

Outcome = Literal["completed", "cancelled", "failed"]


class Lease:
    """What the request counts on while it runs; counting costs an addition, the gate reports for all leases together.

    It ends once: whoever calls `settle` first decides the outcome, so the exit stack may always call it last.
    """

    def __init__(
        self, entry: Entry, *, clock: Clock, entered_ms: int, settle: Callable[["Lease", Outcome], None]
    ) -> None:
        self.entry = entry
        self.input_tokens = entry.input_tokens
        self.output_tokens = 0
        self.queue_ms = clock.monotonic_ms() - entered_ms
        self.first_token_ms = -1
        self.is_lost = False
        # Called when the lease is taken away: closes the engine's stream, whose reader then sees `is_lost`.
        self.on_lost: Callable[[], object] | None = None
        self._clock = clock
        self._entered_ms = entered_ms
        self._settle = settle
        self._is_settled = False

    @property
    def elapsed_ms(self) -> int:
        """Since the request entered the gate."""
        return self._clock.monotonic_ms() - self._entered_ms

    @property
    def progress(self) -> Progress:
        """What the ledger is told while the request runs."""
        return Progress(self.entry.id, self.output_tokens, self.first_token_ms)

    def see_first_token(self) -> None:
        """Note when the first token came."""
        if self.first_token_ms < 0:
            self.first_token_ms = self.elapsed_ms

    def lose(self) -> None:
        """The ledger gave the slot to somebody else."""
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    def settle(self, outcome: Outcome) -> None:
        """End the lease; does not wait, cannot fail, and counts once."""
        if not self._is_settled:
            self._is_settled = True
            self._settle(self, outcome)

    def event(self, outcome: Outcome) -> dict[str, str | int]:
        """The usage event of this request. Where an engine failed without a token, nothing was used."""
        was_used = outcome != "failed" or self.output_tokens > 0
        names = self.entry.fields()
        event = {str(name): value for name, value in zip(names[::2], names[1::2], strict=True)}
        return event | {
            "id": self.entry.id,
            "engine": self.entry.engine,
            "outcome": outcome,
            "input_tokens": self.input_tokens if was_used else 0,
            "output_tokens": self.output_tokens,
            "queue_ms": self.queue_ms,
            "first_token_ms": self.first_token_ms,
            "total_ms": self.elapsed_ms,
        }
