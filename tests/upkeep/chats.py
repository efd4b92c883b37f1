"""People with conversations, written by the app as they are."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert, select, text

from server.clock import uuid7
from server.db.models import Conversation, MemberAnswer, Message
from server.db.session import Database

# Nothing of this may change on the way there and back.
TEXTS = (
    "secret of {who}",
    "",
    "Grüße, 你好 🙂\n\t\"quoted\" \\u0000 'single' {braces}",
    "\ud7ff\ue000\U0010ffff\x01\x7f",
    "long " * 5_000,
)
COUNCIL = {"name": "council:2", "numbers": [1, 2.5, -3e300, 12345678901234567890], "none": None, "text": 'a "b" \\ 🙂'}


async def add_person(database: Database) -> UUID:
    """Somebody."""
    who = uuid4()
    async with database.transaction() as session:
        await session.execute(
            text("INSERT INTO users VALUES (:id, :name, 'member', NULL, now(), NULL)"), {"id": who, "name": str(who)}
        )
    return who


async def add_chat(database: Database, who: UUID, at: datetime, count: int = 5) -> UUID:
    """A conversation of that time; every second message is an answer, of a council."""
    chat = uuid7(at)
    times = [at + timedelta(milliseconds=index + 1) for index in range(count)]
    messages = [_message(who, chat, time, index) for index, time in enumerate(times)]
    members = [
        {
            "id": uuid7(message["created_at"]),
            "message_id": message["id"],
            "conversation_id": chat,
            "user_id": who,
            "label": "A",
            "model": "m",
            "role": "member",
            "content": message["content"],
            "state": "complete",
            "output_tokens": 3,
        }
        for message in messages
        if message["council"] is not None
    ]
    async with database.transaction(of=who) as session:
        session.add(
            Conversation(id=chat, user_id=who, title="t", model="m", created_at=at, updated_at=at, imported_from=None)
        )
        await session.flush()
        await session.execute(insert(Message), messages)
        if members:
            await session.execute(insert(MemberAnswer), members)
    return chat


def _message(who: UUID, chat: UUID, time: datetime, index: int) -> dict[str, Any]:
    is_answer = index % 2 == 1
    return {
        "id": uuid7(time),
        "conversation_id": chat,
        "user_id": who,
        "parent_id": None,
        "role": "assistant" if is_answer else "user",
        "content": TEXTS[index % len(TEXTS)].replace("{who}", str(who)),
        "thinking": "",
        "model": "m",
        "state": "complete",
        "problem": None,
        "request_id": uuid4() if is_answer else None,
        "council": COUNCIL if is_answer else None,
        "finish_reason": "stop" if is_answer else None,
        "input_tokens": None,
        "output_tokens": index,
        "first_token_ms": None,
        "total_ms": 1 << 40,
        "created_at": time,
        "updated_at": time + timedelta(microseconds=1),
    }


async def read(database: Database, who: UUID) -> tuple[Sequence[Any], Sequence[Any]]:
    """All rows of a person, by id, as they see them."""
    async with database.transaction(of=who) as session:
        messages = await session.execute(select(*Message.__table__.columns).order_by(Message.id))
        members = await session.execute(select(*MemberAnswer.__table__.columns).order_by(MemberAnswer.id))
        return messages.all(), members.all()
