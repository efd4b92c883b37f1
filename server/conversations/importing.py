"""Brings conversations in from a file: each by itself, in a transaction of its own, the good ones whatever the others.

Messages get new ids, of now, in their order, so that a partition holds what came in its month; `created_at` is what the
file says. Memory is bounded by the file's size and by that of its largest conversation: the file is cut, not read.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from server.clock import Clock
from server.conversations.drafts import Broken, DraftConversation
from server.conversations.elements import Element, elements
from server.conversations.formats import read, title_in
from server.conversations.ids import id_after
from server.conversations.texts import NAME_CHARS_MAX, mended, title_of
from server.db.models import Conversation, Message
from server.db.session import Database
from server.errors import InvalidRequest, Unavailable

IMPORT_BYTES_MAX = 128 * 1024 * 1024
# Imports of all people at a time, in one replica: each holds its file in memory.
IMPORTS_MAX = 2
# Of one file.
CONVERSATIONS_MAX = 20_000
PROBLEMS_MAX = 200
BATCH = 200

log = structlog.get_logger(__name__)


class Problem(Struct, frozen=True):
    """A conversation that was not imported."""

    title: str
    why: str


class Imported(Struct, frozen=True):
    """What came of a file; of more than PROBLEMS_MAX problems the last one says how many there were."""

    imported: int
    messages: int
    problems: Sequence[Problem]


class Importer:
    """Imports files."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._running = 0

    def enter(self) -> None:
        """Take a place, before the file is read. Raises Unavailable where all are taken."""
        if self._running >= IMPORTS_MAX:
            raise Unavailable(
                "Other files are being imported. Try again in a minute.", code="imports_busy", retry_after_s=30
            )
        self._running += 1

    def leave(self) -> None:
        """Give it back."""
        self._running -= 1

    async def run(self, user_id: UUID, raw: bytes) -> Imported:
        """Import a file.

        Raises:
            InvalidRequest: there is no conversation in it.
            Unavailable: Postgres is away; what was imported before stays.
        """
        imported = messages = 0
        problems: list[Problem] = []
        count = 0
        for element in elements(raw):
            count += 1
            if count > CONVERSATIONS_MAX:
                problems.append(Problem("", f"a file may have {CONVERSATIONS_MAX} conversations; the rest is left out"))
                break
            told: Any = None
            try:
                told = _decoded(element)
                written = await self._write(user_id, read(told))
            except Broken as broken:
                problems.append(Problem(mended(title_in(told))[:NAME_CHARS_MAX], f"{broken}."))
            else:
                imported, messages = imported + 1, messages + written
            # Others are served in between.
            await self._clock.sleep_ms(0)
        if count == 0:
            raise InvalidRequest(
                "This file holds no conversations: it is neither a JSON array nor an object.", code="not_an_export"
            )
        if len(problems) > PROBLEMS_MAX:
            more = Problem("", f"{len(problems) - PROBLEMS_MAX + 1} more could not be imported.")
            problems = [*problems[: PROBLEMS_MAX - 1], more]
        return Imported(imported, messages, problems)

    async def _write(self, user_id: UUID, draft: DraftConversation) -> int:
        now = self._clock.now()
        conversation_id = id_after(now)
        rows = _rows(draft, user_id, conversation_id, now)
        ids = {message.key: row["id"] for message, row in zip(draft.messages, rows, strict=True)}
        models = [row["model"] for row in rows if row["model"]]
        created_at = draft.created_at or rows[0]["created_at"]
        conversation = {
            "id": conversation_id,
            "user_id": user_id,
            "title": _title(draft),
            "model": models[-1] if models else "",
            "leaf_id": ids[draft.leaf] if draft.leaf is not None else None,
            "pinned_at": now if draft.is_pinned else None,
            "cloud": draft.cloud,
            "created_at": created_at,
            # The list is by it: an old conversation does not jump to its front.
            "updated_at": draft.updated_at or created_at,
            "imported_from": draft.source,
        }
        try:
            async with self._database.transaction(of=user_id) as session:
                await session.execute(insert(Conversation), [conversation])
                for begin in range(0, len(rows), BATCH):
                    await session.execute(insert(Message), rows[begin : begin + BATCH])
        except SQLAlchemyError as error:
            log.error("a conversation could not be imported", error=type(error).__name__)
            raise Broken("the database refused it") from error
        return len(rows)


def _decoded(element: Element) -> Any:  # noqa: ANN401 (JSON)
    if element.fault is not None:
        raise Broken(element.fault)
    try:
        return msgspec.json.decode(element.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # half of a surrogate pair, or no JSON
    try:
        return json.loads(bytes(element.raw))
    except (ValueError, RecursionError) as error:
        raise Broken(f"it is no JSON that can be read ({error})") from error


def _title(draft: DraftConversation) -> str:
    title = " ".join(mended(draft.title).split())
    if title:
        return title[:NAME_CHARS_MAX]
    return title_of(next((mended(each.content) for each in draft.messages if each.role == "user"), ""))


def _rows(draft: DraftConversation, user_id: UUID, conversation_id: UUID, now: datetime) -> list[dict[str, Any]]:
    """Its messages, with new ids in their order."""
    ids: dict[str, UUID] = {}
    last = conversation_id
    rows: list[dict[str, Any]] = []
    at = draft.created_at or now
    for message in draft.messages:
        last = ids[message.key] = id_after(now, last)
        at = message.created_at or at
        rows.append(
            {
                "id": last,
                "conversation_id": conversation_id,
                "user_id": user_id,
                "parent_id": None if message.parent is None else ids[message.parent],
                "role": message.role,
                "content": mended(message.content),
                "thinking": mended(message.thinking),
                "model": mended(message.model)[:NAME_CHARS_MAX],
                "state": message.state,
                "created_at": at,
                "updated_at": now,
            }
        )
    return rows
