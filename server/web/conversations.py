"""Conversations over HTTP: what their person reads, changes and asks. Whoever else asks finds nothing."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import UNSET

from server.accounts.authentication import Authentication
from server.chat.pipeline import Identify
from server.conversations import texts
from server.conversations.answers import Answers, Asked
from server.conversations.exporting import Exporter, disposition
from server.conversations.importing import IMPORT_BYTES_MAX, Importer
from server.conversations.listing import PAGE_MAX, Listing
from server.conversations.store import Change, Conversations, Opened
from server.db.models import Conversation as ConversationRow
from server.errors import Conflict, InvalidRequest
from server.messages import Principal
from server.web.conversation_wire import (
    Again,
    Conversation,
    ConversationChange,
    ConversationPage,
    ConversationSummary,
    ImportProblem,
    ImportReport,
    MemberAnswer,
    Message,
    NewConversation,
    Question,
)

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
FILES = {"json": ("json", "application/json"), "markdown": ("md", "text/markdown; charset=utf-8")}


@dataclass
class ImportedFile(Operation):
    """The body is a file."""

    def __post_init__(self) -> None:
        schema = Schema(title="ExportFile", description="An array of conversations, or one.")
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=schema)})


def _identify(request: Request[Any, Any, Any], authentication: NamedDependency[Authentication]) -> Identify:
    """Who asks, also when the request is long over: by its credential alone, not by all that it brought."""
    kept = {name: request.scope[name] for name in ("headers", "scheme", "client")}
    connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(
        {"type": "http", "state": {}, **kept}  # type: ignore[arg-type]
    )

    async def identify() -> Principal:
        return await authentication.recall(connection)

    return identify


class ConversationRoutes(Controller):
    """One's own conversations."""

    path = "/api/conversations"
    tags = ("Conversations",)
    dependencies = {"identify": Provide(_identify, sync_to_thread=False)}  # noqa: RUF012 (Litestar's)

    @get("/")
    async def list_conversations(
        self,
        principal: NamedDependency[Principal],
        listing: NamedDependency[Listing],
        answers: NamedDependency[Answers],
        search: FromQuery[str | None] = None,
        before: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = 50,
    ) -> ConversationPage:
        """One's conversations; with `search` those whose title or messages have the words."""
        page = await listing.page(principal.id, search=search, before=before, count_max=limit)
        running = answers.conversations_of(principal.id)
        listed = [_summary(row, is_running=row.id in running, excerpt=excerpt) for row, excerpt in page.found]
        return ConversationPage(listed, page.next)

    @post("/", status_code=201)
    async def begin(
        self,
        data: JSONBody[NewConversation],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
    ) -> ConversationSummary:
        """Begin a conversation."""
        title, model = texts.name(data.title, "title"), texts.name(data.model, "model")
        row = await conversations.create(principal.id, title=title, model=model, cloud=data.cloud)
        return _summary(row, is_running=False)

    @post("/import", status_code=200, request_max_body_size=IMPORT_BYTES_MAX, operation_class=ImportedFile)
    async def import_file(
        self,
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        importer: NamedDependency[Importer],
    ) -> ImportReport:
        """Import ChatGPT's conversations.json, Open WebUI's export of chats, or our own; the body is the file."""
        importer.enter()
        try:
            done = await importer.run(principal.id, await request.body())
        finally:
            importer.leave()
        problems = [ImportProblem(each.title, each.why) for each in done.problems]
        return ImportReport(done.imported, done.messages, problems)

    @get("/{conversation_id:uuid}/export")
    async def export(
        self,
        conversation_id: FromPath[UUID],
        principal: NamedDependency[Principal],
        exporter: NamedDependency[Exporter],
        as_: Annotated[Literal["json", "markdown"], QueryParameter(name="format")] = "json",
    ) -> Stream:
        """A conversation as a file: JSON with all branches, or the branch that is looked at in Markdown."""
        row, nodes = await exporter.find(principal.id, conversation_id)
        ending, media_type = FILES[as_]
        parts = exporter.json(row, nodes) if as_ == "json" else exporter.markdown(row, nodes)
        headers = {"Content-Disposition": disposition(row, ending), "X-Content-Type-Options": "nosniff"}
        return Stream(parts, media_type=media_type, headers=headers)

    @get("/{conversation_id:uuid}")
    async def show(
        self,
        conversation_id: FromPath[UUID],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
        answers: NamedDependency[Answers],
        before: FromQuery[UUID | None] = None,
    ) -> Conversation:
        """A conversation with its newest messages, at most 500 and 8 MB; `before` asks for older ones."""
        opened = await conversations.open(principal.id, conversation_id, before=before)
        return _opened(opened, is_running=conversation_id in answers.conversations_of(principal.id))

    @patch("/{conversation_id:uuid}")
    async def change(
        self,
        conversation_id: FromPath[UUID],
        data: JSONBody[ConversationChange],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
        answers: NamedDependency[Answers],
    ) -> ConversationSummary:
        """Rename it, pin it, look at another branch, or say what of it may leave this box."""
        change = Change(
            title=None if data.title is UNSET else texts.name(data.title, "title"),
            is_pinned=None if data.pinned is UNSET else data.pinned,
            leaf_id=None if data.leaf_id is UNSET else data.leaf_id,
            cloud=data.cloud,
        )
        row = await conversations.change(principal.id, conversation_id, change)
        return _summary(row, is_running=conversation_id in answers.conversations_of(principal.id))

    @delete("/{conversation_id:uuid}")
    async def remove(
        self,
        conversation_id: FromPath[UUID],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
    ) -> None:
        """Remove it with all its messages. Answers that run are stopped first."""
        await conversations.remove(principal.id, conversation_id)

    @post("/{conversation_id:uuid}/messages", status_code=200)
    async def ask(
        self,
        conversation_id: FromPath[UUID],
        data: JSONBody[Question],
        principal: NamedDependency[Principal],
        identify: NamedDependency[Identify],
        answers: NamedDependency[Answers],
    ) -> ASGIApp:
        """Ask. The answer is streamed, and goes on when nobody reads it."""
        if not data.content.strip():
            raise InvalidRequest("content: the question is empty.", param="content")
        asked = Asked(
            conversation_id=conversation_id,
            parent_id=data.parent_id,
            question=texts.storable(data.content, "content"),
            model=texts.name(data.model, "model"),
            options=data.options,
        )
        running = await answers.ask(principal, identify, asked)
        return _stream(running.follow())

    @post("/{conversation_id:uuid}/messages/{question_id:uuid}/answers", status_code=200)
    async def ask_again(
        self,
        conversation_id: FromPath[UUID],
        question_id: FromPath[UUID],
        data: JSONBody[Again],
        principal: NamedDependency[Principal],
        identify: NamedDependency[Identify],
        answers: NamedDependency[Answers],
    ) -> ASGIApp:
        """Have a question answered once more; the answers are branches beside each other."""
        asked = Asked(
            conversation_id=conversation_id,
            parent_id=question_id,
            question=None,
            model=texts.name(data.model, "model"),
            options=data.options,
        )
        running = await answers.ask(principal, identify, asked)
        return _stream(running.follow())

    @get("/{conversation_id:uuid}/messages/{answer_id:uuid}/stream")
    async def stream(
        self,
        conversation_id: FromPath[UUID],
        answer_id: FromPath[UUID],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
        answers: NamedDependency[Answers],
    ) -> ASGIApp:
        """An answer that grows: everything from its beginning, and then what comes."""
        running = answers.find(answer_id, principal.id)
        if running is not None and running.conversation_id == conversation_id:
            return _stream(running.follow())
        row = await conversations.message(principal.id, conversation_id, answer_id)
        if row.state != "streaming":
            raise Conflict("This message does not grow any more. Read the conversation.", code="not_running")
        return _stream(conversations.watch(row))

    @post("/{conversation_id:uuid}/messages/{answer_id:uuid}/stop", status_code=204)
    async def stop(
        self,
        conversation_id: FromPath[UUID],
        answer_id: FromPath[UUID],
        principal: NamedDependency[Principal],
        conversations: NamedDependency[Conversations],
    ) -> None:
        """Stop an answer; what it said so far stays. One that has ended stays as it is."""
        await conversations.stop(principal.id, conversation_id, answer_id)


def _stream(events: AsyncIterator[bytes]) -> ASGIApp:
    """An event stream."""

    async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        async for part in events:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return respond


def _summary(row: ConversationRow, *, is_running: bool, excerpt: str | None = None) -> ConversationSummary:
    return ConversationSummary(
        id=row.id,
        title=row.title,
        model=row.model,
        pinned=row.pinned_at is not None,
        running=is_running,
        leaf_id=row.leaf_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        cloud=row.cloud,
        excerpt=excerpt,
    )


def _opened(opened: Opened, *, is_running: bool) -> Conversation:
    row = opened.conversation
    return Conversation(
        id=row.id,
        title=row.title,
        model=row.model,
        pinned=row.pinned_at is not None,
        running=is_running,
        leaf_id=row.leaf_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        cloud=row.cloud,
        messages=[_message(fields, opened) for fields in opened.messages],
        more=opened.has_more,
    )


def _message(fields: dict[str, Any], opened: Opened) -> Message:
    members = [
        MemberAnswer(each.label, each.model, each.role, each.content, each.state, each.output_tokens)
        for each in opened.members.get(fields["id"], ())
    ]
    own = {name: fields[name] for name in Message.__struct_fields__ if name != "members"}
    return Message(**own, members=members)
