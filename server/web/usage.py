"""One's own usage: the newest requests, and reports."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import UNSET, Struct, UnsetType

from server.messages import Principal
from server.usage.exports import MEDIA_TYPES, Files, Format, parts_of
from server.usage.prices import plain
from server.usage.report import UsageReport
from server.usage.reports import Question, Report, Reports, Value


class UsageRow(Struct):
    """One request that was served; milliseconds count from its arrival.

    Attributes:
        pauses, paused_ms: how often the answer was interrupted for somebody else, and for how long in all.
        council_id: the council that it was a part of, if it was; `role` is what it did there: leader, member, rank,
            judge, debate or chair.
        council_reason: why the council was of its size; null until it has ended.
    """

    request_id: UUID
    model: str
    engine: str
    input_tokens: int
    output_tokens: int
    queue_ms: int
    first_token_ms: int | None
    total_ms: int
    pauses: int
    paused_ms: int
    council_id: UUID | None
    role: str | None
    council_reason: str | None
    outcome: str
    started_at: datetime


class UsageTotal(Struct, kw_only=True):
    """What some requests used together.

    Attributes:
        run_ms: from the slot to the end of the answer, without pauses; of all of them.
        gpu_ms: the same, where each moment is divided among the requests that ran on the engine at that moment.
        energy_mj: their share of what the devices used in that time, in millijoules; null: no device told.
        cost: a decimal, in the currency of the prices; null: there was no price.
        unpriced_requests: those that are not in the cost, because there was no price.
        unmetered_requests: those that ran and are not in the energy, because no device told.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    run_ms: int
    gpu_ms: int
    energy_mj: int | None
    cost: str | None
    unpriced_requests: int
    unmetered_requests: int


class UsageGroup(UsageTotal, kw_only=True):
    """The requests of one group; of the fields below there are those that the report is made by.

    Attributes:
        user: null: nobody has this id any more; the id of zeros is of all who were removed.
        key_id, key: null: asked in a browser. `key` alone is null: there is no such key any more.
        council: as it was asked for; null: without one.
        placement: local or cloud.
        request_id: null: requests that are kept as sums of a day.
    """

    day: date | UnsetType = UNSET
    month: str | UnsetType = UNSET
    user_id: UUID | UnsetType = UNSET
    user: str | UnsetType | None = UNSET
    key_id: UUID | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    model: str | UnsetType = UNSET
    council: str | UnsetType | None = UNSET
    engine: str | UnsetType = UNSET
    placement: str | UnsetType = UNSET
    request_id: UUID | UnsetType | None = UNSET


class UsageGroups(Struct, rename={"from_": "from"}):
    """A report: its groups, and all of them together. Both days belong to it."""

    from_: date
    to: date
    tz: str
    by: list[str]
    rows: list[UsageGroup]
    total: UsageTotal


By = Annotated[
    str, QueryParameter(description="Some of day, month, user, key, model, council, engine, placement, request.")
]
First = Annotated[
    str | None, QueryParameter(name="from", description="The first day, as 2026-11-01; else 30 days up to the last.")
]
Last = Annotated[str | None, QueryParameter(name="to", description="The last day; else today.")]
Zone = Annotated[str, QueryParameter(name="tz", description="Whose days: an IANA time zone.")]
Kind = Annotated[Format, QueryParameter(name="format")]


@get("/api/usage", tags=["Usage"])
async def own_usage(
    principal: NamedDependency[Principal], usage_report: NamedDependency[UsageReport]
) -> list[UsageRow]:
    """The newest requests, at most a hundred."""
    return [
        UsageRow(
            request_id=row.request_id,
            model=row.model,
            engine=row.engine,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            queue_ms=row.queue_ms,
            first_token_ms=row.first_token_ms,
            total_ms=row.total_ms,
            pauses=row.pauses,
            paused_ms=row.paused_ms,
            council_id=row.council_id,
            role=row.role,
            council_reason=reason,
            outcome=row.outcome,
            started_at=row.started_at,
        )
        for row, reason in await usage_report.latest(principal.id)
    ]


def _question(
    reports: NamedDependency[Reports], by: By = "day", first: First = None, last: Last = None, zone: Zone = "UTC"
) -> Question:
    return reports.question(by, first=first, last=last, zone=zone)


# What every report is asked with.
ASKED = {"question": Provide(_question, sync_to_thread=False)}


@get("/api/usage/report", tags=["Usage"], dependencies=ASKED)
async def own_report(
    principal: NamedDependency[Principal], reports: NamedDependency[Reports], question: NamedDependency[Question]
) -> UsageGroups:
    """What one has used, added up by the fields in `by`, at most 5000 groups."""
    return groups(question, await reports.read(principal, question))


@get("/api/usage/export", tags=["Usage"], dependencies=ASKED)
async def own_export(
    principal: NamedDependency[Principal],
    report_files: NamedDependency[Files],
    question: NamedDependency[Question],
    kind: Kind = "csv",
) -> Stream:
    """The same as a file, at most 500000 groups."""
    return await file(report_files, principal, question, kind)


def groups(question: Question, report: Report) -> UsageGroups:
    """A report, for the wire."""
    dates = question.days.dates
    return UsageGroups(
        from_=dates[0],
        to=dates[-1],
        tz=question.days.zone,
        by=list(question.by),
        rows=[UsageGroup(**_wire(row)) for row in report.rows],
        total=UsageTotal(**_wire(report.total)),
    )


async def file(
    files: Files, principal: Principal, question: Question, kind: Format, *, everybody: bool = False
) -> Stream:
    """A report as a file to be saved."""
    made = await files.make(principal, question, kind, everybody=everybody)
    dates = question.days.dates
    headers = {
        "Content-Disposition": f'attachment; filename="usage_{dates[0]}_{dates[-1]}.{kind}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Stream(parts_of(made), media_type=MEDIA_TYPES[kind], headers=headers)


def _wire(row: dict[str, Value]) -> dict[str, Any]:
    return {name: plain(value) if isinstance(value, Decimal) else value for name, value in row.items()}
