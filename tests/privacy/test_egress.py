"""The ledger of what left: its chain, what is written in it, and how each kind of tampering is found."""

# ruff: noqa: S608 (statements of ours)

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from server.db.session import Database
from server.errors import Conflict, Unavailable
from server.privacy.egress import GENESIS, Entry, append_end, append_send, entry_of, hash_of, is_genuine
from server.privacy.egress_verdict import Noted
from server.privacy.ends import end_abandoned
from server.upkeep.owner import Owner
from tests.privacy.ledgers import (
    ANN,
    BEN,
    MINUTE,
    NOW,
    a_send,
    an_end,
    come_back,
    leave,
    opened,
    some,
    tamper,
    verdict,
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With Ann and Ben, who never sent anything."""
    async with opened(database_url) as database:
        yield database


async def test_entries_are_chained(database: Database) -> None:
    """Each has the hash of the one before, the first a fixed one; rows read back are what was written."""
    entries = await some(database, 2)
    assert [entry.seq for entry in entries] == [1, 2, 3, 4]
    assert [entry.previous_hash for entry in entries] == [GENESIS, *(entry.hash for entry in entries[:-1])]
    async with database.transaction(everybody=True) as session:
        rows = (await session.execute(text("SELECT * FROM egress ORDER BY seq"))).mappings().all()
        head = (await session.execute(text("SELECT seq, hash FROM egress_head"))).one()
    assert [entry_of(row) for row in rows] == entries
    assert (head.seq, head.hash) == (4, entries[-1].hash)
    found = await verdict(database)
    assert (found.is_well, found.entries, found.open, found.notes) == (True, 4, 0, [])
    assert found.head == f"4:{entries[-1].hash.hex()}"


def test_the_encoding_stays_what_it_is() -> None:
    """Version 1, byte for byte: whoever has the rows can check the chain with another program."""
    send = {
        "seq": 1,
        "at": NOW,
        "kind": "send",
        "request_id": ANN,
        "user_id": BEN,
        "conversation_id": None,
        "provider": "elsewhere",
        "model": "bïg",
        "policy_version": 3,
        "detectors": {"b": "2", "a": "1"},
        "findings": {"PERSON": 2, "EMAIL": 1},
        "form": "whole",
        "consent_id": b"\x01\xff",
        "body_bytes": 5,
        "sha256": b"\x02",
        "reserved_micros": 7,
        "outcome": None,
        "answer_bytes": None,
        "input_tokens": None,
        "output_tokens": None,
        "spent_micros": None,
        "previous_hash": GENESIS,
    }
    plain = send | {
        "at": 1_768_910_400_000_000,
        "request_id": str(ANN),
        "user_id": str(BEN),
        "consent_id": "01ff",
        "sha256": "02",
    }
    del plain["previous_hash"]
    written = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    expected = hashlib.sha256(GENESIS + b"wirthforge egress 1\n" + written).digest()
    assert hash_of(send) == expected
    assert hashlib.sha256(b"wirthforge egress ledger").digest() == GENESIS
    assert is_genuine(send | {"hash": expected})
    for name in plain:
        changed = send | {"hash": expected, name: "other" if isinstance(plain[name], str | None) else {}}
        assert not is_genuine(changed), name


async def test_many_at_once_are_one_after_the_other(database: Database) -> None:
    """Twenty transactions together: one chain without a gap; one that is rolled back leaves no number out."""

    async def rolled_back() -> None:
        async with database.transaction(of=ANN) as session:
            await append_send(session, a_send(), NOW)
            raise RuntimeError

    async def one(number: int) -> None:
        if number % 5 == 4:
            with pytest.raises(RuntimeError):
                await rolled_back()
            return
        entry = await leave(database, a_send(ANN if number % 2 else BEN))
        await come_back(database, entry)

    await asyncio.gather(*(one(number) for number in range(20)))
    found = await verdict(database)
    assert (found.is_well, found.entries, found.open) == (True, 32, 0), found


async def test_a_request_leaves_once_and_ends_once(database: Database) -> None:
    """A second send is refused, a second end is none, and what never left cannot end."""
    send = a_send()
    entry = await leave(database, send)
    with pytest.raises(Conflict) as refused:
        await leave(database, send)
    assert refused.value.code == "already_sent"
    ended = await come_back(database, entry)
    assert ended is not None
    assert (ended.provider, ended.user_id, ended.sha256, ended.spent_micros) == ("elsewhere", ANN, b"\x02" * 32, 60)
    assert await come_back(database, entry, outcome="failed", spent_micros=1) is None
    with pytest.raises(Conflict, match="never left"):
        async with database.transaction(of=ANN) as session:
            await append_end(session, an_end(uuid4()), NOW)
    assert (await verdict(database)).entries == 2


async def test_a_person_has_no_hand_on_the_ledger(database: Database) -> None:
    """Not even the server's role changes or removes an entry; and nobody sees those of somebody else."""
    await leave(database, a_send())
    for statement in ("UPDATE egress SET body_bytes = 0", "DELETE FROM egress", "TRUNCATE egress"):
        with pytest.raises(DBAPIError):
            async with database.transaction(everybody=True) as session:
                await session.execute(text(statement))
    async with database.transaction(of=BEN) as session:
        assert await session.scalar(text("SELECT count(*) FROM egress")) == 0
    with pytest.raises(DBAPIError):
        async with database.transaction(of=BEN) as session:
            await append_send(session, a_send(ANN), NOW)
    assert (await verdict(database)).is_well


async def test_the_owner_is_stopped_by_the_trigger(database: Database, database_url: str) -> None:
    """Tampering takes a decision, not a slip."""
    await leave(database, a_send())
    async with Owner(database_url).connection() as connection:
        for statement in ("UPDATE egress SET body_bytes = 0", "DELETE FROM egress", "TRUNCATE egress"):
            with pytest.raises(DBAPIError, match="only added to"):
                async with connection.begin():
                    await connection.execute(text(statement))


COPY = """
    INSERT INTO egress SELECT (jsonb_populate_record(egress, jsonb_build_object('seq', {seq}, 'request_id',
    gen_random_uuid()))).* FROM egress WHERE seq = {of}"""
SHIFT_UP = ("UPDATE egress SET seq = -(seq + 1) WHERE seq >= {0}", "UPDATE egress SET seq = -seq WHERE seq < 0")
SHIFT_DOWN = ("UPDATE egress SET seq = -(seq - 1) WHERE seq > {0}", "UPDATE egress SET seq = -seq WHERE seq < 0")
SWAP = tuple(f"UPDATE egress SET seq = {to} WHERE seq = {of}" for of, to in ((3, 99), (4, 3), (99, 4)))
TAMPERED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "bytes changed": (("UPDATE egress SET body_bytes = 1 WHERE seq = 3",), "changed", "3"),
    "time changed": (("UPDATE egress SET at = at + interval '1 microsecond' WHERE seq = 3",), "changed", "3"),
    "findings changed": (("UPDATE egress SET findings = '{}' WHERE seq = 5",), "changed", "5"),
    "consent made up": (("UPDATE egress SET consent_id = NULL WHERE seq = 1",), "changed", "1"),
    "person changed": ((f"UPDATE egress SET user_id = '{BEN}' WHERE seq = 5",), "changed", "5"),
    "hash changed": (("UPDATE egress SET hash = '\\x00' WHERE seq = 4",), "changed", "4"),
    "first removed": (("DELETE FROM egress WHERE seq = 1",), "removed", "1"),
    "one removed": (("DELETE FROM egress WHERE seq = 3",), "removed", "3"),
    "removed and renumbered": (
        ("DELETE FROM egress WHERE seq = 3", *(each.format(3) for each in SHIFT_DOWN)),
        "removed",
        "3",
    ),
    "one put in, and renumbered": (
        (*(each.format(4) for each in SHIFT_UP), COPY.format(seq=4, of=3)),
        "changed",
        "4",
    ),
    "shifted to make room": (tuple(each.format(4) for each in SHIFT_UP), "removed", "4"),
    "put in at the end": ((COPY.format(seq=7, of=3),), "changed", "7"),
    "reordered": (SWAP, "moved", "3"),
    "the newest cut off": (("DELETE FROM egress WHERE seq > 4",), "cut_off", "5"),
    "all gone": (("TRUNCATE egress",), "cut_off", "1"),
    "the head gone": (("DELETE FROM egress_head",), "head", "head"),
    "the head set back": (("UPDATE egress_head SET seq = 5",), "inserted", "6"),
    "the head of something else": (("UPDATE egress_head SET hash = '\\x00'",), "head", "6"),
}


TABLES = ("egress", "egress_head", "cloud_spend")


async def test_tampering_is_found_and_named(database: Database, database_url: str) -> None:
    """Its kind, and the first place."""
    await some(database)
    await tamper(database_url, *(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in TABLES))
    for kind, (statements, rule, subject) in TAMPERED.items():
        assert (await verdict(database)).is_well
        await tamper(database_url, *statements)
        found = await verdict(database)
        assert not found.is_well, kind
        assert (found.broken[0].rule, found.broken[0].subject) == (rule, subject), (kind, found.broken)
        assert found.broken[0].sentence.endswith(".")
        again = (f"TRUNCATE {table}; INSERT INTO {table} TABLE kept_{table}" for table in TABLES)
        await tamper(database_url, *(part for each in again for part in each.split("; ")))


async def test_forged_entries_with_right_hashes(database: Database, database_url: str) -> None:
    """Whoever computes hashes is found by what follows: the next entry, or the head."""
    entries = await some(database)
    third = entries[2]

    def forged(fields: str, entry_seq: int) -> str:
        base = {name: getattr(entries[entry_seq - 1], name) for name in third.__struct_fields__}
        row = base | {"body_bytes": 1}
        return f"UPDATE egress SET body_bytes = 1, hash = '\\x{hash_of(row).hex()}'{fields} WHERE seq = {entry_seq}"

    await tamper(database_url, forged("", 3))
    (breach,) = (await verdict(database)).broken
    assert (breach.rule, breach.subject) == ("inserted", "4")
    await tamper(
        database_url,
        f"UPDATE egress SET body_bytes = {third.body_bytes}, hash = '\\x{third.hash.hex()}' WHERE seq = 3",
        forged("", 6),
    )
    (breach,) = (await verdict(database)).broken
    assert (breach.rule, breach.subject) == ("head", "6")


async def test_what_was_noted_elsewhere_unmasks_who_wrote_all_anew(database: Database, database_url: str) -> None:
    """A head of before must still be in the chain, whatever else fits."""
    entries = await some(database)
    noted = Noted(4, entries[3].hash)
    assert (await verdict(database, noted)).is_well
    await tamper(database_url, "TRUNCATE egress", "DELETE FROM egress_head", "DELETE FROM cloud_spend")
    found = await verdict(database, noted)
    assert [breach.rule for breach in found.broken] == ["noted"]
    await some(database)
    assert (await verdict(database)).is_well
    found = await verdict(database, noted)
    assert [(breach.rule, breach.subject) for breach in found.broken] == [("noted", "4")]


async def test_ends_and_sends_belong_together(database: Database, database_url: str) -> None:
    """An end whose send is of somebody else's request, and one that left days ago and has no end."""
    entry = await leave(database, a_send(reserved_micros=0))
    found = await verdict(database, now=NOW + timedelta(minutes=59))
    assert (found.is_well, found.open, found.notes) == (True, 1, [])
    found = await verdict(database, now=NOW + timedelta(hours=2))
    assert (found.is_well, found.notes) == (
        True,
        ["1 request left more than an hour ago and have no end yet; upkeep writes it."],
    )
    found = await verdict(database, now=NOW + timedelta(days=3))
    assert [breach.rule for breach in found.broken] == ["open"]
    await come_back(database, entry)
    await tamper(database_url, f"UPDATE egress SET request_id = '{uuid4()}' WHERE kind = 'end'")
    found = await verdict(database)
    assert [breach.rule for breach in found.broken] == ["changed", "pair", "spend"]


async def test_a_clock_that_jumps_is_told(database: Database) -> None:
    """Times may go back, for clocks do; the chain is what orders entries."""
    for minutes in (0, 10, 3, 4, 4):
        await leave(database, a_send(reserved_micros=0), NOW + minutes * MINUTE)
    found = await verdict(database)
    assert (found.is_well, found.notes) == (True, ["The clock went back before entry 3."])
    found = await verdict(database, now=NOW)
    assert found.notes[1] == "Entry 5 is of a time that has not come yet: a clock has jumped."


async def test_spend_is_what_the_ledger_says(database: Database, database_url: str) -> None:
    """Ends and what is still reserved, by person and by month of the send."""
    await some(database, 2)
    await leave(database, a_send(BEN))
    assert (await verdict(database)).is_well
    await tamper(database_url, f"UPDATE cloud_spend SET spent_micros = 0 WHERE user_id = '{ANN}'")
    (breach,) = (await verdict(database)).broken
    assert (breach.rule, breach.subject) == ("spend", "ann 2026-01")
    assert breach.sentence == (
        "The spend of ann in 2026-01 is 0 millionths, and 0 reserved; the ledger says 120, and 0 reserved."
    )


async def test_a_ledger_that_does_not_fit_lets_nothing_leave(database: Database, database_url: str) -> None:
    """Without a head, or with one that was set back, appending fails instead of overwriting."""
    await some(database, 1)
    for statement in ("DELETE FROM egress_head", "INSERT INTO egress_head VALUES (1, 1, '\\x00')"):
        await tamper(database_url, statement)
        with pytest.raises(Unavailable) as refused:
            await leave(database, a_send())
        assert refused.value.code == "egress_broken"


async def test_what_nobody_ended_is_abandoned(database: Database, database_url: str) -> None:
    """After an hour; what it reserved counts as spent; what ended meanwhile is left alone; twice is once."""
    old, ended = await leave(database, a_send()), await leave(database, a_send())
    young = await leave(database, a_send(), NOW + 30 * MINUTE)
    await come_back(database, ended)
    said: list[str] = []
    used: list[UUID] = []

    async def use(_: AsyncConnection, send: Entry) -> None:
        used.append(send.request_id)

    async with Owner(database_url).connection() as connection:
        await end_abandoned(connection, NOW + 61 * MINUTE, said.append, use=use, is_dry=True)
        assert (await verdict(database)).open == 2
        await end_abandoned(connection, NOW + 61 * MINUTE, said.append, use=use)
        await end_abandoned(connection, NOW + 61 * MINUTE, said.append, use=use)
    assert used == [old.request_id]
    assert said == [
        "would end 1 requests to clouds that nobody ended",
        "ended 1 requests to clouds that nobody ended; what they reserved counts as spent",
        "every request that left has its end",
    ]
    async with database.transaction(everybody=True) as session:
        row = (await session.execute(text("SELECT * FROM egress WHERE outcome = 'abandoned'"))).mappings().one()
        spend = (await session.execute(text("SELECT reserved_micros, spent_micros FROM cloud_spend"))).one()
    assert (row["request_id"], row["spent_micros"]) == (old.request_id, 100)
    assert (spend.reserved_micros, spend.spent_micros) == (100, 160)
    found = await verdict(database, now=NOW + 62 * MINUTE)
    assert (found.is_well, found.open) == (True, 1)
    assert await come_back(database, old) is None
    assert await come_back(database, young) is not None


async def test_verifying_is_a_stream(database: Database) -> None:
    """The memory that it takes does not grow with the ledger."""

    async def peak(count: int) -> int:
        async with database.transaction(everybody=True) as session:
            for _ in range(count):
                await append_send(session, a_send(reserved_micros=0), NOW)
        tracemalloc.start()
        found = await verdict(database)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.is_well, found.broken
        return most

    await peak(1_000)  # first of all what is made once
    small, large = await peak(1_000), await peak(2_500)
    assert large < 1.3 * small, (small, large)
