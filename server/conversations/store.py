"""Conversations and their messages, as their person reads and changes them."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Select, case, delete, func, select, update

from server.clock import Clock, uuid7
from server.conversations.answers import Answers
from server.conversations.recorder import INTERRUPTED, Recorder, ended, is_stale, no_conversation, no_message
from server.conversations.remote import watched
from server.conversations.transcript import Part
from server.db.models import Conversation, MemberAnswer, Message
from server.db.session import Database
from server.upkeep.restoring import Archive

MESSAGES_MAX = 500
MESSAGES_BYTES_MAX = 8 * 1024 * 1024


class Said(Struct, frozen=True):
    """What one member of a council said."""

    label: str
    model: str
    role: str
    content: str
    state: str
    output_tokens: int | None


class Opened(Struct, frozen=True):
    """A conversation and a page of its messages, by id.

    Attributes:
        messages: the fields of each row.
        members: what the members of councils said, by message.
        has_more: there are older messages.
    """

    conversation: Conversation
    messages: Sequence[dict[str, Any]]
    members: dict[UUID, list[Said]]
    has_more: bool


class Change(Struct, frozen=True):
    """What is to change; None stays as it is, of `cloud` UNSET."""

    title: str | None = None
    is_pinned: bool | None = None
    leaf_id: UUID | None = None
    cloud: str | UnsetType | None = UNSET


class Conversations:
    """Those of everybody, each for its person only."""

    def __init__(
        self, database: Database, answers: Answers, recorder: Recorder, archive: Archive, clock: Clock
    ) -> None:
        self._database = database
        self._archive = archive
        self._recorder = recorder
        self._answers = answers
        self._clock = clock

    async def create(self, user_id: UUID, *, title: str, model: str, cloud: str | None = None) -> Conversation:
        """Begin one."""
        now = self._clock.now()
        conversation = Conversation(
            id=uuid7(now),
            user_id=user_id,
            title=title,
            model=model,
            leaf_id=None,
            pinned_at=None,
            created_at=now,
            updated_at=now,
            imported_from=None,
            cloud=cloud,
        )
        async with self._database.transaction(of=user_id) as session:
            session.add(conversation)
        return conversation

    async def open(self, user_id: UUID, conversation_id: UUID, *, before: UUID | None = None) -> Opened:
        """One, with its newest messages, or the newest of those before one. Raises NotFound."""
        # Asked first: one whose end is written in between has it in memory as well.
        running = self._answers.running_in(user_id, conversation_id)
        await self._archive.restore(user_id, conversation_id)
        async with self._database.transaction(of=user_id) as session:
            conversation = await session.get(Conversation, conversation_id)
            if conversation is None:
                raise no_conversation()
            rows = (await session.execute(page_of(conversation_id, before=before))).mappings().all()
            messages = [dict(row) for row in rows[:MESSAGES_MAX] if row["fits"]]
            members: dict[UUID, list[Said]] = {}
            if councils := [row["id"] for row in messages if row["council"] is not None]:
                query = select(MemberAnswer).where(
                    MemberAnswer.message_id.in_(councils), MemberAnswer.id >= conversation_id
                )
                for member in await session.scalars(query.order_by(MemberAnswer.id)):
                    members.setdefault(member.message_id, []).append(_said(member))
            stale = [row for row in messages if row["is_stale"] and row["id"] not in running]
            if stale:
                await session.execute(interrupted([row["id"] for row in stale]))
        for row in stale:
            row.update(state="interrupted", problem=INTERRUPTED)
        for row in messages:
            if (own := running.get(row["id"])) is not None:
                transcript = await own.read()
                row.update(ended(own, transcript))
                members[own.id] = [_heard(part) for part in transcript.parts if part.role != "chair"]
        messages.reverse()
        return Opened(conversation, messages, members, len(messages) < len(rows))

    async def change(self, user_id: UUID, conversation_id: UUID, change: Change) -> Conversation:
        """Rename, pin, look at another branch, or say what may leave. Does not count as news. Raises NotFound.

        What may leave holds from the commit on, also for a question that waits (server/cloud/sending.py).
        """
        async with self._database.transaction(of=user_id) as session:
            conversation = await session.get(Conversation, conversation_id)
            if conversation is None:
                raise no_conversation()
            if change.title is not None:
                conversation.title = change.title
            if change.is_pinned is not None:
                kept = conversation.pinned_at or self._clock.now()
                conversation.pinned_at = kept if change.is_pinned else None
            if change.leaf_id is not None:
                query = select(Message.id).where(
                    Message.id == change.leaf_id, Message.conversation_id == conversation_id
                )
                if await session.scalar(query) is None:
                    raise no_message()
                conversation.leaf_id = change.leaf_id
            if change.cloud is not UNSET:
                conversation.cloud = change.cloud
        return conversation

    async def remove(self, user_id: UUID, conversation_id: UUID) -> None:
        """Remove it with all that is in it. Raises NotFound."""
        async with self._database.transaction(of=user_id) as session:
            if await session.get(Conversation, conversation_id) is None:
                raise no_conversation()
        await self._answers.remove(user_id, conversation_id)
        async with self._database.transaction(of=user_id) as session:
            own = (Message.conversation_id == conversation_id, Message.id >= conversation_id)
            said = MemberAnswer.message_id.in_(select(Message.id).where(*own))
            await session.execute(delete(MemberAnswer).where(said, MemberAnswer.id >= conversation_id))
            await session.execute(delete(Message).where(*own))
            await session.execute(delete(Conversation).where(Conversation.id == conversation_id))

    async def message(self, user_id: UUID, conversation_id: UUID, message_id: UUID) -> Message:
        """One message, as its row says. Raises NotFound."""
        async with self._database.transaction(of=user_id) as session:
            found = await session.get(Message, message_id)
            if found is None or found.conversation_id != conversation_id:
                raise no_message()
            stale = select(is_stale()).where(Message.id == message_id)
            is_dead = found.state == "streaming" and bool(await session.scalar(stale))
            if is_dead:
                await session.execute(interrupted([message_id]))
        if is_dead:
            found.state, found.problem = "interrupted", INTERRUPTED
        return found

    async def stop(self, user_id: UUID, conversation_id: UUID, answer_id: UUID) -> None:
        """Stop an answer, here or in another replica; one that has ended stays as it is. Raises NotFound."""
        running = self._answers.find(answer_id, user_id)
        if running is not None and running.conversation_id == conversation_id:
            await self._answers.stop(running)
            return
        row = await self.message(user_id, conversation_id, answer_id)
        if row.state == "streaming":
            await self._recorder.stop(user_id, answer_id)

    def watch(self, row: Message) -> AsyncGenerator[bytes, None]:
        """The stream of an answer that runs in another replica, by what its row says every second."""
        return watched(row, lambda: self.message(row.user_id, row.conversation_id, row.id), self._clock)


def _said(row: MemberAnswer) -> Said:
    return Said(row.label, row.model, row.role, row.content, row.state, row.output_tokens)


def _heard(part: Part) -> Said:
    return Said(part.label, part.model, part.role, part.text, part.state, part.output_tokens)


def page_of(conversation_id: UUID, *, before: UUID | None = None) -> Select[Any]:
    """The newest messages, newest first; one more than a page. Those that are too much text come without (`fits`)."""
    size = func.octet_length(Message.content) + func.octet_length(Message.thinking)
    taken = func.sum(size).over(order_by=Message.id.desc()) - size
    columns = {column.name: column for column in Message.__table__.columns}
    inner = select(
        *columns.values(),
        (is_stale() & (Message.state == "streaming")).label("is_stale"),
        (taken < MESSAGES_BYTES_MAX).label("fits"),
    ).where(Message.conversation_id == conversation_id, Message.id >= conversation_id)
    if before is not None:
        inner = inner.where(Message.id < before)
    rows = inner.order_by(Message.id.desc()).limit(MESSAGES_MAX + 1).subquery()
    texts = {name: case((rows.c.fits, rows.c[name])).label(name) for name in ("content", "thinking", "council")}
    return select(*(texts.get(column.name, column) for column in rows.c)).order_by(rows.c.id.desc())


def interrupted(message_ids: Sequence[UUID]) -> Any:  # noqa: ANN401 (a statement)
    """Write down that nobody writes these any more."""
    return (
        update(Message)
        .where(Message.id.in_(message_ids), Message.state == "streaming", is_stale())
        .values(state="interrupted", problem=INTERRUPTED)
    )
