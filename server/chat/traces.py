"""The spans of a request on its way to an engine: its waits, and each time an engine is asked (names.py)."""

from server.chat.meter import Meter
from server.engines.pool import Route
from server.messages import ModelRequest
from server.tracing import names
from server.tracing.spans import NOTHING, Span, Value

# Surfaces that engines are always asked to stream.
EVENTS = frozenset({"chat", "text_completion"})


def waiting(parent: Span, engine: str, pauses: int = 0) -> Span:
    """The span of a wait in an engine's queue; of an answer that was paused before where there are `pauses`."""
    if not parent.is_on:
        return parent
    attributes: dict[str, Value] = {names.ENGINE: engine}
    if pauses:
        attributes[names.PAUSES] = pauses
    return parent.child("queue", attributes=attributes)


def asking(parent: Span, request: ModelRequest, route: Route) -> Span:
    """The span of one request to one engine. The model is one that the engine serves, so its name is no one's text."""
    operation, model = names.OPERATIONS[request.surface], route.model.id
    if not parent.is_on:
        return parent
    attributes: dict[str, Value] = {
        names.OPERATION: operation,
        names.PROVIDER: route.engine.kind,
        names.REQUEST_MODEL: model,
        names.REQUEST_STREAM: operation in EVENTS,
        names.ENGINE: route.engine.name,
        names.REQUEST_ID: str(request.id),
    }
    if request.output_tokens_max is not None:
        attributes[names.REQUEST_TOKENS_MAX] = request.output_tokens_max
    if request.answers != 1:
        attributes[names.REQUEST_CHOICES] = request.answers
    return parent.child(f"{operation} {model}", "client", attributes)


class EngineSpan:
    """The span of one request to an engine, with what the meter has seen of its answer.

    Attributes:
        parent: what it is a part of; waits and requests that follow it are as well.
    """

    def __init__(self, span: Span, parent: Span, model: str, meter: Meter) -> None:
        self.parent = parent
        self._span = span
        self._model = model
        self._meter = meter
        # Of the engines before it, where it goes on with an answer.
        self._before_tokens = meter.output_tokens

    def see_first_token(self) -> None:
        """The first token has come."""
        self._span.mark(names.FIRST_TOKEN)

    def fail(self, code: str) -> None:
        """It broke."""
        self._span.fail(code)
        self.end("failed")

    def end(self, outcome: str) -> None:
        """It is over; the first who says how is right."""
        span, meter = self._span, self._meter
        if not span.is_on:
            return
        span.note(names.OUTCOME, outcome)
        if meter.has_first_token or meter.input_tokens is not None:
            span.note(names.RESPONSE_MODEL, self._model)
        if meter.input_tokens is not None:
            span.note(names.INPUT_TOKENS, meter.input_tokens)
            span.note(names.CACHED_TOKENS, meter.cached_tokens)
        span.note(names.OUTPUT_TOKENS, max(meter.output_tokens - self._before_tokens, 0))
        if reasons := meter.ended_by():
            span.note(names.FINISH_REASONS, [names.finish_reason(said) for said in reasons])
        span.end()


UNSEEN = EngineSpan(NOTHING, NOTHING, "", Meter(shows_usage=True))
