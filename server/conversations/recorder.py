"""What is written of an answer: when it begins, every two seconds while it grows, and once at its end.

Postgres' clock stamps the rows: it is the one that all replicas share, so each can tell which answers nobody writes any
more. Every statement may be repeated.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.conversations.branches import Node, branch_to, messages_of, told
from server.conversations.ids import id_after
from server.conversations.running import Running
from server.conversations.texts import mended, title_of
from server.conversations.transcript import Part, Transcript
from server.db.models import Conversation, MemberAnswer, Message
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound, TooLarge
from server.upkeep.restoring import Archive

STALE_S = 15
INTERRUPTED = "The server ended in the middle of this answer."
UNFINISHED = ("streaming", "interrupted")


def no_conversation() -> NotFound:
    """What whoever asks for a conversation is told that is not there, or not theirs."""
    return NotFound("You have no such conversation.", code="conversation_not_found")


def no_message() -> NotFound:
    """The same for a message."""
    return NotFound("This conversation has no such message.", code="message_not_found")


class Recorder:
    """Writes answers."""

    def __init__(self, database: Database, clock: Clock, archive: Archive, *, context_bytes_max: int) -> None:
        self._database = database
        self._archive = archive
        self._clock = clock
        self._context_bytes_max = context_bytes_max

    async def context(
        self, user_id: UUID, conversation_id: UUID, leaf_id: UUID | None, question: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The messages of the branch that ends with `leaf_id`, and after it the question, if there is one.

        With them what its person allows of the conversation to leave this box.

        Raises:
            NotFound: there is no such conversation or message.
            Conflict: it is an answer that still grows.
            InvalidRequest: without a question, the leaf has to be one.
            TooLarge: the branch has more text than a request may have.
        """
        await self._archive.restore(user_id, conversation_id)
        async with self._database.transaction(of=user_id) as session:
            conversation = await session.get(Conversation, conversation_id)
            if conversation is None:
                raise no_conversation()
            kept = [] if leaf_id is None else await self._kept(session, conversation_id, leaf_id, question)
            size = sum(node.size_bytes for node in kept) + len((question or "").encode())
            if size > self._context_bytes_max:
                raise TooLarge(
                    f"This branch has {size} bytes of text; a question may have {self._context_bytes_max} with all "
                    "that comes before it. Begin a new conversation.",
                    code="conversation_too_long",
                )
            rows = await session.execute(
                select(Message.id, Message.content).where(
                    Message.id.in_([node.id for node in kept]), Message.id >= conversation_id
                )
            )
            messages = messages_of(kept, {row.id: row.content for row in rows})
        if question is not None:
            messages.append({"role": "user", "content": question})
        return messages, conversation.cloud

    async def _kept(
        self, session: AsyncSession, conversation_id: UUID, leaf_id: UUID, question: str | None
    ) -> list[Node]:
        rows = await session.execute(
            select(
                Message.id, Message.parent_id, Message.role, Message.state, func.octet_length(Message.content)
            ).where(Message.conversation_id == conversation_id, Message.id >= conversation_id)
        )
        nodes = {row[0]: Node(*row) for row in rows}
        if (leaf := nodes.get(leaf_id)) is None:
            raise no_message()
        if question is None and leaf.role != "user":
            raise InvalidRequest("Only a question can be answered; this message is none.", code="no_question")
        if leaf.state == "streaming":
            raise Conflict("This answer still grows. Stop it, or wait for its end.", code="still_running")
        branch = branch_to(leaf_id, nodes)
        # Whatever comes last is told as it is; with a question behind it, an exchange like the others.
        return told(branch) if question is None else told([*branch, Node(leaf_id, None, "user", "complete", 1)])[:-1]

    async def begin(self, running: Running, model: str, *, parent_id: UUID | None, question: str | None) -> None:
        """Write the question, if it is a new one, and the answer's row."""
        now = self._clock.now()
        common: dict[str, Any] = {
            "conversation_id": running.conversation_id,
            "user_id": running.user_id,
            "thinking": "",
            "created_at": now,
            "updated_at": func.now(),
        }
        rows: list[dict[str, Any]] = [
            {"id": running.question_id, "parent_id": parent_id, "role": "user", "content": question, "model": "",
             "state": "complete", "request_id": None},
            {"id": running.id, "parent_id": running.question_id, "role": "assistant", "content": "", "model": model,
             "state": "streaming", "request_id": running.id},
        ]  # fmt: skip
        async with self._database.transaction(of=running.user_id) as session:
            title = {} if question is None else {"title": _if_untitled(title_of(question))}
            changed = await session.execute(
                update(Conversation)
                .where(Conversation.id == running.conversation_id)
                .values(leaf_id=running.id, model=model, updated_at=now, **title)
            )
            if _count(changed) == 0:
                raise no_conversation()
            for row in rows if question is not None else rows[1:]:
                await session.execute(insert(Message).values(**common, **row))

    async def checkpoint(self, running: Running) -> bool:
        """Write what there is; false if there is nothing to write to: it was stopped or removed elsewhere."""
        transcript = await running.read()
        values = {"state": "streaming", "updated_at": func.now(), **_texts(transcript)}
        async with self._database.transaction(of=running.user_id) as session:
            changed = await session.execute(
                update(Message).where(Message.id == running.id, Message.state.in_(UNFINISHED)).values(values)
            )
            return _count(changed) > 0

    async def end(self, running: Running) -> None:
        """Write the whole of it."""
        transcript = await running.read()
        now = self._clock.now()
        async with self._database.transaction(of=running.user_id) as session:
            changed = await session.execute(
                update(Message)
                .where(Message.id == running.id)
                .values(**ended(running, transcript), updated_at=func.now())
            )
            if _count(changed) == 0:
                return  # removed meanwhile
            last = running.id
            members = []
            for part in transcript.parts:
                if part.role != "chair":
                    last = id_after(now, last)
                    members.append(_member(running, last, part))
            known = await session.scalar(
                select(func.count()).where(MemberAnswer.message_id == running.id, MemberAnswer.id >= running.id)
            )
            if members and not known:
                await session.execute(insert(MemberAnswer), members)
            await session.execute(
                update(Conversation).where(Conversation.id == running.conversation_id).values(updated_at=now)
            )

    async def stop(self, user_id: UUID, answer_id: UUID) -> bool:
        """Have an answer stopped that runs in another replica: that finds its row so at its next checkpoint."""
        async with self._database.transaction(of=user_id) as session:
            changed = await session.execute(
                update(Message)
                .where(Message.id == answer_id, Message.state == "streaming")
                .values(state="stopped", updated_at=func.now())
            )
            return _count(changed) > 0


def is_stale() -> Any:  # noqa: ANN401 (a clause)
    """Of a row that says streaming: nobody writes it any more."""
    return Message.updated_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, STALE_S)


def ended(running: Running, transcript: Transcript) -> dict[str, Any]:
    """The fields of an answer's row, as it is now."""
    return {
        **_texts(transcript),
        "state": running.ending or "streaming",
        "problem": None if running.problem is None else mended(running.problem),
        "finish_reason": transcript.finish_reason,
        "input_tokens": transcript.input_tokens,
        "output_tokens": transcript.output_tokens,
        "first_token_ms": transcript.first_token_ms,
        "total_ms": running.total_ms,
    }


def _texts(transcript: Transcript) -> dict[str, Any]:
    return {
        "content": transcript.content,
        "thinking": transcript.thinking,
        "council": transcript.council,
        "cloud": transcript.cloud,
    }


def _member(running: Running, member_id: UUID, part: Part) -> Mapping[str, Any]:
    return {
        "id": member_id,
        "message_id": running.id,
        "conversation_id": running.conversation_id,
        "user_id": running.user_id,
        "label": mended(part.label),
        "model": mended(part.model),
        "role": mended(part.role),
        "content": part.text,
        "state": mended(part.state),
        "output_tokens": part.output_tokens,
    }


def _if_untitled(title: str) -> Any:  # noqa: ANN401 (a clause)
    return func.coalesce(func.nullif(Conversation.title, ""), title)


def _count(result: Any) -> int:  # noqa: ANN401 (SQLAlchemy types it as any result)
    assert isinstance(result, CursorResult)
    return result.rowcount
