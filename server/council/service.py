"""One question to a council, from the request to the answer: who may sit, the strategy, and what the client gets.

    request ─► wish (names.py) ─► scene (scene.py) ─► allocation (server/allocator) ─► sitting ─► events or one body

A sitting is a task of its own. It hangs on the request's exit stack, like leases and connections: when the client goes
the stack is unwound, the task is cancelled, and every member's request ends with it. The status stays open until a
member begins to answer, so whoever may not ask, or has to be refused, gets an HTTP error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import Random

from msgspec.structs import replace

from server.accounts.quotas import Quotas
from server.chat.pipeline import Answer, Identify, Way
from server.clock import Clock, uuid7
from server.council.asking import ask_through
from server.council.calls import Ask, Call, CouncilFailed, Message, Part, Seat
from server.council.events import Content, Event, Member, Summary, Text, summary_of
from server.council.names import is_council, options_of, parse
from server.council.overlaps import Overlaps
from server.council.planning import Plan, Planner
from server.council.runs import RUNNING, Outcome, Run, members_of, seated
from server.council.stores import Stores
from server.council.table import Conclusion, Strategy, Table
from server.council.wire import Encoder, whole
from server.errors import InvalidRequest, WirthforgeError
from server.messages import ModelRequest, Principal
from server.sharing.lease import Tell
from server.tracing import names
from server.tracing.spans import Span, current

# What several answers cannot be made one of.
SINGLE = ("tools", "functions", "logprobs", "top_logprobs", "audio", "logit_bias", "prediction", "echo", "suffix")
HARMLESS: tuple[object, ...] = (None, False, 0, [], {})
# If all members are refused for one of these, so is the council: the caller's own limit, or a full box.
OWN_FAULTS = frozenset({401, 403, 404, 429, 503})

# One more member for those who sit, if there is room.
MoreOf = Callable[[Sequence[Seat]], Awaitable[Seat | None]]


class Councils:
    """Answers requests: those to a council itself, all others on their way to one model."""

    def __init__(
        self,
        way: Way,
        *,
        quotas: Quotas,
        planner: Planner,
        stores: Stores,
        strategies: Mapping[str, Strategy],
        clock: Clock,
    ) -> None:
        self._way = way
        self._quotas = quotas
        self._planner = planner
        self._stores = stores
        self._strategies = strategies
        self._clock = clock

    async def answer(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None = None
    ) -> Answer:
        """As `Pipeline.answer`.

        Raises:
            WirthforgeError: any fault before a member begins to answer. Later ones end the stream.
        """
        if not is_council(request.model):
            return await self._way.answer(request, identify, stack, tell)
        principal = await identify()
        limits, _ = await self._quotas.of(principal)
        question = _question(request)
        wish = parse(request.model, options_of(request.body), strategies=self._strategies)
        plan = await self._planner.plan(request, question, wish, principal, limits)
        span = stack.enter_context(_span(plan))
        sitting = Sitting(request, plan, principal, stores=self._stores, clock=self._clock, span=span)
        ask = ask_through(
            self._way,
            request,
            identify,
            new_id=lambda: uuid7(self._clock.now()),
            tell=tell,
            on_headers=sitting.keep_headers,
        )
        stack.callback(self._planner.forget, request.id)
        stack.push_async_callback(sitting.close)
        with span.within():
            await sitting.begin(self._strategies[plan.strategy], ask, partial(self._planner.more, plan, principal))
        if request.is_stream:
            return Answer(sitting.headers, stream=sitting.stream())
        body = await sitting.body()
        return Answer(sitting.headers, body=body)


class Sitting:
    """One council, from its row to the end of it."""

    def __init__(
        self, request: ModelRequest, plan: Plan, principal: Principal, *, stores: Stores, clock: Clock, span: Span
    ) -> None:
        self._request = request
        self._plan = plan
        self._principal = principal
        self._stores = stores
        self._clock = clock
        self._span = span
        self._allocated = plan.allocated(str(request.id))
        self._began_ms = clock.monotonic_ms()
        self._started_at = clock.now()
        self._headers: Mapping[str, str] = {}
        self._events: list[Event] = [self._allocated]
        self._news = asyncio.Event()
        self._has_begun = asyncio.Event()
        self._leader = plan.brief.seats[0].label
        self._errors: list[WirthforgeError] = []
        self._overlaps = Overlaps()
        self._table: Table | None = None
        self._task: asyncio.Task[Conclusion] | None = None
        self._is_recorded = False

    @property
    def headers(self) -> dict[str, str]:
        """Those of the leader's own answer, and how large the council is."""
        told = self._allocated
        return {
            **self._headers,
            "x-wirthforge-council": f"{told.size} of {told.wanted}",
            "x-wirthforge-council-reason": told.reason,
        }

    def keep_headers(self, headers: Mapping[str, str]) -> None:
        """Of the first that begins to answer."""
        if not self._headers:
            self._headers = headers

    async def begin(self, strategy: Strategy, ask: Ask, more: MoreOf) -> None:
        """Start, and wait until a member answers. Raises what kept all of them from it."""
        table = Table(
            self._plan.brief,
            ask=_noting(ask, self._errors),
            clock=self._clock,
            chance=Random(self._request.id.int),  # noqa: S311 (shuffles, keeps no secret)
            emit=self._emit,
            more=lambda: more(table.seats),
        )
        self._table = table
        self._record(None, RUNNING)
        self._task = asyncio.create_task(table.run(strategy), name="council")
        self._task.add_done_callback(lambda _: self._wake())
        await self._has_begun.wait()
        if self._task.done():
            self._concluded()

    async def stream(self) -> AsyncIterator[bytes]:
        """Events as they come. Raises what the council ends with, if nobody answers."""
        assert self._task is not None
        is_solo = len(self._plan.brief.seats) == 1
        encoder = Encoder(self._request, int(self._started_at.timestamp()), is_solo=is_solo)
        while True:
            self._news.clear()
            events, self._events = self._events, []
            if events:
                yield b"".join(encoder.event(event) for event in _joined(events))
            elif self._task.done():
                break
            else:
                await self._news.wait()
        self._concluded()
        yield encoder.end(self._summary(with_texts=False), self._ended())

    async def body(self) -> bytes:
        """The whole answer in one piece."""
        assert self._task is not None
        await asyncio.wait([self._task])
        text = self._concluded().text
        created_s = int(self._started_at.timestamp())
        return whole(self._request, created_s, text, self._summary(with_texts=True), self._ended())

    async def close(self) -> None:
        """End it, wherever it is, and have its row written."""
        if self._task is None:
            return
        if not self._task.done():
            self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task
        if not self._is_recorded:
            self._record(None, "cancelled" if self._task.cancelled() else "failed")

    def _concluded(self) -> Conclusion:
        """What it came to, which is written down. Raises what it failed with."""
        assert self._task is not None
        try:
            conclusion = self._task.result()
        except CouncilFailed as failed:
            fault = self._fault(failed)
            self._span.fail(fault.code)
            raise fault from None
        if not self._is_recorded:
            self._record(self._summary(with_texts=False), "completed")
            for seen in self._overlaps.observations(self._plan.places, self._plan.busy_engines):
                self._stores.contentions.observe(*seen)
        return conclusion

    def _fault(self, failed: CouncilFailed) -> WirthforgeError:
        """The caller's own fault, or a full box, is told as it would be without a council."""
        codes = {error.code for error in self._errors}
        if len(codes) == 1 and self._errors[0].status in OWN_FAULTS:
            return self._errors[0]
        return failed

    def _summary(self, *, with_texts: bool) -> Summary:
        assert self._table is not None
        assert self._task is not None
        return summary_of(self._allocated, self._table.reports, self._task.result().verdict, with_texts=with_texts)

    def _ended(self) -> str:
        """Why the answer ended, in OpenAI's words."""
        assert self._table is not None
        return "length" if self._table.is_cut else "stop"

    def _record(self, summary: Summary | None, outcome: Outcome) -> None:
        is_over = self._is_recorded = outcome != RUNNING
        if is_over:
            self._span.note(names.OUTCOME, outcome)
            self._span.end()
        assert self._table is not None
        told, total_ms = self._allocated, self._clock.monotonic_ms() - self._began_ms
        members = members_of(self._table.reports, self._leader) if is_over else seated(self._plan.brief.seats)
        verdict = None if summary is None else summary.verdict
        shadow = self._plan.shadow
        self._stores.runs.record(
            Run(
                id=self._request.id,
                user_id=self._principal.id,
                name=self._request.model,
                strategy=told.strategy,
                kind=self._plan.demand.kind,
                wanted=told.wanted,
                size=told.size,
                reason=told.reason,
                binding=told.binding,
                steps=told.steps,
                members=members,
                chair=told.chair,
                verdict_method=verdict.method if verdict else None,
                agreement=verdict.agreement if verdict else None,
                winner=verdict.winner if verdict else None,
                shadow=None if shadow is None else {"size": shadow.size, "reason": shadow.reason},
                outcome=outcome,
                started_at=self._started_at,
                total_ms=total_ms if is_over else 0,
            )
        )

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._overlaps.see(event, self._clock.monotonic_ms())
        if isinstance(event, Member) and event.is_leader:
            self._leader = event.label
        if isinstance(event, Content | Text):
            self._has_begun.set()
        self._news.set()

    def _wake(self) -> None:
        self._has_begun.set()
        self._news.set()


def _span(plan: Plan) -> Span:
    """The span of a council. How it was asked for may be anybody's words, so it is called by what it is."""
    return current().child(
        "invoke_workflow council",
        attributes={
            names.OPERATION: "invoke_workflow",
            names.WORKFLOW: "council",
            names.STRATEGY: plan.strategy,
            names.SIZE: plan.allocation.size,
            names.WANTED: plan.allocation.wanted,
        },
    )


def _noting(ask: Ask, errors: list[WirthforgeError]) -> Ask:
    """The same calls; what they fail with is kept as it was."""

    @asynccontextmanager
    async def noting(call: Call) -> AsyncIterator[AsyncIterator[Part]]:
        try:
            async with ask(call) as parts:
                yield parts
        except WirthforgeError as error:
            errors.append(error)
            raise

    return noting


def _joined(events: Sequence[Event]) -> list[Event]:
    """The same, where pieces of one text that wait together are one piece."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        match last, event:
            case (Text(), Text()) if (last.label, last.role, last.is_thought) == (
                event.label,
                event.role,
                event.is_thought,
            ):
                found[-1] = replace(last, text=last.text + event.text)
            case (Content(), Content(is_restart=False)):
                found[-1] = replace(last, text=last.text + event.text)
            case _:
                found.append(event)
    return found


def _question(request: ModelRequest) -> tuple[Message, ...]:
    """The messages that every member gets.

    Raises:
        InvalidRequest: the request is of a kind that several answers cannot be made one of.
    """
    body = request.body
    if request.answers != 1:
        raise InvalidRequest("A council gives one answer; n must be 1.", code="council_body", param="n")
    for name in SINGLE:
        if body.get(name) not in HARMLESS:
            raise InvalidRequest(
                f"A council takes no {name}: several answers with it cannot be made one. Ask a model by its name.",
                code="council_body",
                param=name,
            )
    match request.surface:
        case "chat.completions":
            return tuple(body["messages"])
        case "completions" if isinstance(prompt := body.get("prompt"), str):
            return ({"role": "user", "content": prompt},)
        case "completions":
            raise InvalidRequest("A council takes one prompt, as text.", code="council_body", param="prompt")
        case _:
            raise InvalidRequest("A council answers; it makes no embeddings.", code="council_body", param="model")
