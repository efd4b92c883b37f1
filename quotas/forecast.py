"""How long a queued request will wait: what the rules of sharing would do if everything went on as it did lately.

Whoever is in the queue waits for an end, since what could begin has begun. Slots become free when running answers reach
their usual length; each goes to the flow with the smallest counter, which then grows by what such an answer costs.
Others who come later may go first, so the heavier the load the more such an estimate falls short; how far it did is
learned for each flow (`Experience`). Nothing is decided here, and nothing waits for it: an estimate for people.
"""

import heapq
import math
from collections import defaultdict, deque
from dataclasses import dataclass

from quotas.cost import Cost
from quotas.view import EngineView, Queued

# The counter's units for one cost unit at the normal weight (lua/shared/flows.lua).
UNIT = 1000
WEIGHT_NORMAL = 100
# An answer that is longer than usual goes on for a part of the usual length.
REMAINDER_DIVISOR = 8
# Below this nobody minds whether an estimate is right.
NOISE_MS = 500
SHORTFALL_MAX = math.log(20)
# How many waits the moving average spans.
MEMORY = 8


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a queued request stands: how many go before it, and when it is its turn (None: nothing is known yet)."""

    ahead: int
    wait_ms: int | None


def forecast(view: EngineView, cost: Cost | None = None) -> dict[str, Standing]:
    """The standing of every queued request that the view lists."""
    cost = cost or Cost()
    usual = {flow.id: flow.answer_tokens for flow in view.flows}
    weights = {flow.id: flow.weight or WEIGHT_NORMAL for flow in view.flows}
    scores = {flow.id: flow.score for flow in view.flows}

    def length(flow: str, granted: int) -> int:
        expected = usual.get(flow) or view.answer_tokens
        return min(expected, granted) if granted > 0 else expected

    def grow(flow: str, units: int) -> None:
        scores[flow] = scores.get(flow, 0) + units * UNIT * WEIGHT_NORMAL // weights.get(flow, WEIGHT_NORMAL)

    free_ms = []
    for running in view.running:
        whole = length(running.flow, running.granted)
        left = max(whole - running.output_tokens, whole // REMAINDER_DIVISOR)
        free_ms.append(left * view.token_us // 1000)
        grow(running.flow, cost.output * left)
    heapq.heapify(free_ms)
    queues: defaultdict[str, deque[Queued]] = defaultdict(deque)
    for queued in view.queued:
        queues[queued.flow].append(queued)
    # Flows that are at their own limit are in no ranking, and are taken to come last.
    order = [(not queue[0].is_ranked, scores.get(flow, 0), flow) for flow, queue in queues.items()]
    heapq.heapify(order)
    standings: dict[str, Standing] = {}
    while order:
        is_last, _, flow = order[0]
        queued = queues[flow].popleft()
        answer = length(flow, queued.granted)
        start_ms = None
        if free_ms and view.token_us:
            start_ms = free_ms[0]
            heapq.heapreplace(free_ms, start_ms + view.first_ms + answer * view.token_us // 1000)
        standings[queued.id] = Standing(len(standings), start_ms)
        grow(flow, queued.prompt_cost + cost.output * answer)
        if queues[flow]:
            heapq.heapreplace(order, (is_last, scores[flow], flow))
        else:
            heapq.heappop(order)
    return standings


class Experience:
    """How far estimates fell short lately, for each flow; corrects the next ones. Bounded by the number of people."""

    def __init__(self) -> None:
        # The logarithm of waited / estimated, a moving average.
        self._shortfalls: dict[str, float] = {}

    def learn(self, flow: str, estimated_ms: int, waited_ms: int) -> None:
        """A request of this flow waited so long, from the moment of the (uncorrected) estimate."""
        shortfall = math.log((waited_ms + NOISE_MS) / (estimated_ms + NOISE_MS))
        before = self._shortfalls.get(flow, 0.0)
        self._shortfalls[flow] = before + (min(max(shortfall, -SHORTFALL_MAX), SHORTFALL_MAX) - before) / MEMORY

    def corrected(self, flow: str, standing: Standing) -> Standing:
        """The standing with what was learned."""
        if standing.wait_ms is None:
            return standing
        factor = math.exp(self._shortfalls.get(flow, 0.0))
        return Standing(standing.ahead, int((standing.wait_ms + NOISE_MS) * factor - NOISE_MS * min(factor, 1)))
