"""How long a queued request will wait: what the rules of sharing would do if everything went on as it did lately.

Slots become free when running answers reach their usual length; each goes to the flow with the smallest counter, which
then grows by what such an answer costs. Nothing is decided here, and nothing waits for it: an estimate for people.
"""

import heapq
from collections import defaultdict, deque
from dataclasses import dataclass

from quotas.cost import Cost
from quotas.view import EngineView, Queued

# The counter's units for one cost unit at the normal weight (lua/shared/flows.lua).
UNIT = 1000
WEIGHT_NORMAL = 100
# An answer that is longer than usual goes on for a part of the usual length.
REMAINDER_DIVISOR = 8


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

    free_ms = [0] * max(view.slots - view.running_count, 0)
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
    while order and free_ms:
        is_last, _, flow = order[0]
        queued = queues[flow].popleft()
        start_ms = heapq.heappop(free_ms)
        answer = length(flow, queued.granted)
        heapq.heappush(free_ms, start_ms + view.first_ms + answer * view.token_us // 1000)
        standings[queued.id] = Standing(len(standings), start_ms if view.token_us else None)
        grow(flow, queued.prompt_cost + cost.output * answer)
        if queues[flow]:
            heapq.heapreplace(order, (is_last, scores[flow], flow))
        else:
            heapq.heappop(order)
    return standings
