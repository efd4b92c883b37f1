"""The one place where bytes leave this box.

What leaves was composed, examined and decided on before. Between that and the first byte stands one transaction, and
its commit is the moment that counts:

    same version of policies, providers and quotas as decided on?  (held, so that whoever changes them waits)
    the conversation still says what was decided on?       (held)
    consent given, unused, to exactly these bytes?         (used up)
    budget?                                                (reserved)
    an entry in the ledger, with the digest of the bytes

If any of it says no, or the database is away, nothing is sent, and no connection to a provider is opened. Then exactly
these bytes are sent, once. Whoever is cancelled in the midst of the commit sends nothing; was it committed after all,
the ledger gets an end that says so.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.cloud.consents import Question, use
from server.cloud.prices import cost_micros, tokens_of
from server.cloud.protocol import CloudModel, CloudReply, Provider
from server.db.models import Conversation
from server.db.session import Database
from server.errors import Conflict, EngineTimeout, Unavailable, WirthforgeError
from server.privacy import ends, spend, version
from server.privacy.egress import End, Outcome, Send, append_send
from server.privacy.modes import Form
from server.telemetry import CLOUD_ENDS, CLOUD_SENDS, CLOUD_SENT_BYTES, CLOUD_SPENT_MICROS
from server.usage.clouds import CloudUsage, write

RETRY_MS = 1_000
# Then upkeep has ended it (server/privacy/ends.py).
RETRIES_MAX = 3_600

log = structlog.get_logger(__name__)


class Changed(Conflict):
    """What may leave was changed since it was decided that this may."""

    code = "cloud_changed"


class Outbound(Struct, frozen=True, kw_only=True):
    """One exact body, and what was decided about it.

    Attributes:
        question: whose it is, where it goes, the body and its digest.
        version: of the policies and providers that were decided on.
        conversation_says: what its conversation said then.
        consent_id: of the consent that it needs; None: none is needed.
    """

    question: Question
    provider: Provider
    model: CloudModel
    version: int
    conversation_says: str | None
    form: Form
    detectors: dict[str, str]
    consent_id: bytes | None

    @property
    def input_tokens(self) -> int:
        """About how many it has; the provider knows better."""
        return tokens_of(len(self.question.body))


@dataclass(frozen=True, slots=True)
class _Ending:
    """What is to be written of one that left."""

    user_id: UUID
    end: End
    usage: CloudUsage | None


class Endings:
    """Writes what became of what left, and does not give up while the server runs.

    Args:
        grace_ms: how long it goes on when the server is asked to end.
    """

    def __init__(self, database: Database, clock: Clock, *, grace_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._grace_ms = grace_ms
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, user_id: UUID, end: End, usage: CloudUsage | None = None) -> None:
        """Write it soon; does not wait, cannot fail."""
        CLOUD_ENDS.labels(end.outcome).inc()
        CLOUD_SPENT_MICROS.inc(end.spent_micros)
        self._start(self._written(_Ending(user_id, end, usage)))

    def unsent(self, committing: asyncio.Task[None], outbound: Outbound) -> None:
        """Whoever was to send was cancelled before the first byte: if it was committed, say that nothing was sent."""

        async def settle() -> None:
            await asyncio.wait([committing])
            if not committing.cancelled() and committing.exception() is None:
                nothing = end_of(outbound, "cancelled", spent_micros=0)
                await self._written(_Ending(outbound.question.user_id, nothing, None))

        self._start(settle())

    async def run(self) -> None:
        """Until the server is asked to end; then write what is still to be written, for a while."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Write what is still to be written, as far as the grace reaches."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=self._grace_ms / 1000)
            for task in late:
                task.cancel()
            if late:
                log.error("ends of what left the box are left to upkeep", count=len(late))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="cloud end")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _written(self, ending: _Ending) -> None:
        request = str(ending.end.request_id)
        for _ in range(RETRIES_MAX):
            try:
                async with self._database.transaction(of=ending.user_id) as session:
                    await ends.end(session, ending.end, self._clock.now())
                    if ending.usage is not None:
                        await write(session, ending.usage)
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("the end of what left the box waits to be written", request=request, error=repr(error))
                await self._clock.sleep_ms(RETRY_MS)
            except WirthforgeError as error:
                log.error("the end of what left the box cannot be written", request=request, reason=error.message)
                return
            else:
                return


class Sending:
    """Sends.

    Args:
        nonce: an id that means nothing, for our log.
    """

    def __init__(self, database: Database, endings: Endings, clock: Clock, nonce: Callable[[], str]) -> None:
        self._database = database
        self._endings = endings
        self._clock = clock
        self._nonce = nonce

    async def send(
        self, outbound: Outbound, limit_micros: int | None, on_sent: Callable[[], None] = lambda: None
    ) -> CloudReply:
        """Write the ledger, then send; gives the provider's answer as soon as it has begun.

        Whoever gets the reply writes its end (`Endings.write`).

        Args:
            limit_micros: what its person may spend in this month.
            on_sent: called right before the first byte leaves; not at all where none does.

        Raises:
            Changed, NotConsented, TooMany, NotFound: nothing was sent, since it may not.
            Unavailable: nothing was sent, since Postgres is away; or the provider is full.
            WirthforgeError: the provider did not answer; the end is written.
        """
        committing = asyncio.create_task(self._commit(outbound, limit_micros), name="cloud commit")
        try:
            await asyncio.shield(committing)
        except asyncio.CancelledError:
            self._endings.unsent(committing, outbound)
            raise
        CLOUD_SENDS.labels(outbound.question.provider).inc()
        CLOUD_SENT_BYTES.labels(outbound.question.provider).inc(len(outbound.question.body))
        on_sent()
        try:
            return await outbound.provider.send(outbound.question.body, request_id=self._nonce())
        except BaseException as error:
            is_refused = isinstance(error, WirthforgeError) and not isinstance(error, EngineTimeout)
            # Who was silent, or was left, may have read it.
            spent = 0 if is_refused else cost_micros(outbound.model, outbound.input_tokens, 0)
            outcome: Outcome = "failed" if isinstance(error, Exception) else "cancelled"
            self._endings.write(outbound.question.user_id, end_of(outbound, outcome, spent_micros=spent))
            raise

    async def _commit(self, outbound: Outbound, limit_micros: int | None) -> None:
        question, now = outbound.question, self._clock.now()
        async with self._database.transaction(of=question.user_id) as session:
            if await version.hold(session) != outbound.version:
                raise Changed("What may leave this box was changed in this moment, so this did not.")
            if outbound.consent_id is not None:
                await use(session, outbound.consent_id, question, now)
            await _hold_conversation(session, outbound)
            month = spend.month_of(now)
            await spend.reserve(session, question.user_id, month, question.reserved_micros, limit_micros)
            await append_send(session, _entry(outbound), now)


def end_of(
    outbound: Outbound,
    outcome: Outcome,
    *,
    spent_micros: int,
    answer_bytes: int = 0,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> End:
    """The ledger's last entry of one that left."""
    return End(
        request_id=outbound.question.request_id,
        outcome=outcome,
        answer_bytes=answer_bytes,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        spent_micros=spent_micros,
    )


async def _hold_conversation(session: AsyncSession, outbound: Outbound) -> None:
    """The conversation is still there and says what was decided on, and does so until the commit."""
    conversation_id = outbound.question.conversation_id
    if conversation_id is None:
        return
    query = select(Conversation.cloud).where(Conversation.id == conversation_id).with_for_update(read=True)
    row = (await session.execute(query)).first()
    if row is None or row.cloud != outbound.conversation_says:
        raise Changed("What may leave of this conversation was changed in this moment, so it did not.")


def _entry(outbound: Outbound) -> Send:
    question = outbound.question
    return Send(
        request_id=question.request_id,
        user_id=question.user_id,
        conversation_id=question.conversation_id,
        provider=question.provider,
        model=question.model,
        policy_version=outbound.version,
        detectors=outbound.detectors,
        findings=question.findings,
        form=outbound.form,
        consent_id=outbound.consent_id,
        body_bytes=len(question.body),
        sha256=question.sha256,
        reserved_micros=question.reserved_micros,
    )
