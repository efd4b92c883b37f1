"""One request on its way around the queue: when it is looked at, its person asked, and the provider's answer taken.

Everything that takes time is one task beside the wait. `tell`, which the gate calls about every second, only looks how
far it is: the gate would not see a free slot while it is held up.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from quotas.forecast import Standing
from server.chat.pipeline import Answer, Identify
from server.chat.telling import Speaks
from server.clock import Clock
from server.cloud.answering import Passage
from server.cloud.consents import Asked, Consents
from server.cloud.deciding import Considered, Deciding
from server.cloud.sending import Changed, Endings, Outbound, Sending
from server.cloud.traces import CloudSpan
from server.deadline import first_of
from server.errors import Conflict, Unavailable, WirthforgeError
from server.messages import ModelRequest
from server.privacy.decision import Decision
from server.sharing.lease import Tell

# How often whoever waits for an answer to a question sees life.
LIFE_MS = 1_000
LIFE = b": cloud waiting for consent\n\n"
# Decisions on one request, where the rules change in between.
DECISIONS_MAX = 3
# Refusals of requests that have held no slot: the gate's, and those of before it.
REFUSALS = frozenset(
    {
        "queue_full",
        "queue_timeout",
        "queue_unavailable",
        "no_engine",
        "engine_resting",
        "engine_draining",
        "loading_queue_full",
        "loading_timeout",
    }
)
# Decisions of which a refusal says nothing.
UNTOLD = frozenset({"switched_off", "private"})
FINDINGS_TOLD_MAX = 20

log = structlog.get_logger(__name__)


class Leaves(Exception):
    """The request leaves its queue, since a cloud answers it. Not an error of ours: nobody is told."""


class ConsentRequired(Conflict):
    """This box does not take the request; a cloud may, if its person says yes to exactly this body."""

    code = "cloud_consent_required"


class Hops:
    """What every hop needs."""

    def __init__(
        self, *, deciding: Deciding, sending: Sending, endings: Endings, consents: Consents, clock: Clock
    ) -> None:
        self.deciding = deciding
        self.sending = sending
        self.endings = endings
        self.consents = consents
        self.clock = clock


def is_refusal(error: Unavailable) -> bool:
    """Whether this box has refused a request, which has left no trace here."""
    return error.code in REFUSALS


class Hop:
    """One request.

    Args:
        tell: told where it stands; None: its client takes the answer in one piece.
    """

    def __init__(self, request: ModelRequest, identify: Identify, tell: Tell | None, hops: Hops) -> None:
        self._request = request
        self._identify = identify
        self._tell = tell
        self._hops = hops
        self._clock = hops.clock
        self._asked_ms = hops.clock.monotonic_ms()
        self._estimate_ms: int | None = None
        self._is_refused = False
        # Set when it is known anew how long the request waits.
        self._told = asyncio.Event()
        # Set when there is something to ask.
        self._news = asyncio.Event()
        # What its client is still to be told, if it takes events.
        self._unsaid: list[bytes] = []
        self._task: asyncio.Task[Passage | None] | None = None
        self._question: Asked | None = None
        self._decision: Decision | None = None
        self._passage: Passage | None = None
        # Consents by what they are to.
        self._given: dict[tuple[bytes, str, str], bytes] = {}

    async def tell(self, standing: Standing, headers: Mapping[str, str]) -> None:
        """Told by the gate where the request stands. Raises Leaves when a cloud has begun to answer."""
        if self._tell is not None:
            await self._tell(standing, headers)
        await self._say()
        self._estimate_ms = standing.wait_ms
        self._told.set()
        if self._task is None:
            self._begin()
        elif self._task.done() and self._task.result() is not None:
            raise Leaves

    async def answer(self) -> Answer:
        """The provider's answer, which has begun. Raises WirthforgeError where it breaks before it is whole."""
        assert self._passage is not None, "a cloud answers"
        return await self._passage.answer()

    async def after(self, refused: Unavailable) -> Answer:
        """This box does not take the request: what a cloud answers.

        Raises:
            ConsentRequired: none does without its person's yes.
            Unavailable: none does; the refusal, and why.
        """
        self._is_refused = True
        self._told.set()
        if self._task is None:
            self._begin()
        assert self._task is not None
        self._task.add_done_callback(lambda _: self._news.set())
        while not self._task.done():
            self._news.clear()
            if self._question is not None and not self._takes_events:
                raise _consent_required(self._question, refused)
            await self._say()
            news = asyncio.ensure_future(self._news.wait())
            if not await first_of(news, self._clock, LIFE_MS):
                news.cancel()
                await self._live()
        await self._say()
        if self._task.result() is None:
            raise _with_reason(refused, self._decision)
        return await self.answer()

    def stay(self) -> None:
        """This box answers. What may have been sent meanwhile is hung up on."""
        if self._task is not None:
            self._task.cancel()
        if self._passage is not None:
            self._passage.close()

    async def over(self) -> None:
        """This box has begun to answer: the same, and a client that is asked hears that the question is over."""
        was_asked = self._question is not None
        self.stay()
        if was_asked and self._takes_events and isinstance(self._tell, Speaks):
            await self._tell.say(_event({"asks": None}))

    async def close(self) -> None:
        """The request is over, whoever has answered it."""
        self.stay()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._passage is not None:
            self._passage.close()

    @property
    def _takes_events(self) -> bool:
        return self._request.cloud.takes_events and isinstance(self._tell, Speaks)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="cloud")

    async def _run(self) -> Passage | None:
        """The answer of a cloud, begun; None where it stays. Raises nothing of its own."""
        try:
            return await self._left()
        except WirthforgeError as error:
            log.info("a request stays on the box", code=error.code)
            self._decision = _local(f"The cloud has not answered: {error.message}")
        except Exception as error:
            log.error("bug", exc_info=error)
            self._decision = _local("The cloud has not answered: the server made a mistake. Its log says more.")
        return None

    async def _left(self) -> Passage | None:
        """The same, or why not; what was decided on rules that were just changed is decided again."""
        for _ in range(DECISIONS_MAX - 1):
            try:
                return await self._sent()
            except Changed:
                continue
        return await self._sent()

    async def _sent(self) -> Passage | None:
        considered = await self._considered()
        self._decision = considered.decision
        outbound = considered.outbound
        if outbound is None or considered.decision.outcome == "local":
            return None
        if considered.decision.outcome == "ask":
            consent_id = await self._consented(outbound)
            if consent_id is None:
                return None
            outbound = replace(outbound, consent_id=consent_id)
        # Whoever waited for a yes may be somebody else by now, or may spend less.
        principal = await self._identify()
        limit_micros = await self._hops.deciding.limit_micros(principal)
        started_at = self._clock.now()
        span = CloudSpan(self._request, outbound)
        try:
            reply = await self._hops.sending.send(outbound, limit_micros, span.begin)
        except BaseException as error:
            span.fail(error)
            raise
        self._passage = Passage(
            outbound,
            reply,
            self._request,
            principal,
            endings=self._hops.endings,
            clock=self._clock,
            asked_ms=self._asked_ms,
            started_at=started_at,
            restorer=considered.restorer,
            span=span,
        )
        await self._passage.begin()
        return self._passage

    async def _considered(self) -> Considered:
        """The decision, as soon as the wait is worth one."""
        deciding = self._hops.deciding
        patience_ms = await deciding.patience_ms((await self._identify()).id)
        while True:
            while not self._is_refused and self._wait_ms() <= patience_ms:
                await self._told_anew()
            considered = await deciding.consider(
                self._request, self._identify, wait_ms=self._wait_ms(), is_refused=self._is_refused
            )
            if considered.decision.rule != "wait":
                return considered
            # The estimate has fallen meanwhile, or somebody has become more patient.
            if not self._is_refused:
                await self._told_anew()

    async def _told_anew(self) -> None:
        self._told.clear()
        await self._told.wait()

    def _wait_ms(self) -> int:
        """How long it waits: what is expected, or what it has waited, whichever is more."""
        return max(self._estimate_ms or 0, self._clock.monotonic_ms() - self._asked_ms)

    async def _consented(self, outbound: Outbound) -> bytes | None:
        """Its person's consent, brought along or asked for; None where there is none."""
        consents, question, token = self._hops.consents, outbound.question, self._request.cloud.consent
        what = (question.sha256, question.provider, question.model)
        known = self._given.get(what)
        if known is None and token:
            known = await consents.brought(question.user_id, token, *what)
        if known is not None:
            return known
        asked = await consents.ask(question)
        try:
            self._ask(asked)
            is_yes = await consents.answered(asked)
        finally:
            self._question = None
            self._note(_event({"asks": None}))
            consents.forget(asked)
        if not is_yes:
            self._decision = _local("It stays on this box: you have not said yes to sending it.")
            return None
        self._given[what] = asked.id
        return asked.id

    def _ask(self, asked: Asked) -> None:
        self._question = asked
        if self._takes_events:
            self._note(_event({"asks": _question(asked, self._wait_ms())}))
        else:
            self._unsaid.append(b": cloud asks for consent, see /api/cloud/consents\n\n")
        self._news.set()

    def _note(self, event: bytes) -> None:
        if self._takes_events:
            self._unsaid.append(event)

    async def _live(self) -> None:
        """Let the client that is asked, and what is between, see that somebody is still there."""
        if self._question is not None and isinstance(self._tell, Speaks):
            await self._tell.say(LIFE)

    async def _say(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        if unsaid and isinstance(self._tell, Speaks):
            await self._tell.say(b"".join(unsaid))


def _local(sentence: str) -> Decision:
    return Decision(outcome="local", rule="unclear", form=None, sentence=sentence)


def _question(asked: Asked, wait_ms: int) -> dict[str, Any]:
    question = asked.question
    return {
        "token": asked.token,
        "provider": question.provider,
        "model": question.model,
        "expires_at": asked.expires_at,
        "wait_s": -(-wait_ms // 1000),
        "body_bytes": len(question.body),
        "findings": question.found[:FINDINGS_TOLD_MAX],
        "sentence": question.sentence,
    }


def _event(told: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode({"wirthforge": {"cloud": told}}) + b"\n\n"


def _consent_required(asked: Asked, refused: Unavailable) -> ConsentRequired:
    question = asked.question
    about = {
        "token": asked.token,
        "provider": question.provider,
        "model": question.model,
        "body": question.body.decode(),
        "findings": question.found,
        "expires_at": asked.expires_at,
    }
    return ConsentRequired(
        f"{refused.message} {question.sentence} To say yes, send the same request again with the header "
        "x-wirthforge-cloud-consent and the token.",
        retry_after_s=refused.retry_after_s,
        about={"cloud": about},
    )


def _with_reason(refused: Unavailable, decision: Decision | None) -> Unavailable:
    """The refusal, and why no cloud has answered instead."""
    if decision is None or decision.rule in UNTOLD:
        return refused
    return Unavailable(
        f"{refused.message} {decision.sentence}",
        code=refused.code,
        param=refused.param,
        retry_after_s=refused.retry_after_s,
        headers=refused.headers,
    )
