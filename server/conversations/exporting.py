"""A conversation as a file: JSON with everything that there is of it, or the branch that is looked at, in Markdown.

Both are written page by page, oldest first, so that a long conversation does not fill the memory.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from urllib.parse import quote
from uuid import UUID

import msgspec
from sqlalchemy import func, select

from server.conversations.branches import Node, branch_to
from server.conversations.formats import OURS, VERSION
from server.conversations.recorder import no_conversation
from server.db.models import Conversation, MemberAnswer, Message
from server.db.session import Database
from server.upkeep.restoring import Archive

PAGE_MESSAGES = 500
PAGE_BYTES = 4 * 1024 * 1024
FIELDS = (
    *(
        "id",
        "parent_id",
        "role",
        "content",
        "thinking",
        "model",
        "state",
        "problem",
        "council",
        "cloud",
        "finish_reason",
    ),
    *("input_tokens", "output_tokens", "first_token_ms", "total_ms", "created_at"),
)
SPOKEN = ("label", "model", "role", "content", "state", "output_tokens")
NAMES = {"user": "You", "assistant": "Answer", "system": "System"}
UNSAFE = re.compile(r"[^A-Za-z0-9 ._-]+")


class Exporter:
    """Exports conversations."""

    def __init__(self, database: Database, archive: Archive) -> None:
        self._database = database
        self._archive = archive

    async def find(self, user_id: UUID, conversation_id: UUID) -> tuple[Conversation, list[Node]]:
        """A conversation and its messages without their text, by id. Raises NotFound."""
        await self._archive.restore(user_id, conversation_id)
        async with self._database.transaction(of=user_id) as session:
            conversation = await session.get(Conversation, conversation_id)
            if conversation is None:
                raise no_conversation()
            size = func.octet_length(Message.content) + func.octet_length(Message.thinking)
            rows = await session.execute(
                select(Message.id, Message.parent_id, Message.role, Message.state, size)
                .where(Message.conversation_id == conversation_id, Message.id >= conversation_id)
                .order_by(Message.id)
            )
            return conversation, [Node(*row) for row in rows]

    async def json(self, conversation: Conversation, nodes: Sequence[Node]) -> AsyncGenerator[bytes, None]:
        """All branches, with what the members of councils said. The import reads it."""
        head = {
            "format": OURS,
            "version": VERSION,
            "title": conversation.title,
            "model": conversation.model,
            "pinned": conversation.pinned_at is not None,
            "cloud": conversation.cloud,
            "leaf_id": conversation.leaf_id,
            "created_at": conversation.created_at,
            "updated_at": conversation.updated_at,
        }
        yield msgspec.json.encode(head)[:-1] + b',"messages":['
        comma = b"\n"
        for page in _pages(nodes):
            rows, members = await self._read(conversation, page)
            for row in rows:
                told = {name: getattr(row, name) for name in FIELDS}
                told["members"] = [{name: getattr(each, name) for name in SPOKEN} for each in members.get(row.id, ())]
                yield comma + msgspec.json.encode(told)
                comma = b",\n"
        yield b"\n]}\n"

    async def markdown(self, conversation: Conversation, nodes: Sequence[Node]) -> AsyncGenerator[bytes, None]:
        """The branch that is looked at, for people."""
        by_id = {node.id: node for node in nodes}
        leaf = conversation.leaf_id if conversation.leaf_id in by_id else nodes[-1].id if nodes else None
        yield f"# {conversation.title or 'Conversation'}\n".encode()
        for page in _pages(branch_to(leaf, by_id) if leaf is not None else []):
            rows, _ = await self._read(conversation, page)
            for row in rows:
                by = f", by {row.cloud.get('provider')}" if row.cloud is not None else ""
                model = f" ({row.model}{by})" if row.model else ""
                about = (
                    "" if row.state == "complete" else f"\n\n*{row.state}{f': {row.problem}' if row.problem else ''}*"
                )
                yield f"\n## {NAMES[row.role]}{model}\n\n{row.content}{about}\n".encode()

    async def _read(
        self, conversation: Conversation, page: Sequence[Node]
    ) -> tuple[Sequence[Message], dict[UUID, list[MemberAnswer]]]:
        ids = [node.id for node in page]
        members: dict[UUID, list[MemberAnswer]] = {}
        async with self._database.transaction(of=conversation.user_id) as session:
            rows = (await session.scalars(select(Message).where(Message.id.in_(ids)).order_by(Message.id))).all()
            if councils := [row.id for row in rows if row.council is not None]:
                query = select(MemberAnswer).where(
                    MemberAnswer.message_id.in_(councils), MemberAnswer.id >= conversation.id
                )
                for each in await session.scalars(query.order_by(MemberAnswer.id)):
                    members.setdefault(each.message_id, []).append(each)
        return rows, members


def _pages(nodes: Sequence[Node]) -> list[list[Node]]:
    pages: list[list[Node]] = []
    size = PAGE_BYTES
    for node in nodes:
        if size >= PAGE_BYTES or len(pages[-1]) >= PAGE_MESSAGES:
            pages.append([])
            size = 0
        pages[-1].append(node)
        size += node.size_bytes
    return pages


def disposition(conversation: Conversation, ending: str) -> str:
    """The Content-Disposition of its file: a plain name for old clients, the title for the others (RFC 6266)."""
    title = conversation.title.replace("/", "-") or "conversation"
    plain = UNSAFE.sub("", title).strip()[:80] or "conversation"
    full = quote(f"{title[:80]}.{ending}", safe="")
    return f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{full}"
