"""Prices: what admins say that usage costs, and what they said before.

A model has one price at a time. A new price ends the one before it and leaves it where it is, so that a report of last
month is made with the prices of then. Amounts are decimals in whatever currency the admin means; none of them is ever
a float. The model `*` is every model that has no price of its own.
"""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock, uuid7
from server.db.models import AuditEntry, PriceRow
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from server.messages import Principal

EVERY_MODEL = "*"
MODEL_CHARACTERS_MAX = 200
AMOUNT_MAX = 100_000_000
DECIMALS_MAX = 9
PRICES_MAX = 10_000
SINCE_MIN = datetime(2000, 1, 1, tzinfo=UTC)
# Changes take turns, so that periods cannot overlap.
_TURN = text("LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE")


class Amounts(Struct, frozen=True, kw_only=True):
    """What is paid.

    Attributes:
        input_per_million, output_per_million: for a million tokens.
        per_gpu_second: for what docs/usage-reports.md calls GPU time; None: nothing.
        per_kwh: for energy, where it was measured; None: nothing.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    per_gpu_second: Decimal | None = None
    per_kwh: Decimal | None = None


class Price(Struct, frozen=True, kw_only=True):
    """What a model costs in some time; `until` is None where it is in force."""

    model: str
    amounts: Amounts
    since: datetime
    until: datetime | None
    set_by: UUID | None


class Prices:
    """All of them, in Postgres."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def all(self, *, is_history: bool = False) -> list[Price]:
        """Those in force, by model; with `is_history` those of before too, the newest of a model first.

        Raises:
            Unavailable: Postgres is away.
        """
        query = select(PriceRow).order_by(PriceRow.model, PriceRow.since.desc()).limit(PRICES_MAX)
        async with self._database.transaction() as session:
            rows = await session.scalars(query if is_history else query.where(PriceRow.until.is_(None)))
            return [_price(row) for row in rows]

    async def put(self, actor: Principal, model: str, amounts: Amounts, since: datetime | None = None) -> Price:
        """Set what a model costs from now on, or since an earlier time that no price has begun or ended after.

        The same amounts again are no change.

        Raises:
            InvalidRequest: the model's name, an amount or the time will not do; `param` says which.
            Conflict: there are PRICES_MAX, old ones included.
            Unavailable: Postgres is away.
        """
        _check_model(model)
        for name, amount in _amounts(amounts).items():
            _check_amount(name, amount)
        now = self._clock.now()
        async with self._database.transaction() as session:
            await session.execute(_TURN)
            last = await _last(session, model)
            before = None if last is None or last.until is not None else _price(last).amounts
            if last is not None and before == amounts and since is None:
                return _price(last)
            begins = _beginning(since, now, last)
            if (await session.scalar(select(func.count()).select_from(PriceRow)) or 0) >= PRICES_MAX:
                raise Conflict(f"There are {PRICES_MAX} prices already, old ones included.")
            await _end(session, last, begins)
            row = PriceRow(id=uuid7(now), model=model, since=begins, until=None, set_by=actor.id, **_amounts(amounts))
            session.add(row)
            session.add(_audited(actor, now, "price.set", row, before=before, after=amounts))
            return _price(row)

    async def remove(self, actor: Principal, model: str) -> None:
        """End the price of a model now. What was used until then keeps it. Raises NotFound and Unavailable."""
        now = self._clock.now()
        async with self._database.transaction() as session:
            await session.execute(_TURN)
            # Postgres takes no NULs.
            row = await _last(session, model) if "\0" not in model else None
            if row is None or row.until is not None:
                raise NotFound(f"There is no price of {model[:100]!r}.", code="price_not_found")
            session.add(_audited(actor, now, "price.remove", row, before=_price(row).amounts))
            await _end(session, row, now)


async def _last(session: AsyncSession, model: str) -> PriceRow | None:
    query = select(PriceRow).where(PriceRow.model == model).order_by(PriceRow.since.desc()).limit(1)
    row: PriceRow | None = await session.scalar(query)
    return row


async def _end(session: AsyncSession, row: PriceRow | None, at: datetime) -> None:
    if row is None or row.until is not None:
        return
    if at > row.since:
        row.until = at
    else:
        # It never held; the log remembers it.
        await session.delete(row)
    await session.flush()


def _beginning(since: datetime | None, now: datetime, last: PriceRow | None) -> datetime:
    earliest = SINCE_MIN if last is None else last.until or last.since
    if since is None:
        # A clock that went back does not make two prices of one time.
        return max(now, earliest)
    if since > now:
        raise InvalidRequest("since lies in the future.", param="since")
    if since < earliest:
        why = "the year 2000" if last is None else "the price before it"
        raise InvalidRequest(f"since lies before {why} ({earliest.isoformat()}).", param="since")
    return since


def _check_model(model: str) -> None:
    if not model or len(model) > MODEL_CHARACTERS_MAX or not model.isprintable():
        raise InvalidRequest(
            f"The name of a model has 1 to {MODEL_CHARACTERS_MAX} printable characters.", param="model"
        )


def _check_amount(name: str, amount: Decimal | None) -> None:
    if amount is None:
        return
    # NaN is neither; and of a number with more digits than there are, quantize() would tell nothing.
    is_fit = amount.is_finite() and 0 <= amount <= AMOUNT_MAX
    if not is_fit or amount != amount.quantize(Decimal(1).scaleb(-DECIMALS_MAX)):
        raise InvalidRequest(
            f"{name} is a number from 0 to {AMOUNT_MAX} with {DECIMALS_MAX} decimals at the most.", param=name
        )


def _amounts(amounts: Amounts) -> dict[str, Decimal | None]:
    return {name: getattr(amounts, name) for name in Amounts.__struct_fields__}


def _price(row: PriceRow) -> Price:
    amounts = Amounts(
        input_per_million=row.input_per_million,
        output_per_million=row.output_per_million,
        per_gpu_second=row.per_gpu_second,
        per_kwh=row.per_kwh,
    )
    return Price(model=row.model, amounts=amounts, since=row.since, until=row.until, set_by=row.set_by)


def plain(amount: Decimal) -> str:
    """A decimal as people write it: neither an exponent nor zeros that say nothing."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _audited(
    actor: Principal, now: datetime, action: str, row: PriceRow, *, before: Amounts | None, after: Amounts | None = None
) -> AuditEntry:
    def told(amounts: Amounts | None, since: datetime | None = None) -> dict[str, str] | None:
        if amounts is None:
            return None
        fields = {name: plain(amount) for name, amount in _amounts(amounts).items() if amount is not None}
        return fields if since is None else {**fields, "since": since.isoformat()}

    return AuditEntry(
        id=uuid7(now),
        at=now,
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        subject="price of every other model" if row.model == EVERY_MODEL else f"price of {row.model}",
        before=told(before),
        after=told(after, row.since),
    )
