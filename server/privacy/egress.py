"""The ledger of what left this box: one entry before the first byte of a request leaves, one after the last.

Theory of operation. Entries are numbered 1, 2, 3 …, and each holds

    hash  =  SHA-256( hash of the entry before  +  encoding of this entry, its number included )

so whoever changes, removes, adds or moves one must write all later ones anew. The row `egress_head` has the number and
hash of the last entry: it shows that the newest ones were cut off, and whoever appends holds it FOR UPDATE, so entries
are written one after the other, in the transaction of what they tell of. No text of anybody is in an entry, only the
digest of the exact bytes that left.

The encoding is unambiguous: a line with its version, then JSON with sorted names of whole numbers, strings, and bytes
as hex. A later version is added to ENCODINGS, and the entries of before stay what they are.

Who owns the tables can write all of the ledger anew, hashes and head as well. Against that helps only what is kept
elsewhere: `wirthforge doctor egress` prints the head, and later says whether that is still part of the chain.

Locks are taken in one order, in every transaction: cloud_version, consents, cloud_spend, egress_head.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from server.db.models.cloud import Egress
from server.errors import Conflict, Unavailable

Form = Literal["whole", "pseudonymised"]
# broken_off: the answer began and did not end. abandoned: this box forgot about it (a crash).
Outcome = Literal["completed", "failed", "cancelled", "broken_off", "abandoned"]
# Entries are written by a server's session, or by upkeep on its connection.
Connected = AsyncSession | AsyncConnection

GENESIS = hashlib.sha256(b"wirthforge egress ledger").digest()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Send(Struct, frozen=True, kw_only=True):
    """A request that is about to leave.

    Attributes:
        request_id: our own; one request leaves once.
        detectors: the versions of those that looked, by name.
        findings: how many were found, by type.
        consent_id: the digest of the token by which its person said yes, if they were asked.
        body_bytes, sha256: of the exact body, after all replacing.
        reserved_micros: what it may cost at the most, in millionths of the admin's currency.
    """

    request_id: UUID
    user_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    policy_version: int
    detectors: Mapping[str, str]
    findings: Mapping[str, int]
    form: Form
    consent_id: bytes | None
    body_bytes: int
    sha256: bytes
    reserved_micros: int


class End(Struct, frozen=True, kw_only=True):
    """What became of it.

    Attributes:
        answer_bytes: as they arrived.
        input_tokens, output_tokens: as the provider told; None where it did not.
        spent_micros: millionths of the admin's currency.
    """

    request_id: UUID
    outcome: Outcome
    answer_bytes: int
    input_tokens: int | None
    output_tokens: int | None
    spent_micros: int


class Entry(Struct, frozen=True, kw_only=True):
    """One row of the ledger; the fields are those of the table (server/db/models/cloud.py)."""

    seq: int
    at: datetime
    kind: Literal["send", "end"]
    request_id: UUID
    user_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    policy_version: int
    detectors: Mapping[str, str]
    findings: Mapping[str, int]
    form: str
    consent_id: bytes | None
    body_bytes: int
    sha256: bytes
    reserved_micros: int
    outcome: str | None = None
    answer_bytes: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    spent_micros: int | None = None
    previous_hash: bytes
    hash: bytes


async def append_send(session: Connected, send: Send, at: datetime) -> Entry:
    """Write that a request leaves; it may, once the transaction is committed.

    What it reserves in cloud_spend is reserved before, in the same transaction (server/privacy/spend.py).

    Args:
        session: of the person, or of everybody.
        at: now, by the clock.

    Raises:
        Conflict: it has left already.
        Unavailable: the ledger does not fit together, and nothing leaves until somebody has looked.
    """
    return await _append(session, {"at": at, "kind": "send", **msgspec.structs.asdict(send)})


async def append_end(session: Connected, end: End, at: datetime) -> Entry | None:
    """Write what became of a request that left; None where that is written already.

    Call server/privacy/ends.py instead, which settles what was spent in the same breath.

    Raises:
        Conflict: it never left.
        Unavailable: the ledger does not fit together.
    """
    head = await _held_head(session)
    rows = (await session.execute(_OF_REQUEST, {"request_id": end.request_id})).mappings().all()
    if any(row["kind"] == "end" for row in rows):
        return None
    if not rows:
        raise Conflict("A request that never left cannot end.", code="never_left")
    row = {**rows[0], "at": at, "kind": "end", **msgspec.structs.asdict(end)}
    return await _append(session, row, head)


async def sent(session: Connected, request_id: UUID) -> Entry | None:
    """The entry that says that this request left."""
    row = (await session.execute(_SEND_OF_REQUEST, {"request_id": request_id})).mappings().first()
    return None if row is None else entry_of(row)


def entry_of(row: Mapping[Any, Any]) -> Entry:
    """A row of the table."""
    return Entry(**{name: row[name] for name in Entry.__struct_fields__})


def hash_of(entry: Mapping[Any, Any], encode: Callable[[Mapping[Any, Any]], bytes] | None = None) -> bytes:
    """What the entry's hash must be, by its other fields."""
    return hashlib.sha256(entry["previous_hash"] + (encode or ENCODINGS[-1])(entry)).digest()


def is_genuine(entry: Mapping[Any, Any]) -> bool:
    """Whether the entry's hash is that of its other fields, in any encoding that ever was."""
    return any(hash_of(entry, encode) == entry["hash"] for encode in ENCODINGS)


def _encoded_1(entry: Mapping[Any, Any]) -> bytes:
    values = {name: _plain(entry[name]) for name in _HASHED_1}
    return b"wirthforge egress 1\n" + msgspec.json.encode(values, order="deterministic")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, UUID) else value


_HASHED_1 = [name for name in Entry.__struct_fields__ if name not in {"previous_hash", "hash"}]
# The newest one last.
ENCODINGS: tuple[Callable[[Mapping[Any, Any]], bytes], ...] = (_encoded_1,)
_EGRESS = Egress.__table__
_OF_REQUEST = select(_EGRESS).where(Egress.request_id == bindparam("request_id")).order_by(Egress.seq)
_SEND_OF_REQUEST = _OF_REQUEST.where(Egress.kind == "send")
# An update that changes nothing: it makes the row at its first use, locks it, and reads what was committed last.
_HOLD_HEAD = text("""
    INSERT INTO egress_head (id, seq, hash) VALUES (1, 0, :genesis)
    ON CONFLICT (id) DO UPDATE SET seq = egress_head.seq RETURNING seq, hash
""")
_MOVE_HEAD = text("UPDATE egress_head SET seq = :seq, hash = :hash WHERE id = 1")


async def _held_head(session: Connected) -> tuple[int, bytes]:
    row = (await session.execute(_HOLD_HEAD, {"genesis": GENESIS})).one()
    return row.seq, row.hash


async def _append(session: Connected, row: dict[str, Any], head: tuple[int, bytes] | None = None) -> Entry:
    seq, previous = head or await _held_head(session)
    row |= {"seq": seq + 1, "previous_hash": previous, "hash": b""}
    row = {name: row.get(name) for name in Entry.__struct_fields__}
    row["hash"] = hash_of(row)
    try:
        await session.execute(insert(Egress), [row])
    except IntegrityError as error:
        if "ix_egress_request_id_kind" in str(error.orig):
            raise Conflict("This request has left the box already.", code="already_sent") from error
        raise Unavailable(
            "The record of what left this box does not fit together, so nothing leaves it: "
            "an admin should run `wirthforge doctor egress`.",
            code="egress_broken",
        ) from error
    await session.execute(_MOVE_HEAD, {"seq": row["seq"], "hash": row["hash"]})
    return entry_of(row)
