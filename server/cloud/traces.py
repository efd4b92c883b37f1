"""The span of what was sent to a provider: that it left, how long it took and what was counted, and nothing of it."""

from server.chat.meter import Meter
from server.cloud.sending import Outbound
from server.errors import WirthforgeError
from server.messages import ModelRequest
from server.privacy.egress import Outcome
from server.tracing import names
from server.tracing.spans import NOTHING, Span, current

GOOD: frozenset[Outcome] = frozenset({"completed", "cancelled"})


class CloudSpan:
    """The span of one request to a provider. It begins when the first byte leaves, and not with the decision."""

    def __init__(self, request: ModelRequest, outbound: Outbound) -> None:
        self._parent = current()
        self._request = request
        self._outbound = outbound
        self._span: Span = NOTHING

    def begin(self) -> None:
        """What leaves has been written down, and leaves now. The provider is not told that it is traced."""
        model, provider = self._outbound.model.name, self._outbound.provider
        self._span = self._parent.child(
            f"chat {model}",
            "client",
            {
                names.OPERATION: "chat",
                names.PROVIDER: provider.kind,
                names.REQUEST_MODEL: model,
                names.REQUEST_STREAM: True,
                names.CLOUD: provider.name,
                names.REQUEST_ID: str(self._request.id),
            },
        )

    def fail(self, error: BaseException) -> None:
        """The provider has not begun to answer."""
        if isinstance(error, WirthforgeError):
            self._span.fail(error.code)
        self._span.end()

    def see_first_token(self) -> None:
        """The first token has come."""
        self._span.note(names.FIRST_CHUNK_S, self._span.age_s)
        self._span.mark(names.FIRST_TOKEN)

    def end(self, outcome: Outcome, meter: Meter, *, input_tokens: int, output_tokens: int) -> None:
        """It is over; the counts are what its usage says."""
        span = self._span
        if not span.is_on:
            return
        if outcome not in GOOD:
            span.fail(outcome)
        span.note(names.OUTCOME, outcome)
        span.note(names.RESPONSE_MODEL, self._outbound.model.name)
        span.note(names.INPUT_TOKENS, input_tokens)
        span.note(names.OUTPUT_TOKENS, output_tokens)
        if reasons := meter.ended_by():
            span.note(names.FINISH_REASONS, [names.finish_reason(said) for said in reasons])
        span.end()
