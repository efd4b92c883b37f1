"""Usage of everybody, and what it costs."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from litestar import Controller, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream
from msgspec import Meta, Struct

from server.messages import Principal
from server.usage.exports import Files
from server.usage.prices import Amounts, Price, Prices, plain
from server.usage.reports import Question, Reports
from server.web.accounts import BODY_BYTES_MAX
from server.web.usage import ASKED, Kind, UsageGroups, file, groups


class PriceDefinition(Struct, forbid_unknown_fields=True):
    """What a model costs. Amounts are decimals with up to nine decimals, in any currency.

    Attributes:
        input_per_million, output_per_million: for a million tokens.
        per_gpu_second: for GPU time; null: nothing.
        per_kwh: for energy where it was measured; null: nothing.
        since: null: from now on. An earlier time must not lie before the price that the model has.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    per_gpu_second: Decimal | None = None
    per_kwh: Decimal | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None


class ModelPrice(Struct):
    """What a model costs in some time.

    Attributes:
        model: `*` is every model without a price of its own.
        until: null: it is in force.
        set_by: the admin's id.
    """

    model: str
    input_per_million: str
    output_per_million: str
    per_gpu_second: str | None
    per_kwh: str | None
    since: datetime
    until: datetime | None
    set_by: UUID | None


class UsageAdmin(Controller):
    """Usage of all people, never what they wrote. The `admin` dependency refuses members."""

    path = "/api/admin"
    tags = ("Usage",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/usage", dependencies=ASKED)
    async def report(
        self,
        admin: NamedDependency[Principal],
        reports: NamedDependency[Reports],
        question: NamedDependency[Question],
    ) -> UsageGroups:
        """What everybody has used, added up by the fields in `by`, at most 5000 groups."""
        return groups(question, await reports.read(admin, question, everybody=True))

    @get("/usage/export", dependencies=ASKED)
    async def export(
        self,
        admin: NamedDependency[Principal],
        report_files: NamedDependency[Files],
        question: NamedDependency[Question],
        kind: Kind = "csv",
    ) -> Stream:
        """The same as a file, at most 500000 groups."""
        return await file(report_files, admin, question, kind, everybody=True)

    @get("/prices")
    async def list_prices(
        self, admin: NamedDependency[Principal], prices: NamedDependency[Prices], *, history: FromQuery[bool] = False
    ) -> list[ModelPrice]:
        """The prices that are in force; with `history` those of before too, the newest of a model first."""
        return [_price(each) for each in await prices.all(is_history=history)]

    @put("/prices/{model:path}")
    async def set_price(
        self,
        model: FromPath[str],
        data: JSONBody[PriceDefinition],
        admin: NamedDependency[Principal],
        prices: NamedDependency[Prices],
    ) -> ModelPrice:
        """Set what a model costs (`*`: every other one). What was used before keeps the price of then."""
        amounts = Amounts(
            input_per_million=data.input_per_million,
            output_per_million=data.output_per_million,
            per_gpu_second=data.per_gpu_second,
            per_kwh=data.per_kwh,
        )
        return _price(await prices.put(admin, model.removeprefix("/"), amounts, data.since))

    @delete("/prices/{model:path}")
    async def remove_price(
        self, model: FromPath[str], admin: NamedDependency[Principal], prices: NamedDependency[Prices]
    ) -> None:
        """End the price of a model; what is used from now on has none of its own."""
        await prices.remove(admin, model.removeprefix("/"))


def _price(price: Price) -> ModelPrice:
    amounts = price.amounts
    return ModelPrice(
        model=price.model,
        input_per_million=plain(amounts.input_per_million),
        output_per_million=plain(amounts.output_per_million),
        per_gpu_second=None if amounts.per_gpu_second is None else plain(amounts.per_gpu_second),
        per_kwh=None if amounts.per_kwh is None else plain(amounts.per_kwh),
        since=price.since,
        until=price.until,
        set_by=price.set_by,
    )
