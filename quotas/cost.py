"""What tokens cost: service units, the currency in which the box is shared.

Reading a token is cheaper than writing one: a prompt is computed in one go, an answer token by token. Until a box was
calibrated, a written token costs two read ones, as in the work that this sharing builds on (VTC, OSDI 2024). A prompt
token that the engine still had in its cache costs a tenth.
"""

from dataclasses import dataclass

CACHED_DIVISOR = 10
COST_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Service units per token of one model."""

    input: int = 1
    output: int = 2

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """The cost of a request so far; `cached_tokens` are among the input tokens."""
        cached = min(max(cached_tokens, 0), input_tokens)
        return (
            self.input * (input_tokens - cached) + self.input * cached // CACHED_DIVISOR + self.output * output_tokens
        )


def read_costs(entries: tuple[str, ...]) -> dict[str, Cost]:
    """Costs as an admin writes them, `model=input:output`. Raises ValueError with the entry that will not do."""
    costs = {}
    for entry in entries:
        model, _, amounts = entry.rpartition("=")
        parts = amounts.split(":")
        if not model or len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):  # noqa: PLR2004
            raise ValueError(entry)
        if not all(1 <= int(part) <= COST_MAX for part in parts):
            raise ValueError(entry)
        costs[model] = Cost(*map(int, parts))
    return costs
