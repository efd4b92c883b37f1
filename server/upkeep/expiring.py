"""Removes what nobody needs any more, each kind after a time of its own; 0 days keep it for ever.

Each kind is removed by statements that stand for themselves, so one that is killed has removed some of it, and the next
run the rest. What is removed of conversations leaves the archive's files as well (forgetting.py does it for whole
conversations; a month of members' answers is one file, which goes).
"""

from datetime import timedelta

from msgspec import Struct
from sqlalchemy import text

from server.upkeep.emptied import drop_empty
from server.upkeep.forgetting import remove_emptied
from server.upkeep.jobs import Turn
from server.upkeep.parted import TABLES, smallest_id
from server.upkeep.settling import midnight
from server.upkeep.shelf import Shelf

BATCH = 200
RUNS = next(table for table in TABLES if table.name == "council_runs")
MEMBERS = next(table for table in TABLES if table.name == "member_answers")


class Keeps(Struct, frozen=True, kw_only=True):
    """How many days each kind is kept.

    Attributes:
        logins: after they ended: sessions of browsers, set-up links, questions of the cloud that nobody said yes to.
        conversations: after the last message; pinned ones stay.
        member_answers: of single members of councils; the answers that were made of them stay.
    """

    council_runs: int
    audit: int
    logins: int
    conversations: int
    member_answers: int


# A run stays as long as a request of it is kept one by one: reports tell its name.
_RUNS = (
    "DELETE FROM council_runs WHERE started_at < :before"
    " AND NOT EXISTS (SELECT FROM usage WHERE usage.council_id = council_runs.id)"
)
_AUDIT = "DELETE FROM audit_log WHERE at < :before"
_LOGINS = (
    ("login sessions", "DELETE FROM login_sessions WHERE expires_at < :before"),
    ("set-up links", "DELETE FROM setup_tokens WHERE expires_at < :before"),
    ("questions", "DELETE FROM cloud_consents WHERE expires_at < :before AND used_at IS NULL"),
)
_OLD_CHATS = text(
    "SELECT id FROM conversations WHERE updated_at < :before AND pinned_at IS NULL ORDER BY id LIMIT :count"
)
_REMOVE_CHATS = (
    "DELETE FROM member_answers WHERE message_id IN (SELECT id FROM messages WHERE conversation_id = ANY(:chats))",
    "DELETE FROM messages WHERE conversation_id = ANY(:chats)",
    "DELETE FROM restored_conversations WHERE conversation_id = ANY(:chats)",
    "DELETE FROM conversations WHERE id = ANY(:chats)",
)
_MEMBERS = (
    "DELETE FROM member_answers WHERE id < :smallest"
    " AND NOT EXISTS (SELECT FROM messages WHERE messages.id = message_id AND messages.state = 'streaming')"
)
_MEMBER_FILES = text("SELECT path FROM archives WHERE table_name = 'member_answers' AND ends <= :before AND rows > 0")
_EMPTY_FILES = text(
    "UPDATE archives SET rows = 0 WHERE table_name = 'member_answers' AND ends <= :before AND rows > 0 RETURNING path"
)


async def expire(turn: Turn, shelf: Shelf, keeps: Keeps) -> None:
    """The job. Raises Conflict: a table is in use."""
    today = midnight(turn.clock.now())

    def before(days: int) -> dict[str, object]:
        time = today - timedelta(days=days)
        return {"before": time, "smallest": smallest_id(time)}

    if keeps.logins:
        for what, statement in _LOGINS:
            await _remove(turn, what, statement, before(keeps.logins))
    if keeps.council_runs:
        await _remove(turn, "council runs", _RUNS, before(keeps.council_runs))
        await drop_empty(turn, RUNS, today - timedelta(days=keeps.council_runs))
    if keeps.audit:
        await _remove(turn, "lines of the audit log", _AUDIT, before(keeps.audit))
    if keeps.conversations:
        await _remove_chats(turn, before(keeps.conversations))
    if keeps.member_answers:
        await _remove(turn, "answers of members", _MEMBERS, before(keeps.member_answers))
        await _remove_member_files(turn, shelf, before(keeps.member_answers))
        await drop_empty(turn, MEMBERS, today - timedelta(days=keeps.member_answers))


async def _remove(turn: Turn, what: str, statement: str, values: dict[str, object]) -> None:
    if turn.is_dry:
        counting = statement.replace("DELETE FROM", "SELECT count(*) FROM", 1)
        async with turn.connection.begin():
            count = await turn.connection.scalar(text(counting), _named(counting, values))
        turn.tell(f"would remove {count} {what}")
        return
    async with turn.connection.begin():
        gone = await turn.connection.execute(text(statement), _named(statement, values))
    if gone.rowcount:
        turn.tell(f"removed {gone.rowcount} {what}")


def _named(statement: str, values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if f":{name}" in statement}


async def _remove_chats(turn: Turn, values: dict[str, object]) -> None:
    """Some at a time, each with all that belongs to it."""
    count = 0
    while True:
        async with turn.connection.begin():
            chats = (
                await turn.connection.scalars(_OLD_CHATS, {"before": values["before"], "count": BATCH})
            ).all()  # fmt: skip
            if turn.is_dry or not chats:
                break
            for statement in _REMOVE_CHATS:
                await turn.connection.execute(text(statement), {"chats": chats})
        count += len(chats)
        turn.tell(f"removed {count} conversations")
    if turn.is_dry and chats:
        turn.tell(f"would remove {len(chats)} conversations{' and more' if len(chats) == BATCH else ''}")


async def _remove_member_files(turn: Turn, shelf: Shelf, values: dict[str, object]) -> None:
    async with turn.connection.begin():
        files = await turn.connection.scalars(
            _MEMBER_FILES if turn.is_dry else _EMPTY_FILES, {"before": values["before"]}
        )
    for path in files:
        turn.tell(f"would remove {path}" if turn.is_dry else f"removed {path}")
    if not turn.is_dry:
        await remove_emptied(turn, shelf)
