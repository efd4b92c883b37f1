"""All that is somebody's: taken along, and removed; and the receipts of removals."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.response import Stream
from msgspec import Struct

from server.accounts.authentication import address_of
from server.accounts.logins import Logins
from server.messages import Principal
from server.upkeep.departing import Kept
from server.upkeep.forgetting import Rewritten
from server.upkeep.leaving import Departures, Receipt
from server.upkeep.taking import AccountExport, written
from server.web.accounts import BODY_BYTES_MAX
from server.web.cookies import ended_cookie


class Farewell(Struct):
    """The password, once more."""

    password: str


class RewrittenFile(Struct):
    """A file of the archive that was written anew without a person; `sha256_after` is null where nothing was left."""

    table: str
    month: str
    file: str
    rows_removed: int
    rows_left: int
    sha256_before: str
    sha256_after: str | None


class KeptData(Struct):
    """What stays, and why; `rows` is null where that is not counted."""

    what: str
    rows: int | None
    why: str


class RemovalReceipt(Struct, kw_only=True):
    """The removal of a person.

    Attributes:
        person_id: the id that they had.
        asked_by: an admin's id, or their own; null: the command line.
        done_at: null: it is not complete; upkeep goes on with it, and `problems` says what it waits for.
        removed: rows that were removed, by table.
        made_nobodys: rows that stay without the person, by table.
        removed_later: what was written after that, and went too.
    """

    id: UUID
    person_id: UUID
    asked_by: UUID | None
    asked_at: datetime
    done_at: datetime | None
    removed: dict[str, int]
    made_nobodys: dict[str, int]
    removed_later: dict[str, int]
    files: list[RewrittenFile]
    kept: list[KeptData]
    problems: list[str]


class AccountData(Controller):
    """One's own account as a whole."""

    path = "/api/account"
    tags = ("Account",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/export")
    async def export(
        self, principal: NamedDependency[Principal], account_export: NamedDependency[AccountExport]
    ) -> Stream:
        """Everything that is stored of oneself, as a zip file with JSON in it: conversations, usage, all of it."""
        headers = {"Content-Disposition": 'attachment; filename="account.zip"'}
        return Stream(written(account_export.start(principal.id)), media_type="application/zip", headers=headers)

    @delete("/", status_code=200)
    async def leave(
        self,
        data: JSONBody[Farewell],
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        logins: NamedDependency[Logins],
        removals: NamedDependency[Departures],
    ) -> Response[RemovalReceipt]:
        """Remove oneself and everything of oneself, for good. The last admin cannot."""
        await logins.confirm(principal, data.password, address_of(request))
        receipt = await removals.remove(principal.id, asked_by=principal.id)
        return Response(told(receipt), status_code=200, cookies=[ended_cookie(request)])


class Removals(Controller):
    """The receipts of people who were removed (`Admin.remove_user`). The `admin` dependency refuses members."""

    path = "/api/admin"
    tags = ("Administration",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/removals")
    async def list_removals(
        self, admin: NamedDependency[Principal], removals: NamedDependency[Departures]
    ) -> list[RemovalReceipt]:
        """The receipts, the newest first, at most 500."""
        return [told(receipt) for receipt in await removals.receipts()]

    @get("/removals/{receipt_id:uuid}")
    async def show_removal(
        self, receipt_id: FromPath[UUID], admin: NamedDependency[Principal], removals: NamedDependency[Departures]
    ) -> RemovalReceipt:
        """One receipt."""
        return told(await removals.receipt(receipt_id))


def told(receipt: Receipt) -> RemovalReceipt:
    """A receipt as it is sent."""
    done = receipt.done
    return RemovalReceipt(
        id=receipt.id,
        person_id=receipt.person_id,
        asked_by=receipt.asked_by,
        asked_at=receipt.asked_at,
        done_at=receipt.done_at,
        removed=done.tables,
        made_nobodys=done.changed,
        removed_later=done.late,
        files=[_file(one) for one in done.files],
        kept=[_kept(one) for one in done.kept],
        problems=done.problems,
    )


def _file(one: Rewritten) -> RewrittenFile:
    return RewrittenFile(
        one.table, one.month, one.file, one.rows_removed, one.rows_left, one.sha256_before, one.sha256_after
    )


def _kept(one: Kept) -> KeptData:
    return KeptData(one.what, one.rows, one.why)
