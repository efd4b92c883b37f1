"""What the allocator and the table are told, in their own words."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from quotas.policy import Limits
from server.allocator.ladder import LOCAL_STEPS, switched_on
from server.allocator.terms import Allocation, Demand, Load, Policy
from server.council.agreement import STOP_AT
from server.council.calls import Message, Seat, label_of
from server.council.names import Wish
from server.council.table import Brief
from server.engines.pool import Route

# Where neither the asker nor a quota says.
SIZE_MAX = 6
# In these a model that ranks or debates with itself would be no other opinion.
DIFFERENT = frozenset({"karpathy", "debate"})
# The label of a chair that is no member.
CHAIR = "chair"


def brief_of(
    wish: Wish,
    question: tuple[Message, ...],
    demand: Demand,
    routes: Mapping[str, Route],
    load: Load,
    allocation: Allocation,
) -> Brief:
    """The allocation as the table takes it: chairs by their skill, the chosen one first."""
    seats = tuple(
        Seat(
            label=label_of(index),
            model=member.model,
            engine=member.engine,
            sample=member.sample,
            context_tokens=routes[member.model].model.context_tokens,
        )
        for index, member in enumerate(allocation.members)
    )
    sitting = {seat.model: seat for seat in reversed(seats)}
    by_skill = sorted(load.candidates, key=lambda each: (-each.chair, each.model))
    chairs = [sitting[each.model] for each in by_skill if each.model in sitting and each.model != allocation.chair]
    if allocation.chair is not None:
        route = routes[allocation.chair]
        outside = Seat(
            label=CHAIR, model=allocation.chair, engine=route.engine.name, context_tokens=route.model.context_tokens
        )
        chairs.insert(0, sitting.get(allocation.chair, outside))
    # They know how to answer, and nothing of reading answers.
    chairs = [seat for seat in chairs if not routes[seat.model].model.is_demonstration]
    options = wish.options
    return Brief(
        question=question,
        seats=seats,
        chairs=tuple(chairs),
        kind=demand.kind,
        rounds=options.rounds or 1,
        deadline_ms=options.deadline_ms,
        stop_at=STOP_AT[options.confidence or "balanced"],
        answer_tokens=demand.answer_tokens,
    )


def policy_of(wish: Wish, strategy: str | None, limits: Limits, models: int) -> Policy:
    """What bounds the choice: the asker's wish, their limits, and how many models there are."""
    bounds = [SIZE_MAX, limits.council_size_max, limits.in_flight_max]
    options = wish.options
    own = LOCAL_STEPS if limits.council_steps is None else LOCAL_STEPS & frozenset(limits.council_steps)
    steps = switched_on(own, None if options.steps is None else frozenset(options.steps))
    return Policy(
        size_max=min(bound for bound in bounds if bound is not None),
        size_wanted=wish.size,
        samples_only=wish.samples_only,
        # A council is of different models; only who asks for more than there are gets some twice.
        samples=wish.size is not None and wish.size > models and strategy not in DIFFERENT,
        members=options.members,
        chair=options.chair,
        steps=steps,
    )


def idle(load: Load) -> Load:
    """The same box with nobody else on it."""
    candidates = tuple(replace(each, running=0, waiting=0, wait_ms=0) for each in load.candidates)
    return replace(
        load, candidates=candidates, busy_engines={}, slowest_tokens_per_s=None, waiting_others=0, expected_requests=0.0
    )


def last_text(question: Sequence[Message]) -> str:
    """What was asked last, as text."""
    for message in reversed(question):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return str(content or "")
    return ""
