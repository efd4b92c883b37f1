"""A job is one request as a benchmark knows it, with the length of its answer; a record is what became of it."""

from dataclasses import dataclass
from typing import Literal

INPUT_PRICE, OUTPUT_PRICE = 1, 2

Outcome = Literal["open", "completed", "cancelled", "revoked", "rejected", "lost"]


def service_of(prompt_tokens: int, output_tokens: float) -> float:
    """Weighted tokens, the unit of service: 1 for a token read, 2 for one written."""
    return INPUT_PRICE * prompt_tokens + OUTPUT_PRICE * output_tokens


@dataclass(frozen=True, slots=True)
class Job:
    """One request.

    Args:
        client: whose service it counts to; one flow of the queue.
        output_tokens: how long the answer gets, which no scheduler may look at.
        leaves_after_ms: the client leaves that long after it asked, wherever its request is then.
        key: the API key it came with; clients may have several.
    """

    id: str
    client: str
    arrival_ms: float
    prompt_tokens: int
    output_tokens: int
    engine: str = "a"
    is_revocable: bool = False
    key: str = ""
    leaves_after_ms: float | None = None


@dataclass(slots=True)
class Record:
    """What became of a job; times are virtual, negative ones have not come.

    Args:
        usual_tokens: the length of an answer as it was known when the job started.
        kept_tokens: what it had written when it was paused last, which its engine has to read again.
        is_submitted: the engine works for it, since it started or went on.
        has_token: there was one since then.
    """

    job: Job
    arrived_ms: float
    dispatched_ms: float = -1.0
    first_token_ms: float = -1.0
    ended_ms: float = -1.0
    output_tokens: int = 0
    usual_tokens: float = 0.0
    outcome: Outcome = "open"
    pauses: int = 0
    paused_ms: float = 0.0
    paused_at_ms: float = -1.0
    kept_tokens: int = 0
    is_submitted: bool = False
    has_token: bool = False

    @property
    def tokens_to_read(self) -> int:
        """The prompt, and what a pause has made necessary to read again."""
        return self.job.prompt_tokens + self.kept_tokens

    @property
    def ttft_ms(self) -> float:
        """From arrival to the first token."""
        return self.first_token_ms - self.arrived_ms

    @property
    def has_begun(self) -> bool:
        """A token came."""
        return self.first_token_ms >= 0

    @property
    def service(self) -> float:
        """Weighted tokens received so far."""
        return service_of(self.job.prompt_tokens, self.output_tokens) if self.has_begun else 0.0
