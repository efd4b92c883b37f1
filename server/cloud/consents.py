"""Consents: one person is asked about one exact body, and says yes or no.

A consent is bound to the digest of the body, to provider and model, and to the person; it holds for ten minutes and for
one sending. Whoever asks gets a random token, of which the table has the digest only. An answer can be taken back as
long as nothing has left: no after yes counts. No is final, so a question is never answered twice with yes.

Whether it holds is decided in the transaction that writes the ledger (`use`): one statement, which waits for whoever
changes the row in that moment.

The body itself is in no table. It is kept in the memory of the replica whose request waits for the answer, and shown
from there.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.secrets import digest
from server.clock import Clock
from server.db.models import CloudConsent
from server.db.session import Database
from server.errors import Conflict, NotFound

LASTS = timedelta(minutes=10)
# How soon an answer is heard that was given to another replica.
LOOK_MS = 500
# Open questions of one person that are listed.
OPEN_MAX = 100
DIGEST_HEX = 64

State = Literal["open", "yes", "no", "expired", "used"]


class NotConsented(Conflict):
    """The consent that something was about to leave with does not hold."""

    code = "cloud_consent_void"


class Found(Struct, frozen=True, kw_only=True):
    """Something in a body, for its person to see.

    Attributes:
        what: its type in plain words.
        where: keys and numbers, from the top of the body.
        text: how it begins.
    """

    kind: str
    type: str
    what: str
    where: str
    text: str


class Question(Struct, frozen=True, kw_only=True):
    """What a person is asked.

    Attributes:
        body: the exact bytes that would leave.
        findings: how many were found in it, by type.
        found: each of them, before anything was replaced.
        sentence: why they are asked.
        reserved_micros: what it may cost at the most, in millionths of the admin's currency.
    """

    request_id: UUID
    user_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    body: bytes
    sha256: bytes
    findings: Mapping[str, int]
    found: tuple[Found, ...]
    sentence: str
    reserved_micros: int


class Open(Struct, frozen=True, kw_only=True):
    """A question without an answer, or with a yes that was not used yet.

    Attributes:
        token: by which it is answered; where another replica asked, the digest of the token, which does as well.
        question: None where another replica holds the body, or nobody waits any more.
    """

    token: str
    request_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    body_bytes: int
    asked_at: datetime
    expires_at: datetime
    is_given: bool
    question: Question | None


@dataclass
class Asked:
    """A question that a request waits on.

    Attributes:
        id: of its row.
        news: set when it was answered in this replica.
    """

    token: str
    id: bytes
    question: Question
    expires_at: datetime
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Consents:
    """Those of everybody.

    Args:
        nonce: a new token.
    """

    def __init__(self, database: Database, clock: Clock, nonce: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._nonce = nonce
        self._asked: dict[bytes, Asked] = {}

    async def ask(self, question: Question) -> Asked:
        """Ask. Whoever waits calls `forget` at last. Raises Unavailable."""
        now, token = self._clock.now(), self._nonce()
        asked = Asked(token, digest(token), question, now + LASTS)
        row = CloudConsent(
            id=asked.id,
            user_id=question.user_id,
            request_id=question.request_id,
            conversation_id=question.conversation_id,
            provider=question.provider,
            model=question.model,
            body_sha256=question.sha256,
            body_bytes=len(question.body),
            asked_at=now,
            expires_at=asked.expires_at,
        )
        async with self._database.transaction(of=question.user_id) as session:
            session.add(row)
        self._asked[asked.id] = asked
        return asked

    def forget(self, asked: Asked) -> None:
        """Nobody waits for it any more; its row stays, and its answer may be used by a request that names it."""
        self._asked.pop(asked.id, None)

    async def answered(self, asked: Asked) -> bool:
        """Wait for the answer; whether it is yes. Raises Unavailable."""
        while (state := await self._state(asked)) == "open":
            asked.news.clear()
            timer = asyncio.ensure_future(self._clock.sleep_ms(LOOK_MS))
            news = asyncio.ensure_future(asked.news.wait())
            try:
                await asyncio.wait({timer, news}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                news.cancel()
        return state == "yes"

    async def answer(self, user_id: UUID, token: str, *, is_yes: bool) -> None:
        """Say yes or no.

        Raises:
            NotFound: the person was asked no such thing.
            Conflict: it is too late for that: it has expired, it was refused, or it has left.
        """
        consent_id, now = id_of(token), self._clock.now()
        async with self._database.transaction(of=user_id) as session:
            row = await session.get(CloudConsent, consent_id, with_for_update=True)
            if row is None or row.user_id != user_id:
                raise NotFound("You were asked no such thing.", code="consent_not_found")
            _may_answer(row, now, is_yes=is_yes)
            if is_yes:
                row.given_at = row.given_at or now
            else:
                row.refused_at = now
        if (asked := self._asked.get(consent_id)) is not None:
            asked.news.set()

    async def open_of(self, user_id: UUID) -> Sequence[Open]:
        """What a person can still answer, the newest first."""
        query = (
            select(CloudConsent)
            .where(
                CloudConsent.user_id == user_id,
                CloudConsent.expires_at > self._clock.now(),
                CloudConsent.refused_at.is_(None),
                CloudConsent.used_at.is_(None),
            )
            .order_by(CloudConsent.asked_at.desc())
            .limit(OPEN_MAX)
        )
        async with self._database.transaction(of=user_id) as session:
            rows = (await session.scalars(query)).all()
        return [self._open(row) for row in rows]

    async def brought(self, user_id: UUID, token: str, sha256: bytes, provider: str, model: str) -> bytes | None:
        """The consent that a request brings along, if it is one to exactly this: sending the token says yes."""
        consent_id, now = id_of(token), self._clock.now()
        async with self._database.transaction(of=user_id) as session:
            row = await session.get(CloudConsent, consent_id, with_for_update=True)
            if row is None or _state_of(row, now) not in {"open", "yes"}:
                return None
            if (row.user_id, row.body_sha256, row.provider, row.model) != (user_id, sha256, provider, model):
                return None
            row.given_at = row.given_at or now
        return consent_id

    async def _state(self, asked: Asked) -> State:
        async with self._database.transaction(of=asked.question.user_id) as session:
            row = await session.get(CloudConsent, asked.id)
        return "no" if row is None else _state_of(row, self._clock.now())

    def _open(self, row: CloudConsent) -> Open:
        asked = self._asked.get(row.id)
        return Open(
            token=row.id.hex() if asked is None else asked.token,
            request_id=row.request_id,
            conversation_id=row.conversation_id,
            provider=row.provider,
            model=row.model,
            body_bytes=row.body_bytes,
            asked_at=row.asked_at,
            expires_at=row.expires_at,
            is_given=row.given_at is not None,
            question=None if asked is None else asked.question,
        )


async def use(session: AsyncSession, consent_id: bytes, question: Question, now: datetime) -> None:
    """Use a consent up, in the transaction in which the ledger is written.

    Raises:
        NotConsented: it does not hold for this, or not any more.
    """
    used = await session.execute(
        update(CloudConsent)
        .where(
            CloudConsent.id == consent_id,
            CloudConsent.user_id == question.user_id,
            CloudConsent.body_sha256 == question.sha256,
            CloudConsent.provider == question.provider,
            CloudConsent.model == question.model,
            CloudConsent.given_at.is_not(None),
            CloudConsent.refused_at.is_(None),
            CloudConsent.used_at.is_(None),
            CloudConsent.expires_at > now,
        )
        .values(used_at=now)
        .returning(CloudConsent.id)
    )
    if used.first() is None:
        raise NotConsented("You have not said yes to this, or have taken it back.")


def id_of(token: str) -> bytes:
    """The row that a token means, or the digest of one as hex."""
    if len(token) == DIGEST_HEX:
        try:
            return bytes.fromhex(token)
        except ValueError:
            pass
    return digest(token)


def _may_answer(row: CloudConsent, now: datetime, *, is_yes: bool) -> None:
    match _state_of(row, now):
        case "used":
            raise Conflict("It has left the box already.", code="consent_used")
        case "expired":
            raise Conflict("The question has expired. It is asked again if need be.", code="consent_expired")
        case "no" if is_yes:
            raise Conflict("You have said no to it. It is asked again if need be.", code="consent_refused")
        case _:
            pass


def _state_of(row: CloudConsent, now: datetime) -> State:
    if row.used_at is not None:
        return "used"
    if row.refused_at is not None:
        return "no"
    if row.expires_at <= now:
        return "expired"
    return "open" if row.given_at is None else "yes"
