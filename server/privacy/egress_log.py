"""What left this box, for the person whose requests they were; and counts of it, for admins."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text

from server.clock import Clock
from server.db.session import Database

PAGE_MAX = 100
GROUPS_MAX = 5_000
# As many as are read at a time for a file.
FILE_PAGE = 500
_FIRST_SEQ = 2**62


class EgressRow(Struct, frozen=True, kw_only=True):
    """One request that left.

    Attributes:
        seq: the number of its entry in the ledger.
        policy_version: counts the changes of policies and providers; the one that was in force.
        detectors: the versions of those that looked, by name.
        findings: how many they found, by type.
        form: whole, or pseudonymised.
        body_bytes, sha256: of the exact body that left; the digest as hex.
        is_consented: whether its person was asked about this body, and said yes.
        outcome: null: its end is not known yet, and the rest either.
        spent_micros: millionths of the admin's currency; `reserved_micros` is what it may cost until then.
    """

    seq: int
    at: datetime
    request_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    policy_version: int
    detectors: Mapping[str, str]
    findings: Mapping[str, int]
    form: str
    is_consented: bool
    body_bytes: int
    sha256: str
    reserved_micros: int
    ended_at: datetime | None
    outcome: str | None
    answer_bytes: int | None
    input_tokens: int | None
    output_tokens: int | None
    spent_micros: int | None


class EgressCount(Struct, frozen=True, kw_only=True):
    """What left on one day (UTC) to one provider for one person; not what it was about.

    Attributes:
        user: null: nobody has this id any more.
        pseudonymised, consented: how many of the requests.
        open: how many have no end yet.
        findings: in how many of the requests something was found, whatever it was.
        spent_micros: millionths of the admin's currency, of those that have ended.
    """

    day: date
    provider: str
    user_id: UUID
    user: str | None
    requests: int
    pseudonymised: int
    consented: int
    open: int
    findings: int
    body_bytes: int
    answer_bytes: int
    spent_micros: int


class EgressLog:
    """Reads the ledger."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> datetime:
        """The time, for questions about days."""
        return self._clock.now()

    async def of(self, user_id: UUID, *, before: int | None = None, limit: int = PAGE_MAX) -> Sequence[EgressRow]:
        """The newest ones of a person, at most `limit`.

        Args:
            before: only those with a smaller `seq`.
        """
        values = {"user_id": user_id, "before": _FIRST_SEQ if before is None else before, "limit": limit}
        async with self._database.transaction(of=user_id) as session:
            rows = (await session.execute(_OF_PERSON, values)).mappings().all()
        return [EgressRow(**{**row, "sha256": row["sha256"].hex()}) for row in rows]

    async def all_of(self, user_id: UUID) -> AsyncIterator[EgressRow]:
        """All of a person, the newest first; no transaction is open while the caller does something else."""
        before = None
        while page := await self.of(user_id, before=before, limit=FILE_PAGE):
            for each in page:
                yield each
            before = page[-1].seq

    async def summary(self, since: datetime, until: datetime) -> Sequence[EgressCount]:
        """Counts for each day, provider and person, at most GROUPS_MAX; the newest day first."""
        values: dict[str, Any] = {"since": since, "until": until, "limit": GROUPS_MAX}
        async with self._database.transaction(everybody=True) as session:
            rows = (await session.execute(_SUMMARY, values)).mappings().all()
        return [EgressCount(**row) for row in rows]


_OF_PERSON = text("""
    SELECT sent.seq, sent.at, sent.request_id, sent.conversation_id, sent.provider, sent.model, sent.policy_version,
        sent.detectors, sent.findings, sent.form, sent.consent_id IS NOT NULL AS is_consented, sent.body_bytes,
        sent.sha256, sent.reserved_micros, ended.at AS ended_at, ended.outcome, ended.answer_bytes,
        ended.input_tokens, ended.output_tokens, ended.spent_micros
    FROM egress AS sent LEFT JOIN egress AS ended ON ended.request_id = sent.request_id AND ended.kind = 'end'
    WHERE sent.kind = 'send' AND sent.user_id = :user_id AND sent.seq < :before
    ORDER BY sent.seq DESC LIMIT :limit
""")
_SUMMARY = text("""
    SELECT CAST(sent.at AT TIME ZONE 'UTC' AS date) AS day, sent.provider, sent.user_id, users.name AS user,
        count(*) AS requests, count(*) FILTER (WHERE sent.form = 'pseudonymised') AS pseudonymised,
        count(sent.consent_id) AS consented, count(*) FILTER (WHERE ended.seq IS NULL) AS open,
        count(*) FILTER (WHERE sent.findings <> '{}') AS findings,
        CAST(sum(sent.body_bytes) AS bigint) AS body_bytes,
        CAST(coalesce(sum(ended.answer_bytes), 0) AS bigint) AS answer_bytes,
        CAST(coalesce(sum(ended.spent_micros), 0) AS bigint) AS spent_micros
    FROM egress AS sent LEFT JOIN egress AS ended ON ended.request_id = sent.request_id AND ended.kind = 'end'
        LEFT JOIN users ON users.id = sent.user_id
    WHERE sent.kind = 'send' AND sent.at >= :since AND sent.at < :until
    GROUP BY 1, 2, 3, 4 ORDER BY 1 DESC, 2, 4, 3 LIMIT :limit
""")
