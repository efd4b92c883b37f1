"""Whether the ledger of what left is as it was written: the chain from its first entry to its head, read as a stream.

    chain    each entry's hash is that of its fields, and has the hash of the one before in it; the head is the last
    pairs    every end has a send before it; every send has an end, unless it is young
    spend    cloud_spend of a person and month is what the ends spent, and what sends without an end reserved

Each of the three is one statement, so it sees all tables at one moment, and servers may write meanwhile. A clock that
jumped breaks nothing and is told. Of the chain the first place is told that does not fit: behind it nothing is known.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import RowMapping, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models.cloud import Egress, EgressHead
from server.privacy.egress import GENESIS, is_genuine
from server.privacy.ends import ABANDONED_AFTER

ROWS = 1_000
# How far an entry is looked for from where it is found, to tell what happened to it.
MOVED_MAX = 1_000
TOLD_MAX = 20
# Replicas' clocks differ, and times are taken before the wait for the head.
JUMP = timedelta(minutes=1)
# Upkeep ends what was abandoned, once a day.
OPEN_MAX = timedelta(days=2)


class Noted(Struct, frozen=True):
    """A head that somebody wrote down: the ledger had an entry of this number and hash."""

    seq: int
    hash: bytes


class Breach(Struct, frozen=True, kw_only=True):
    """Something that does not hold.

    Attributes:
        rule: changed, removed, inserted, moved, cut_off, head, noted, pair, open or spend.
        subject: the entry's number, or the request or person and month that it is about.
    """

    rule: str
    subject: str
    sentence: str


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether all is well.

    Attributes:
        entries: how many were read; up to the first that does not fit.
        open: requests that left and have no end yet.
        head: number and hash of the last entry that was read, to be written down; empty where there is none.
        notes: what is remarkable, and breaks nothing.
    """

    is_well: bool
    entries: int
    open: int
    head: str
    broken: list[Breach]
    notes: list[str]


async def verify(session: AsyncSession, now: datetime, noted: Sequence[Noted] = ()) -> Verdict:
    """Read all of the ledger, in memory that does not grow with it, and change nothing.

    Args:
        session: of everybody.
        noted: heads of before, which must still be in it.
    """
    walk = _Walk({each.seq: each.hash for each in noted})
    broken = [breach] if (breach := await _chain(session, walk)) is not None else []
    pairs = await _mappings(session, _PAIRS)
    opens = (await session.execute(_OPEN, {"late": now - ABANDONED_AFTER, "too_late": now - OPEN_MAX})).one()
    if opens.too_late:
        sentence = f"{_requests(opens.too_late)} left days ago and have no end: run `wirthforge upkeep`."
        broken.append(Breach(rule="open", subject=str(opens.first), sentence=sentence))
    broken += (_unpaired(row) for row in pairs)
    broken += (_unequal(row) for row in await _mappings(session, _SPEND))
    notes = list(_notes(walk, now, opens.late - opens.too_late))
    head = f"{walk.seq}:{walk.hash.hex()}" if walk.seq else ""
    return Verdict(is_well=not broken, entries=walk.seq, open=opens.all, head=head, broken=broken, notes=notes)


class _Walk:
    """Along the chain, as far as it holds."""

    def __init__(self, noted: Mapping[int, bytes]) -> None:
        self.seq = 0
        self.hash = GENESIS
        self.at: datetime | None = None
        self.back: list[int] = []
        self._noted = noted

    def fits(self, row: RowMapping) -> bool:
        """Whether it is the next one."""
        return row["seq"] == self.seq + 1 and row["previous_hash"] == self.hash and is_genuine(row)

    def step(self, row: RowMapping) -> None:
        """Go on to one that fits."""
        if self.at is not None and row["at"] < self.at - JUMP:
            self.back.append(row["seq"])
            self.back = self.back[:TOLD_MAX]
        self.seq, self.hash, self.at = row["seq"], row["hash"], row["at"]

    def unnoted(self) -> Breach | None:
        """If this entry is not the one that somebody wrote down."""
        if self._noted.get(self.seq, self.hash) == self.hash:
            return None
        sentence = f"Entry {self.seq} is not the one that was noted: the ledger was written anew."
        return Breach(rule="noted", subject=str(self.seq), sentence=sentence)

    def missing(self) -> Breach | None:
        """If one that was noted is beyond the end."""
        beyond = max(self._noted, default=0)
        if beyond <= self.seq:
            return None
        sentence = f"The ledger ends with entry {self.seq}, and entry {beyond} was noted: it was cut off."
        return Breach(rule="noted", subject=str(beyond), sentence=sentence)


async def _chain(session: AsyncSession, walk: _Walk) -> Breach | None:
    """The first place that does not fit."""
    head = (await session.execute(_HEAD)).mappings().first()
    async for row in _rows(session):
        if not walk.fits(row):
            return await _named(session, walk, row)
        walk.step(row)
        if (breach := walk.unnoted()) is not None:
            return breach
        head = {"seq": row["head_seq"], "hash": row["head_hash"]}  # type: ignore[assignment]  # of the same moment
    return _at_head(walk, head) or walk.missing()


async def _rows(session: AsyncSession) -> AsyncIterator[RowMapping]:
    result = await session.stream(_ENTRIES, execution_options={"yield_per": ROWS})
    try:
        async for row in result.mappings():
            yield row
    finally:
        await result.close()


async def _named(session: AsyncSession, walk: _Walk, row: RowMapping) -> Breach:
    """What happened to the first entry that does not fit."""
    seq, due = row["seq"], walk.seq + 1
    if seq != due:
        sentence = f"Entry {due} is missing: it was removed, and the next one there is has number {seq}."
        return Breach(rule="removed", subject=str(due), sentence=sentence)
    if is_genuine(row):
        sentence = f"Entry {seq} does not follow from entry {seq - 1}: one of them was put in or replaced."
        return Breach(rule="inserted", subject=str(seq), sentence=sentence)
    was = _was(row)
    if was is None:
        sentence = f"Entry {seq} is not as it was written: it was changed."
        return Breach(rule="changed", subject=str(seq), sentence=sentence)
    told = f"Entry {seq} was entry {was} when it was written"
    if was < seq:
        return Breach(rule="inserted", subject=str(seq), sentence=f"{told}: others were put in before it.")
    query = select(func.count()).select_from(Egress).where(Egress.hash == row["previous_hash"])
    if await session.scalar(query):
        return Breach(rule="moved", subject=str(seq), sentence=f"{told}: the order of the entries was changed.")
    return Breach(rule="removed", subject=str(seq), sentence=f"{told}: what was before it was removed.")


def _was(row: RowMapping) -> int | None:
    """The number with which its hash would be right."""
    for distance in range(1, MOVED_MAX + 1):
        for seq in (row["seq"] - distance, row["seq"] + distance):
            if is_genuine({**row, "seq": seq}):
                return int(seq)
    return None


def _at_head(walk: _Walk, head: Mapping[Any, Any] | None) -> Breach | None:
    """What the end of the chain and the head say of each other."""
    if head is None or head["seq"] is None:
        if not walk.seq:
            return None
        sentence = f"The head is gone: whether entry {walk.seq} is the last that was written is not known."
        return Breach(rule="head", subject="head", sentence=sentence)
    if head["seq"] > walk.seq:
        sentence = f"The ledger ends with entry {walk.seq}, and {head['seq']} were written: it was cut off."
        return Breach(rule="cut_off", subject=str(walk.seq + 1), sentence=sentence)
    if head["seq"] < walk.seq:
        sentence = f"The ledger ends with entry {walk.seq}, and {head['seq']} were written: others were put in."
        return Breach(rule="inserted", subject=str(head["seq"] + 1), sentence=sentence)
    if head["hash"] != walk.hash:
        sentence = f"Entry {walk.seq} is not the last one that was written: it, or the head, was replaced."
        return Breach(rule="head", subject=str(walk.seq), sentence=sentence)
    return None


def _unpaired(row: Mapping[Any, Any]) -> Breach:
    sentence = f"Entry {row['seq']} ends request {row['request_id']}, and no entry before it says that it left."
    return Breach(rule="pair", subject=str(row["request_id"]), sentence=sentence)


def _unequal(row: Mapping[Any, Any]) -> Breach:
    subject = f"{row['name']} {row['month']:%Y-%m}"
    sentence = (
        f"The spend of {row['name']} in {row['month']:%Y-%m} is {row['spent']} millionths, and {row['reserved']}"
        f" reserved; the ledger says {row['ledger_spent']}, and {row['ledger_reserved']} reserved."
    )
    return Breach(rule="spend", subject=subject, sentence=sentence)


def _notes(walk: _Walk, now: datetime, late: int) -> Iterator[str]:
    if late:
        yield f"{_requests(late)} left more than an hour ago and have no end yet; upkeep writes it."
    if walk.back:
        numbers = ", ".join(map(str, walk.back))
        yield f"The clock went back before entr{'y' if len(walk.back) == 1 else 'ies'} {numbers}."
    if walk.at is not None and walk.at > now + JUMP:
        yield f"Entry {walk.seq} is of a time that has not come yet: a clock has jumped."


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


async def _mappings(session: AsyncSession, query: Any) -> Sequence[RowMapping]:  # noqa: ANN401
    return (await session.execute(query)).mappings().all()


_HEAD = select(EgressHead.seq, EgressHead.hash)
_ENTRIES = (
    select(Egress.__table__, EgressHead.seq.label("head_seq"), EgressHead.hash.label("head_hash"))
    .join_from(Egress.__table__, EgressHead.__table__, EgressHead.id == 1, isouter=True)
    .order_by(Egress.seq)
)
_OPEN = text("""
    SELECT count(*) AS all, count(*) FILTER (WHERE at < :late) AS late,
        count(*) FILTER (WHERE at < :too_late) AS too_late, min(seq) AS first
    FROM egress AS sent WHERE kind = 'send'
        AND NOT EXISTS (SELECT FROM egress WHERE request_id = sent.request_id AND kind = 'end')
""")
_PAIRS = text(f"""
    SELECT seq, request_id FROM egress AS ended WHERE kind = 'end' AND NOT EXISTS (
        SELECT FROM egress WHERE request_id = ended.request_id AND kind = 'send' AND seq < ended.seq)
    ORDER BY seq LIMIT {TOLD_MAX}
""")  # noqa: S608 (a number of ours)
# Of people who are still there: spend is removed with them, the ledger is not.
_SPEND = text(f"""
    WITH ledger AS (
        SELECT sent.user_id, CAST(date_trunc('month', sent.at AT TIME ZONE 'UTC') AS date) AS month,
            sum(CASE WHEN ended.seq IS NULL THEN sent.reserved_micros ELSE 0 END) AS reserved,
            sum(coalesce(ended.spent_micros, 0)) AS spent
        FROM egress AS sent LEFT JOIN egress AS ended ON ended.request_id = sent.request_id AND ended.kind = 'end'
        WHERE sent.kind = 'send' GROUP BY 1, 2
    ), both_ AS (
        SELECT user_id, month,
            coalesce(spend.reserved_micros, 0) AS reserved, coalesce(spend.spent_micros, 0) AS spent,
            coalesce(ledger.reserved, 0) AS ledger_reserved, coalesce(ledger.spent, 0) AS ledger_spent
        FROM ledger FULL JOIN cloud_spend AS spend USING (user_id, month)
    )
    SELECT users.name, both_.* FROM both_ JOIN users ON users.id = both_.user_id
    WHERE reserved <> ledger_reserved OR spent <> ledger_spent
    ORDER BY users.name, month LIMIT {TOLD_MAX}
""")  # noqa: S608
