"""The list of one's conversations, page by page, and the search in them.

The order is: pinned ones first, then by `updated_at`, the newest first, then by id. A cursor is the place of the last
one of a page in that order; a conversation that is changed meanwhile moves to the front, and no other is shown twice or
left out. Without a search only the table of conversations is read, by its index.

A search finds a conversation by its title or by any of its messages, with the words of Postgres' `websearch_to_tsquery`
(quotes, OR, minus), which takes any text. Each hit shows an excerpt of its newest message that was found.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    Uuid,
    case,
    cast,
    column,
    desc,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations.texts import storable
from server.db.models import Conversation, Message
from server.db.models.conversation import SEARCHED_CHARS
from server.db.session import Database
from server.errors import InvalidRequest

PAGE_MAX = 100
SEARCH_CHARS_MAX = 500
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(r"([01])\.(-?\d{1,18})\.([0-9a-f]{32})")
HEADLINE = "StartSel=«, StopSel=», MaxWords=24, MinWords=8, ShortWord=0, MaxFragments=1"
SIMPLE = text("'simple'")


class Place(Struct, frozen=True):
    """A conversation's place in the list."""

    is_pinned: bool
    updated_at: datetime
    id: UUID


class Listed(Struct, frozen=True):
    """A page, and the cursor of the next one.

    Attributes:
        found: each with its excerpt, where it was searched for.
    """

    found: Sequence[tuple[Conversation, str | None]]
    next: str | None


def cursor_of(place: Place) -> str:
    """The place as clients carry it."""
    micros = (place.updated_at - EPOCH) // timedelta(microseconds=1)
    return urlsafe_b64encode(f"{int(place.is_pinned)}.{micros}.{place.id.hex}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """What `cursor_of` wrote. Raises InvalidRequest."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        found = CURSOR.fullmatch(raw)
        at = EPOCH + timedelta(microseconds=int(found[2])) if found else EPOCH
    except (ValueError, OverflowError):
        found, at = None, EPOCH
    if found is None:
        raise InvalidRequest("before: this is no `next` of a page of conversations.", code="bad_cursor", param="before")
    return Place(found[1] == "1", at, UUID(found[3]))


class Listing:
    """Lists conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, user_id: UUID, *, search: str | None = None, before: str | None = None, count_max: int = PAGE_MAX
    ) -> Listed:
        """A page of one's conversations. Raises InvalidRequest."""
        place = None if before is None else place_of(before)
        words = None if search is None else storable(search, "search").strip()
        if words and len(words) > SEARCH_CHARS_MAX:
            raise InvalidRequest(f"search: it may have {SEARCH_CHARS_MAX} characters.", param="search")
        count_max = min(count_max, PAGE_MAX)
        async with self._database.transaction(of=user_id) as session:
            if words:
                found = await session.execute(_found(user_id, words, place).limit(count_max + 1))
                hits = [(row[0], row[1]) for row in found]
                rows = [row for row, _ in hits]
                excerpts = await _excerpts(session, hits[:count_max], words)
            else:
                rows, excerpts = await _rows(session, user_id, place, count_max + 1), {}
        page = rows[:count_max]
        last = _place(page[-1]) if len(rows) > count_max else None
        return Listed([(row, excerpts.get(row.id)) for row in page], None if last is None else cursor_of(last))


def _place(row: Conversation) -> Place:
    return Place(row.pinned_at is not None, row.updated_at, row.id)


async def _rows(session: AsyncSession, user_id: UUID, place: Place | None, count: int) -> list[Conversation]:
    """First the pinned ones, then the others: two queries that an index answers, where one would have to sort."""
    rows: list[Conversation] = []
    for is_pinned in (True, False):
        if len(rows) == count or (is_pinned and place is not None and not place.is_pinned):
            continue
        pinned = Conversation.pinned_at.is_not(None) if is_pinned else Conversation.pinned_at.is_(None)
        query = select(Conversation).where(Conversation.user_id == user_id, pinned)
        if place is not None and place.is_pinned == is_pinned:
            at = tuple_(literal(place.updated_at), literal(place.id))
            query = query.where(tuple_(Conversation.updated_at, Conversation.id) < at)
        query = query.order_by(desc(Conversation.updated_at), desc(Conversation.id))
        rows += await session.scalars(query.limit(count - len(rows)))
    return rows


def _question(words: str) -> ColumnElement[Any]:
    return func.websearch_to_tsquery(SIMPLE, words)


def _searched() -> ColumnElement[Any]:
    return func.left(Message.content, text(str(SEARCHED_CHARS)))


def _found(user_id: UUID, words: str, place: Place | None) -> Select[Conversation, UUID | None]:
    """Conversations, each with the newest of its messages that was found. An answer that grows is not searched.

    `found_messages` (migration 0009) looks into the full-text index for the person of the transaction. A query of ours
    could not: row-level security keeps operators from an index that may tell of rows which the policy has not seen yet.
    """
    each = func.found_messages(words).table_valued(column("conversation_id", Uuid), column("message_id", Uuid))
    # There is no max() of ids in Postgres; as text they have the same order.
    newest = cast(func.max(cast(each.c.message_id, Text)), Uuid).label("message_id")
    hits = select(each.c.conversation_id, newest).group_by(each.c.conversation_id).cte("hits")
    titled = func.to_tsvector(SIMPLE, Conversation.title).bool_op("@@")(_question(words))
    is_pinned = case((Conversation.pinned_at.is_not(None), 1), else_=0)
    query = (
        select(Conversation, hits.c.message_id)
        .outerjoin(hits, hits.c.conversation_id == Conversation.id)
        .where(Conversation.user_id == user_id, or_(hits.c.message_id.is_not(None), titled))
    )
    if place is not None:
        at = tuple_(literal(int(place.is_pinned)), literal(place.updated_at), literal(place.id))
        query = query.where(tuple_(is_pinned, Conversation.updated_at, Conversation.id) < at)
    return query.order_by(desc(is_pinned), desc(Conversation.updated_at), desc(Conversation.id))


async def _excerpts(
    session: AsyncSession, hits: Sequence[tuple[Conversation, UUID | None]], words: str
) -> dict[UUID, str]:
    """By conversation: of its message, or of its title where only that was found."""
    found: dict[UUID, str] = {}
    messages = [message for _, message in hits if message is not None]
    titles = [row.id for row, message in hits if message is None]
    of_message = func.ts_headline(SIMPLE, _searched(), _question(words), HEADLINE)
    of_title = func.ts_headline(SIMPLE, Conversation.title, _question(words), HEADLINE)
    for query in (
        select(Message.conversation_id, of_message).where(Message.id.in_(messages)),
        select(Conversation.id, of_title).where(Conversation.id.in_(titles)),
    ):
        found.update({row[0]: row[1] for row in await session.execute(query)})
    return found
