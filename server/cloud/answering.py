"""A cloud's answer on its way back: counted, marked, with the real words in it, and ended in the ledger once.

Who owns what is as for an answer of this box (server/chat/pipeline.py): the connection is closed by the request's exit
stack, not by whoever reads the stream. The end is written by a task of the server (sending.py, `Endings`), so that a
client that leaves does not take it along.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime

from server.chat.assembly import assembled
from server.chat.meter import Meter
from server.chat.pipeline import Answer
from server.clock import Clock
from server.cloud.marking import MakeRestorer, Marking
from server.cloud.prices import cost_micros
from server.cloud.protocol import CloudReply
from server.cloud.sending import Endings, Outbound, end_of
from server.cloud.traces import CloudSpan
from server.errors import WirthforgeError
from server.messages import ModelRequest, Principal
from server.privacy.egress import Outcome
from server.usage.clouds import CloudUsage

HEADER = "x-wirthforge-cloud"


class Passage:
    """One answer.

    Args:
        asked_ms: when the request came, by the monotonic clock.
        started_at: when it left.
        restorer: makes what puts real words back into one text; None: nothing was replaced.
    """

    def __init__(  # noqa: PLR0913 (what it is about, and who is told)
        self,
        outbound: Outbound,
        reply: CloudReply,
        request: ModelRequest,
        principal: Principal,
        *,
        endings: Endings,
        clock: Clock,
        asked_ms: int,
        started_at: datetime,
        restorer: MakeRestorer | None,
        span: CloudSpan,
    ) -> None:
        question = outbound.question
        self._outbound = outbound
        self._reply = reply
        self._chunks = reply.chunks()
        self._request = request
        self._principal = principal
        self._endings = endings
        self._clock = clock
        self._asked_ms = asked_ms
        self._queue_ms = clock.monotonic_ms() - asked_ms
        self._started_at = started_at
        self._span = span
        self._meter = Meter(shows_usage=request.wants_usage or not request.is_stream)
        about = {"provider": question.provider, "model": question.model, "form": outbound.form}
        self._marking = Marking(about, restorer)
        # What came before and with its first token.
        self._held = b""
        self._first_token_ms: int | None = None
        self._is_given = False
        self._is_ended = False

    async def begin(self) -> None:
        """Wait until it says something. Raises WirthforgeError; then its end is written."""
        try:
            await self._hold()
        except BaseException as error:
            self._end("failed" if isinstance(error, Exception) else "cancelled")
            raise

    async def answer(self) -> Answer:
        """Give it to its client: from now on this is what the request used. Raises WirthforgeError."""
        question = self._outbound.question
        self._is_given = True
        headers = {
            HEADER: f"{question.provider}/{question.model}; form={self._outbound.form}",
            "x-wirthforge-engine": f"cloud:{question.provider}",
            "x-wirthforge-queue-ms": str(self._queue_ms),
        }
        if self._request.is_stream:
            return Answer(headers, stream=self._events())
        return Answer(headers, body=await assembled(self._events()))

    def close(self) -> None:
        """Hang up, wherever it is. Does not wait; after the end it changes nothing."""
        self._end("cancelled")

    async def _hold(self) -> None:
        """Keep what comes until there is a token: a frame is soon sent, and says nothing."""
        meter = self._meter
        async for chunk in self._chunks:
            self._held += meter.feed(chunk)
            if meter.fault is not None:
                raise meter.fault
            if meter.has_first_token or meter.is_complete:
                break
        else:
            self._held += meter.end()
        self._first_token_ms = self._clock.monotonic_ms() - self._asked_ms
        self._reply.expect_tokens()
        self._span.see_first_token()

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            yield self._passed(self._held)
            if self._meter.is_complete:
                return
            async for chunk in self._chunks:
                if events := self._passed(self._meter.feed(chunk)):
                    yield events
                if self._meter.fault is not None:
                    raise self._meter.fault
                if self._meter.is_complete:
                    return
            rest = self._passed(self._meter.end())
        except WirthforgeError:
            self._end("broken_off")
            raise
        if rest:
            yield rest

    def _passed(self, events: bytes) -> bytes:
        """What of these events goes on; the answer is over before its last event is given."""
        marked = self._marking.feed(events)
        if self._meter.is_complete:
            self._end("completed")
        return marked

    def _end(self, outcome: Outcome) -> None:
        """Once: hang up, and have it written what came of it."""
        if self._is_ended:
            return
        self._is_ended = True
        with suppress(Exception):
            self._reply.close()
        # What it counted itself is what it bills; else what came, and about what was sent.
        told, model = self._reply.usage, self._outbound.model
        read = self._outbound.input_tokens if told is None else told.input_tokens
        written = self._meter.output_tokens if told is None else told.output_tokens
        self._span.end(outcome, self._meter, input_tokens=read, output_tokens=written)
        end = end_of(
            self._outbound,
            outcome,
            spent_micros=cost_micros(model, read, written),
            answer_bytes=self._reply.body_bytes,
            input_tokens=None if told is None else read,
            output_tokens=None if told is None else written,
        )
        usage = self._usage(outcome, read, written, end.spent_micros) if self._is_given else None
        self._endings.write(self._outbound.question.user_id, end, usage)

    def _usage(self, outcome: Outcome, read: int, written: int, spent_micros: int) -> CloudUsage:
        request, question = self._request, self._outbound.question
        return CloudUsage(
            request_id=request.id,
            user_id=question.user_id,
            key_id=self._principal.key_id,
            surface=request.surface,
            model=question.model,
            engine=question.provider,
            input_tokens=read,
            output_tokens=written,
            queue_ms=self._queue_ms,
            first_token_ms=self._first_token_ms,
            total_ms=self._clock.monotonic_ms() - self._asked_ms,
            council_id=request.council_id,
            role=request.role or None,
            outcome="failed" if outcome == "broken_off" else outcome,
            started_at=self._started_at,
            cost_micros=spent_micros,
        )
