"""Removes a person with everything that is theirs, and says in a receipt what went, what stays, and why.

begin       the person is locked out, and a row of `departures` says that they are to be removed
tables      one table after the other: rows go and the receipt counts them, in one transaction
files       the archive's files are written anew without them (forgetting.py); the receipt knows both SHA-256 of each
the end     what came meanwhile, usage, their name in the audit log, and the person: in one transaction

Killed at any point, it goes on where it was: what was done is in the receipt already, and what was not is done by the
next run, which finds no rows where there are none any more. What is written late (an event of usage that was on its
way, the end of an answer) is removed by the job in the days after that.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct, field
from sqlalchemy import text

from server.clock import uuid7
from server.db.models import Base
from server.db.models.retention import NOBODY
from server.errors import Unavailable
from server.upkeep.forgetting import Rewritten, forget
from server.upkeep.jobs import Turn
from server.upkeep.parted import TABLES, smallest_id
from server.upkeep.settling import midnight, settle
from server.upkeep.shelf import Shelf
from server.upkeep.summing import LEAVE_SUMS

# What is written after a person has gone was on its way for less than this.
LATE_DAYS = 30
COMMAND_LINE = "command line"

# Sums of people who left stay, or go, by what was asked; the ledger of what left this box is only added to.
_KEPT = ("usage", "usage_days", "egress")
# First what points to others, without foreign keys.
_FIRST = ("member_answers", "messages", "restored_conversations", "conversations")
_PEOPLES = sorted(name for name, table in Base.metadata.tables.items() if "user_id" in table.c and name not in _KEPT)
REMOVED = (*_FIRST, *(name for name in _PEOPLES if name not in _FIRST))
_PARTED = {table.name: table.by for table in TABLES}
_WHERE = {
    "restored_conversations": "conversation_id IN (SELECT id FROM conversations WHERE user_id = :person)",
}

_PENDING = text("SELECT id, person_id, asked_by, keeps_usage FROM departures WHERE done_at IS NULL ORDER BY id")
_LATE = text("SELECT id, person_id, asked_at, keeps_usage FROM departures WHERE done_at > :since ORDER BY id")
_COUNT = text(
    "UPDATE departures SET done = jsonb_set(done, ARRAY[:part, :name], to_jsonb("
    "coalesce((done #>> ARRAY[:part, :name])::bigint, 0) + CAST(:count AS bigint))) WHERE id = :id"
)
_FILE = text(
    "UPDATE departures SET done = jsonb_set(done, '{files}', (done -> 'files') || CAST(:file AS jsonb)) WHERE id = :id"
)
_PROBLEMS = text("UPDATE departures SET done = jsonb_set(done, '{problems}', CAST(:problems AS jsonb)) WHERE id = :id")
_END = text(
    "UPDATE departures SET done_at = :now, done = jsonb_set(done, '{kept}', CAST(:kept AS jsonb)) WHERE id = :id"
)
_NAME = text("SELECT name FROM users WHERE id = :person")
_NOBODYS = text("UPDATE usage SET user_id = :nobody, key_id = NULL WHERE user_id = :person AND request_id >= :since")
_NO_USAGE = text("DELETE FROM usage WHERE user_id = :person AND request_id >= :since")
_NO_SUMS = text("DELETE FROM usage_days WHERE user_id = :person")
_RENAME = text(
    "UPDATE audit_log SET actor_name = CASE WHEN actor_id = :person THEN :alias ELSE actor_name END,"
    " subject = CASE WHEN subject_id = :person THEN replace(subject, :name, :alias) ELSE subject END"
    " WHERE actor_id = :person OR subject_id = :person"
)
_WRITE_DOWN = text(
    "INSERT INTO audit_log (id, at, actor_id, actor_name, action, subject, subject_id, after) VALUES (:entry, :now,"
    " CAST(:actor AS uuid), coalesce((SELECT name FROM users WHERE id = CAST(:actor AS uuid)), :otherwise),"
    " 'user.remove', :subject, :person, CAST(:after AS jsonb))"
)
_REMOVE = text("DELETE FROM users WHERE id = :person")
_EGRESS = text("SELECT count(*) FROM egress WHERE user_id = :person")
_SET_BY = text(
    "SELECT (SELECT count(*) FROM quotas WHERE updated_by = :person)"
    " + (SELECT count(*) FROM councils WHERE updated_by = :person)"
    " + (SELECT count(*) FROM prices WHERE set_by = :person)"
)
_EPOCH_ID = UUID(int=0)


class Kept(Struct, frozen=True):
    """What stays of a person; `rows` is None where that is not counted."""

    what: str
    rows: int | None
    why: str


class Done(Struct, frozen=True, kw_only=True):
    """What was done of a removal so far.

    Attributes:
        tables: rows that were removed, by table.
        changed: rows that stay and are nobody's now, by table.
        late: what was written after that, and was removed or made nobody's.
        problems: why it could not go on; it is tried again.
    """

    tables: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    files: list[Rewritten] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def depart(turn: Turn, shelf: Shelf) -> None:
    """The job: everybody who is to be removed, and what was written late of those who were.

    Raises:
        Unavailable: a file of the archive is missing or was changed; that person's removal waits for it.
    """
    async with turn.connection.begin():
        pending = (await turn.connection.execute(_PENDING)).all()
    problem: Unavailable | None = None
    for one in pending:
        if turn.is_dry:
            turn.tell(f"would remove {one.person_id}")
            continue
        try:
            await _depart(turn, shelf, one)
        except Unavailable as error:
            problem = error
    await _sweep(turn)
    if not pending:
        turn.tell("nobody is to be removed")
    if problem is not None:
        raise problem


async def _depart(turn: Turn, shelf: Shelf, one: Any) -> None:  # noqa: ANN401 (a row)
    for table in REMOVED:
        async with turn.connection.begin():
            await _remove(turn, one, table, part="tables")
    turn.tell(f"removed the rows of {one.person_id}")

    async def note(file: Rewritten) -> None:
        await turn.connection.execute(_FILE, {"id": one.id, "file": _json([file])})

    told = await forget(turn, shelf, people={one.person_id}, note=note)
    async with turn.connection.begin():
        await turn.connection.execute(_PROBLEMS, {"id": one.id, "problems": _json(told.problems)})
    if told.problems:
        raise Unavailable(
            f"The removal of {one.person_id} waits: {told.problems[0]}", code="removal_waits", retry_after_s=3600
        )
    if not one.keeps_usage:
        # What the others had beside them does not change by this.
        await settle(turn, midnight(turn.clock.now()))
    async with turn.connection.begin():
        for table in REMOVED:
            await _remove(turn, one, table, part="tables")
        await _end(turn, one)
    turn.tell(f"{one.person_id} is removed; the receipt is {one.id}")


async def _remove(turn: Turn, one: Any, table: str, *, part: str, since: UUID = _EPOCH_ID) -> None:  # noqa: ANN401
    where, values = _WHERE.get(table, "user_id = :person"), {"person": one.person_id}
    if table in _PARTED:  # so that months of long ago are not looked at for what came late
        where, values = f"{where} AND {_PARTED[table]} >= :since", values | {"since": since}
    gone = await turn.connection.execute(text(f"DELETE FROM {table} WHERE {where}"), values)  # noqa: S608 (names of ours)
    await _count(turn, one, part, table, gone.rowcount)


async def _count(turn: Turn, one: Any, part: str, name: str, count: int) -> None:  # noqa: ANN401
    if count:
        await turn.connection.execute(_COUNT, {"id": one.id, "part": part, "name": name, "count": count})


async def _end(turn: Turn, one: Any) -> None:  # noqa: ANN401
    """The last step, in the caller's transaction."""
    run, now, person = turn.connection.execute, turn.clock.now(), one.person_id
    kept = await _usage(turn, one)
    who = {"person": person, "alias": (alias := f"removed-{one.id.hex[-8:]}")}
    if (name := await turn.connection.scalar(_NAME, {"person": person})) is not None:
        lines = (await run(_RENAME, who | {"name": name})).rowcount
        await _count(turn, one, "changed", "audit_log", lines)
        if lines:
            kept.append(Kept("audit_log", lines, f"Who changed what stays; their name is {alias} there."))
    if rows := await turn.connection.scalar(_EGRESS, {"person": person}):
        why = (
            "Only added to, and each row holds the hash of the one before. No text is in it, and no name: a random id."
        )
        kept.append(Kept("egress", rows, why))
    if rows := await turn.connection.scalar(_SET_BY, {"person": person}):
        kept.append(Kept("quotas, councils, prices", rows, "What an admin set stays in force; by whom: a random id."))
    kept.append(Kept("budgets in Redis", None, "Counters of this month under a random id, without a name."))
    kept.append(Kept("backups", None, "Those that were made before hold everything. They are files of yours."))
    await _count(turn, one, "tables", "users", (await run(_REMOVE, {"person": person})).rowcount)
    is_own = one.asked_by == person
    await run(
        _WRITE_DOWN,
        {
            "entry": uuid7(now), "now": now, "person": person, "actor": one.asked_by, "subject": f"user {alias}",
            "otherwise": alias if is_own else COMMAND_LINE, "after": _json({"receipt": one.id}),
        },
    )  # fmt: skip
    await run(_END, {"id": one.id, "now": now, "kept": _json(kept)})


async def _usage(turn: Turn, one: Any, *, part: str = "changed", since: UUID = _EPOCH_ID) -> list[Kept]:  # noqa: ANN401
    """Make usage nobody's, or remove it."""
    run, who = turn.connection.execute, {"person": one.person_id}
    if not one.keeps_usage:
        part = "late" if part == "late" else "tables"
        await _count(turn, one, part, "usage", (await run(_NO_USAGE, who | {"since": since})).rowcount)
        await _count(turn, one, part, "usage_days", (await run(_NO_SUMS, who)).rowcount)
        return []
    rows = (await run(_NOBODYS, who | {"since": since, "nobody": NOBODY})).rowcount
    await _count(turn, one, part, "usage", rows)
    sums = (await run(LEAVE_SUMS, who | {"nobody": NOBODY})).scalar_one()
    await _count(turn, one, part, "usage_days", sums)
    why = "What the box was used for stays as sums of days, under no person and no key."
    return [Kept(name, count, why) for name, count in (("usage", rows), ("usage_days", sums)) if count]


async def _sweep(turn: Turn) -> None:
    async with turn.connection.begin():
        gone = await turn.connection.execute(_LATE, {"since": turn.clock.now() - timedelta(days=LATE_DAYS)})
        late = gone.all()
    for one in late:
        if turn.is_dry:
            continue
        # Ids are made by clocks that may be wrong.
        since = smallest_id(one.asked_at - timedelta(days=1))
        async with turn.connection.begin():
            for table in REMOVED:
                await _remove(turn, one, table, part="late", since=since)
            await _usage(turn, one, part="late", since=since)


def begun(gone: Mapping[str, int]) -> Mapping[str, Any]:
    """What a receipt says at first: what went with locking the person out."""
    told: Mapping[str, Any] = msgspec.to_builtins(Done(tables={table: count for table, count in gone.items() if count}))
    return told


def done_of(stored: Mapping[str, Any]) -> Done:
    """What a row of `departures` says."""
    return msgspec.convert(stored, Done)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
