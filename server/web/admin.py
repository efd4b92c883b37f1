"""What admins do: people come and go."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Struct

from server.accounts.users import Users
from server.db.models import User as UserRow
from server.messages import Principal, Role
from server.upkeep.leaving import Departures
from server.web.account_data import RemovalReceipt, told
from server.web.accounts import BODY_BYTES_MAX

Usage = Literal["sums", "nothing"]


class User(Struct):
    """A person."""

    id: UUID
    name: str
    role: Role
    disabled: bool
    created_at: datetime


class UserRequest(Struct):
    """A person to be added."""

    name: str
    role: Role = "member"


class UserChange(Struct):
    """What is to change; null leaves it."""

    disabled: bool | None = None
    role: Role | None = None


class Invitation(Struct):
    """A person and the path of their set-up link, which works once."""

    user: User
    setup_path: str


class Admin(Controller):
    """Administration. The `admin` dependency refuses members."""

    path = "/api/admin"
    tags = ("Administration",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/users")
    async def list_users(self, admin: NamedDependency[Principal], users: NamedDependency[Users]) -> list[User]:
        """Everybody."""
        return [_person(row) for row in await users.all()]

    @post("/users")
    async def add_user(
        self, data: JSONBody[UserRequest], admin: NamedDependency[Principal], users: NamedDependency[Users]
    ) -> Invitation:
        """Add a person, who chooses a password through the set-up link."""
        row = await users.add(data.name, data.role)
        return await _invitation(users, row)

    @patch("/users/{user_id:uuid}")
    async def change_user(
        self,
        user_id: FromPath[UUID],
        data: JSONBody[UserChange],
        admin: NamedDependency[Principal],
        users: NamedDependency[Users],
    ) -> User:
        """Change a role, disable or enable."""
        return _person(await users.change(user_id, role=data.role, is_disabled=data.disabled))

    @delete("/users/{user_id:uuid}", status_code=200)
    async def remove_user(
        self,
        user_id: FromPath[UUID],
        admin: NamedDependency[Principal],
        removals: NamedDependency[Departures],
        usage: Annotated[
            Usage | None, QueryParameter(description="What stays of their usage; else as the setting says.")
        ] = None,
    ) -> RemovalReceipt:
        """Remove a person and everything of theirs, for good: conversations, keys, archived months."""
        keeps = None if usage is None else usage == "sums"
        return told(await removals.remove(user_id, asked_by=admin.id, keeps_usage=keeps))

    @post("/users/{user_id:uuid}/reset-password")
    async def reset_password(
        self, user_id: FromPath[UUID], admin: NamedDependency[Principal], users: NamedDependency[Users]
    ) -> Invitation:
        """A new set-up link. The old password works until it is used."""
        row = await users.change(user_id)
        return await _invitation(users, row)


async def _invitation(users: Users, row: UserRow) -> Invitation:
    return Invitation(_person(row), f"/setup#{await users.invite(row.id)}")


def _person(row: UserRow) -> User:
    role: Role = "admin" if row.role == "admin" else "member"
    return User(row.id, row.name, role, row.disabled_at is not None, row.created_at)
