"""What conversations look like on the wire."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

# What may leave this box of a conversation; null: what its person says for all (docs/cloud.md).
Cloud = Literal["private", "never", "ask", "pseudonymised", "allow"]


class NewConversation(Struct, forbid_unknown_fields=True):
    """A conversation to be begun; without a title it gets its first question's first line."""

    title: str = ""
    model: str = ""
    cloud: Cloud | None = None


class ConversationChange(Struct, forbid_unknown_fields=True):
    """What is to change; the rest stays.

    Attributes:
        leaf_id: the last message of the branch to be looked at.
        cloud: what may leave this box of it; null: what its person says for all.
    """

    title: str | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    leaf_id: UUID | UnsetType = UNSET
    cloud: Cloud | UnsetType | None = UNSET


class Question(Struct, forbid_unknown_fields=True):
    """A question. One with the same parent as another is a branch beside it.

    Attributes:
        parent_id: the message that it follows; null: it begins the conversation.
        options: fields of a chat completion, such as temperature.
    """

    parent_id: UUID | None
    content: str
    model: str
    options: dict[str, Any] = {}


class Again(Struct, forbid_unknown_fields=True):
    """One more answer to a question."""

    model: str
    options: dict[str, Any] = {}


class ConversationSummary(Struct):
    """A conversation without its messages.

    Attributes:
        running: whether one of its answers grows now.
        excerpt: where a search found it, with the words between « and »; null without a search.
    """

    id: UUID
    title: str
    model: str
    pinned: bool
    running: bool
    leaf_id: UUID | None
    created_at: datetime
    updated_at: datetime
    cloud: str | None = None
    excerpt: str | None = None


class ConversationPage(Struct):
    """A page of the list: pinned ones first, then the newest.

    Attributes:
        next: what to ask with as `before` for the page after it; null: there is none.
    """

    conversations: list[ConversationSummary]
    next: str | None


class MemberAnswer(Struct):
    """What one member of a council said."""

    label: str
    model: str
    role: str
    content: str
    state: str
    output_tokens: int | None


class Message(Struct):
    """One question or answer; milliseconds count from when it was asked.

    Attributes:
        state: streaming, complete, stopped, failed, interrupted.
        problem: why it failed or was interrupted.
        council: how a council was set up and ended, in the shape of the stream's `summary`.
        members: what its members said.
        cloud: who answered outside of this box: provider, model, form (whole or pseudonymised), and `unrestored`, the
            pseudonyms in it that stand for nobody knows what; null: it was answered here.
    """

    id: UUID
    parent_id: UUID | None
    role: str
    content: str
    thinking: str
    model: str
    state: str
    problem: str | None
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    first_token_ms: int | None
    total_ms: int | None
    created_at: datetime
    council: dict[str, Any] | None
    members: list[MemberAnswer]
    cloud: dict[str, Any] | None


class Conversation(Struct):
    """A conversation with its newest messages, all branches, by id.

    Attributes:
        more: whether there are older ones: ask with `before`, the id of the first one here.
    """

    id: UUID
    title: str
    model: str
    pinned: bool
    running: bool
    leaf_id: UUID | None
    created_at: datetime
    updated_at: datetime
    cloud: str | None
    messages: list[Message]
    more: bool


class ImportProblem(Struct):
    """A conversation of a file that was not imported, and why."""

    title: str
    why: str


class ImportReport(Struct):
    """What came of a file: conversations, their messages, and those that could not be imported."""

    imported: int
    messages: int
    problems: list[ImportProblem]
