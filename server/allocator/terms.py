"""What the allocator is told, and what it answers. Times are in milliseconds unless the name says otherwise."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from server.allocator.ladder import LOCAL_STEPS

# No chair reads more answers than that.
SIZE_MAX = 16

Binding = Literal[
    "wanted", "policy", "models", "worth", "first_token", "speed", "memory", "waiting", "quality", "steady", "quota"
]


class Candidate(Struct, frozen=True, kw_only=True):
    """A model on an engine, and how both stand now.

    Attributes:
        box: the device or machine that its engine shares with others.
        quality: 0 to 1, for this kind of question; decisions want the settled one (`quality.settled`).
        chair: 0 to 1, how well it makes one answer of several.
        observations: what people said of its answers, in wins and losses; 0: its quality is a guess.
        prefill_us: time of a prompt token, alone, in microseconds; 0: not known.
        decode_us: time of an answer token, alone, in microseconds; 0: not known.
        slots: how many requests its engine works on at a time; engines may be shared by candidates.
        running: requests that its engine works on now.
        waiting: requests that wait for its engine.
        wait_ms: what a request of this asker is expected to wait there.
        is_resident: whether it is in memory.
        load_ms: what loading takes, if it is not.
        memory_bytes: what loading takes of the box; 0 if it is in memory.
        context_tokens_max: prompt and answer together; None: not known, or enough for anything.
        together: rates of its engine in tokens a second of all answers, by the number of answers at a time, as
            calibrated; empty: a prior.
    """

    model: str
    engine: str
    box: str
    quality: float = 0.5
    chair: float = 0.5
    observations: float = 0.0
    prefill_us: float = 0.0
    decode_us: float = 0.0
    slots: int = 1
    running: int = 0
    waiting: int = 0
    wait_ms: int = 0
    is_resident: bool = True
    load_ms: int = 0
    memory_bytes: int = 0
    context_tokens_max: int | None = None
    together: tuple[tuple[int, float], ...] = ()


class Load(Struct, frozen=True, kw_only=True):
    """Who and what could answer, and what goes on now.

    Attributes:
        free_bytes: memory that a box can give; None, or not listed: not known, and nothing is loaded there for a
            council.
        busy_engines: engines of a box that answer anybody now.
        slowest_tokens_per_s: of the streams that run now; None: none runs.
        waiting_others: requests of other people that wait anywhere.
        expected_requests: of other people, in the next minutes.
    """

    candidates: tuple[Candidate, ...]
    free_bytes: Mapping[str, int | None] = field(default_factory=dict)
    busy_engines: Mapping[str, frozenset[str]] = field(default_factory=dict)
    slowest_tokens_per_s: float | None = None
    waiting_others: int = 0
    expected_requests: float = 0.0


class Policy(Struct, frozen=True, kw_only=True):
    """What is allowed, and what things cost.

    Attributes:
        size_max: the largest council of this person; more than SIZE_MAX is never.
        size_wanted: what was asked for; None: as many as are worth it.
        samples_only: answers of one model only.
        samples: whether further answers of one model may fill up a council of several.
        members: names, where somebody chose them: each once, whatever its quality; empty: any.
        chair: a name, or None for the most skilled.
        first_token_ms_max: of the leader.
        tokens_per_s_min: of every stream that runs.
        time_price: of a council that takes e times as long, in quality.
        load_price: of keeping a full box busy for one answer's time more, in quality.
        quality_gap_max: who is further below the best is no member.
        reserve_bytes: memory of a box that loading leaves free.
        tokens_left: of the asker's quota; None: no limit.
        steps: of the ladder, which are switched on.
    """

    size_max: int = 6
    size_wanted: int | None = None
    samples_only: bool = False
    samples: bool = True
    members: tuple[str, ...] = ()
    chair: str | None = None
    first_token_ms_max: int = 2_000
    tokens_per_s_min: float = 15.0
    time_price: float = 0.03
    load_price: float = 0.10
    quality_gap_max: float = 0.10
    reserve_bytes: int = 1 << 30
    tokens_left: int | None = None
    steps: frozenset[str] = LOCAL_STEPS


class Demand(Struct, frozen=True, kw_only=True):
    """One question.

    Attributes:
        kind: as `kinds.kind_of` tells it.
        answer_tokens: expected, of each member.
        context_tokens: what its context must hold; 0: prompt and answer.
    """

    kind: str = "open"
    prompt_tokens: int = 512
    answer_tokens: int = 400
    context_tokens: int = 0


class Placement(Struct, frozen=True, kw_only=True):
    """One member. `sample` counts the answers of one model, from 0."""

    model: str
    engine: str
    sample: int = 0
    is_leader: bool = False


class Predicted(Struct, frozen=True, kw_only=True):
    """What is expected of an allocation.

    Attributes:
        first_token_ms: of the leader.
        total_ms: to the end of the final answer.
        tokens_per_s: of its slowest member.
        quality: 0 to 1.
        price: of time and load, in quality.
    """

    first_token_ms: int
    total_ms: int
    tokens_per_s: float
    quality: float
    price: float


class Allocation(Struct, frozen=True, kw_only=True):
    """Who answers, and why it is not one more.

    Attributes:
        members: the leader first.
        chair: the model that makes one answer of theirs; None of one member.
        wanted: what was asked for, or the most that is allowed.
        reason: one plain sentence.
        binding: what the reason names.
        steps: of the ladder, those that were taken. A council is as small as it must be also where `smaller_council` is
            switched off; whether it may then be held at all is the ladder's question.
    """

    members: tuple[Placement, ...]
    chair: str | None
    size: int
    wanted: int
    reason: str
    binding: Binding
    steps: tuple[str, ...]
    predicted: Predicted
