"""A look at the ledger: what runs, what waits, and where the flows stand. For telling people, not for deciding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Running:
    """A request that holds a lease."""

    id: str
    flow: str
    model: str
    output_tokens: int
    granted: int


@dataclass(frozen=True, slots=True)
class Queued:
    """A request that waits; not ranked while its flow has as many running as it may."""

    id: str
    flow: str
    model: str
    prompt_cost: int
    granted: int
    is_ranked: bool


@dataclass(frozen=True, slots=True)
class FlowView:
    """A flow that runs or waits.

    Attributes:
        score: where it stands, in counter units; the smallest is next.
        answer_tokens: what its answers had lately; 0: unknown.
    """

    id: str
    score: int
    weight: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine.

    Attributes:
        waiting, running_count: of all requests, also those beyond the lists, which are bounded.
        token_us: time per output token lately; 0 if nothing was learned yet, as for the next two.
        first_ms: time from dispatch to the first token lately.
        answer_tokens: tokens of an answer lately.
        queued: in order of arrival.
    """

    name: str
    slots: int
    waiting: int
    running_count: int
    token_us: int
    first_ms: int
    answer_tokens: int
    running: tuple[Running, ...]
    flows: tuple[FlowView, ...]
    queued: tuple[Queued, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All engines of the box."""

    engines: tuple[EngineView, ...]


def read_view(reply: Sequence[Sequence[Any]]) -> View:
    """From the reply of view.lua."""
    return View(tuple(_engine(row) for row in reply))


def _int(value: object) -> int:
    return int(str(value)) if value else 0


def _engine(row: Sequence[Any]) -> EngineView:
    name, slots, waiting, running_count, token_us, first_ms, answer_tokens, running, flows, queued = row
    return EngineView(
        name=name,
        slots=int(slots),
        waiting=int(waiting),
        running_count=int(running_count),
        token_us=_int(token_us),
        first_ms=_int(first_ms),
        answer_tokens=_int(answer_tokens),
        running=tuple(
            Running(id_, flow, model, _int(output), _int(granted)) for id_, flow, model, output, granted in running
        ),
        flows=tuple(FlowView(flow, _int(score), _int(weight), _int(answer)) for flow, score, weight, answer in flows),
        queued=tuple(
            Queued(id_, flow, model, _int(cost), _int(granted), bool(ranked))
            for id_, flow, model, cost, granted, ranked in queued
        ),
    )
