"""Consents over HTTP: what one is asked before something leaves this box, and what would leave."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from server.accounts.authentication import Authentication
from server.cloud.consents import Consents, Found, Open
from server.cloud.preview import Preview, Previews
from server.messages import Principal

TOKEN_CHARACTERS_MAX = 200
# As much as a request may have that goes to a cloud (server/cloud/bodies.py).
PREVIEW_BYTES_MAX = 8 * 1024 * 1024


class CloudConsent(Struct, kw_only=True):
    """A question that one can answer.

    Attributes:
        token: by which it is answered.
        body: exactly what would leave; null where another replica of the server holds it, or nobody waits any more.
        findings: what was found in it, before anything was replaced.
        sentence: why one is asked; empty where `body` is null.
        reserved_micros: what it may cost at the most, in millionths of the admin's currency; null where `body` is.
        given: one has said yes, and it has not left yet.
    """

    token: str
    request_id: UUID
    conversation_id: UUID | None
    provider: str
    model: str
    body: str | None
    body_bytes: int
    findings: list[Found]
    sentence: str
    reserved_micros: int | None
    asked_at: datetime
    expires_at: datetime
    given: bool


class CloudAnswer(Struct, forbid_unknown_fields=True):
    """Yes or no. No takes back a yes, as long as nothing has left; no is final."""

    answer: Literal["yes", "no"]


class CloudQuestion(Struct, kw_only=True):
    """A chat completion that is not asked yet.

    Attributes:
        options: its other fields.
        conversation_id: the conversation that it would be asked in.
    """

    model: str
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    cloud: Literal["private", "never", "ask", "pseudonymised", "allow"] | None = None
    conversation_id: UUID | None = None
    options: dict[str, Any] = {}


class CloudConsents(Controller):
    """One's own."""

    path = "/api/cloud"
    tags = ("Cloud",)

    @get("/consents")
    async def open_consents(
        self, principal: NamedDependency[Principal], cloud_consents: NamedDependency[Consents]
    ) -> list[CloudConsent]:
        """What one is asked now, the newest first."""
        return [_told(each) for each in await cloud_consents.open_of(principal.id)]

    @post("/consents/{token:str}", status_code=204)
    async def answer(
        self,
        token: FromPath[str],
        data: JSONBody[CloudAnswer],
        principal: NamedDependency[Principal],
        cloud_consents: NamedDependency[Consents],
    ) -> None:
        """Say yes or no."""
        await cloud_consents.answer(principal.id, token[:TOKEN_CHARACTERS_MAX], is_yes=data.answer == "yes")

    @post("/preview", status_code=200, request_max_body_size=PREVIEW_BYTES_MAX)
    async def preview(
        self,
        data: JSONBody[CloudQuestion],
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],  # noqa: ARG002 (asking for it is the check)
        authentication: NamedDependency[Authentication],
        cloud_previews: NamedDependency[Previews],
    ) -> Preview:
        """What would leave of a request if this box could not take it, and why; nothing is sent."""
        body = {**data.options, "model": data.model, "messages": data.messages}
        return await cloud_previews.of(
            body,
            lambda: authentication.recall(request),
            wish=data.cloud,
            conversation_id=data.conversation_id,
        )


def _told(found: Open) -> CloudConsent:
    question = found.question
    return CloudConsent(
        token=found.token,
        request_id=found.request_id,
        conversation_id=found.conversation_id,
        provider=found.provider,
        model=found.model,
        body=None if question is None else question.body.decode(),
        body_bytes=found.body_bytes,
        findings=[] if question is None else list(question.found),
        sentence="" if question is None else question.sentence,
        reserved_micros=None if question is None else question.reserved_micros,
        asked_at=found.asked_at,
        expires_at=found.expires_at,
        given=found.is_given,
    )
