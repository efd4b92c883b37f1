"""Log in and out, set up an account, change the password, manage API keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from server.accounts.authentication import Authentication, address_of, cookie_name
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.refusals import Refusals
from server.accounts.users import Users
from server.db.models import ApiKey as ApiKeyRow
from server.messages import Principal, Role
from server.web.cookies import ended_cookie, session_cookie

# Nobody has logged in yet when these bodies are read.
BODY_BYTES_MAX = 64 * 1024


class LoginRequest(Struct):
    """A name and its password."""

    name: str
    password: str


class SessionState(Struct):
    """Who is logged in, if anybody."""

    principal: Principal | None


class SetupToken(Struct):
    """The secret part of a set-up link."""

    token: str


class SetupOffer(Struct):
    """Whom a set-up link is for."""

    name: str
    role: Role


class SetupRequest(Struct):
    """The choice of somebody who follows a set-up link."""

    token: str
    password: str
    name: str | None = None


class PasswordChange(Struct):
    """The old password and the new one."""

    current: str
    new: str


class KeyRequest(Struct):
    """A key to be made; without days it does not expire."""

    label: str
    expires_in_days: int | None = None


class ApiKey(Struct):
    """A key as it is listed: recognisable, not usable."""

    id: UUID
    label: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewApiKey(Struct):
    """A key, shown this once."""

    id: UUID
    label: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    key: str


class Accounts(Controller):
    """What people do with their own account."""

    path = "/api"
    tags = ("Account",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/session")
    async def session(
        self, request: Request[Any, Any, Any], authentication: NamedDependency[Authentication]
    ) -> SessionState:
        """Who is logged in."""
        return SessionState(await authentication.find(request))

    @post("/login", status_code=200)
    async def log_in(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[LoginRequest],
        logins: NamedDependency[Logins],
        refusals: NamedDependency[Refusals],
    ) -> Response[Principal]:
        """Log in with name and password."""
        principal, token = await logins.log_in(data.name, data.password, address_of(request))
        await refusals.trust(token)
        return _logged_in(request, principal, token)

    @post("/logout", status_code=204)
    async def log_out(self, request: Request[Any, Any, Any], logins: NamedDependency[Logins]) -> Response[None]:
        """Log out of this browser."""
        if token := request.cookies.get(cookie_name(request)):
            await logins.log_out(token)
        return Response(None, status_code=204, cookies=[ended_cookie(request)])

    @post("/setup/check", status_code=200)
    async def check_setup(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[SetupToken],
        users: NamedDependency[Users],
        refusals: NamedDependency[Refusals],
    ) -> SetupOffer:
        """Whom a set-up link is for."""
        async with refusals.attempt(address_of(request), data.token) as attempt:
            user = await users.invited(data.token)
            attempt.is_good = True
        return SetupOffer(user.name, "admin" if user.role == "admin" else "member")

    @post("/setup", status_code=200)
    async def set_up(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[SetupRequest],
        users: NamedDependency[Users],
        logins: NamedDependency[Logins],
        refusals: NamedDependency[Refusals],
    ) -> Response[Principal]:
        """Use a set-up link: choose a password, and be logged in."""
        async with refusals.attempt(address_of(request), data.token):
            user = await users.accept(data.token, data.name, data.password)
        principal, token = await logins.open(user)
        await refusals.trust(token)
        return _logged_in(request, principal, token)

    @post("/password", status_code=204)
    async def change_password(
        self,
        data: JSONBody[PasswordChange],
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        users: NamedDependency[Users],
        logins: NamedDependency[Logins],
        refusals: NamedDependency[Refusals],
    ) -> Response[None]:
        """Change one's password. Every other browser is logged out."""
        await logins.confirm(principal, data.current, address_of(request))
        await users.set_password(principal.id, data.new)
        response = Response(None, status_code=204)
        if principal.key_id is None:
            _, token = await logins.open(await users.named(principal.name))
            await refusals.trust(token)
            response.set_cookie(session_cookie(request, token))
        return response

    @get("/keys")
    async def list_keys(self, principal: NamedDependency[Principal], keys: NamedDependency[ApiKeys]) -> list[ApiKey]:
        """One's own keys."""
        return [_listed(row) for row in await keys.of(principal.id)]

    @post("/keys")
    async def create_key(
        self,
        data: JSONBody[KeyRequest],
        principal: NamedDependency[Principal],
        keys: NamedDependency[ApiKeys],
        refusals: NamedDependency[Refusals],
    ) -> NewApiKey:
        """Make a key. This is the only time it is shown."""
        row, key = await keys.create(principal.id, data.label, data.expires_in_days)
        await refusals.trust(key)
        return NewApiKey(row.id, row.label, row.prefix, row.created_at, row.expires_at, key)

    @delete("/keys/{key_id:uuid}")
    async def revoke_key(
        self, key_id: FromPath[UUID], principal: NamedDependency[Principal], keys: NamedDependency[ApiKeys]
    ) -> None:
        """End a key, at once."""
        await keys.revoke(key_id, principal.id)


def _logged_in(request: Request[Any, Any, Any], principal: Principal, token: str) -> Response[Principal]:
    return Response(principal, cookies=[session_cookie(request, token)])


def _listed(row: ApiKeyRow) -> ApiKey:
    return ApiKey(row.id, row.label, row.prefix, row.created_at, row.expires_at, row.last_used_at)
