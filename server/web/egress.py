"""What left this box: one's own requests, and counts of everybody's for admins."""

# ruff: noqa: ARG001 (asking for `admin` is the check)

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct

from server.messages import Principal
from server.privacy.egress_log import PAGE_MAX, EgressCount, EgressLog, EgressRow
from server.usage.days import days_of
from server.usage.exports import cell
from server.web.usage import First, Last

Before = Annotated[int | None, QueryParameter(description="Only entries with a smaller `seq`.", ge=1, le=2**53)]
Limit = Annotated[int, QueryParameter(description="How many at the most.", ge=1, le=PAGE_MAX)]
_COLUMNS = EgressRow.__struct_fields__


class EgressSummary(Struct, rename={"from_": "from"}):
    """Counts of what left, by days in UTC, both of which belong to it; never whose words, or of which conversation."""

    from_: date
    to: date
    rows: list[EgressCount]


@get("/api/egress", tags=["Cloud"])
async def own_egress(
    principal: NamedDependency[Principal],
    egress_log: NamedDependency[EgressLog],
    before: Before = None,
    limit: Limit = PAGE_MAX,
) -> list[EgressRow]:
    """One's own requests that left this box, the newest first."""
    return list(await egress_log.of(principal.id, before=before, limit=limit))


@get("/api/egress/export", tags=["Cloud"])
async def own_egress_export(principal: NamedDependency[Principal], egress_log: NamedDependency[EgressLog]) -> Stream:
    """All of them as a CSV file."""
    headers = {
        "Content-Disposition": f'attachment; filename="egress_{egress_log.now().date()}.csv"',
        "X-Content-Type-Options": "nosniff",
    }
    return Stream(_file(principal, egress_log), media_type="text/csv", headers=headers)


@get("/api/admin/egress/summary", tags=["Cloud"])
async def egress_summary(
    admin: NamedDependency[Principal],
    egress_log: NamedDependency[EgressLog],
    first: First = None,
    last: Last = None,
) -> EgressSummary:
    """How much left on each day (UTC) to each provider for each person, at most 5000 rows."""
    days = days_of(egress_log.now(), first=first, last=last)
    rows = list(await egress_log.summary(days.since, days.until))
    return EgressSummary(from_=days.dates[0], to=days.dates[-1], rows=rows)


EGRESS_ROUTES = (own_egress, own_egress_export, egress_summary)


async def _file(principal: Principal, egress_log: EgressLog) -> AsyncIterator[bytes]:
    yield _line(_COLUMNS)
    async for each in egress_log.all_of(principal.id):
        yield _line([getattr(each, name) for name in _COLUMNS])


def _line(values: tuple[object, ...] | list[object]) -> bytes:
    return (",".join(_cell(value) for value in values) + "\r\n").encode()


def _cell(value: object) -> str:
    match value:
        case None | str() | int():
            return cell(value)
        case dict():
            return cell(msgspec.json.encode(value, order="sorted").decode())
        case _:
            return cell(str(value))
