"""Prices: one at a time for each model, with everything that was before, and a log of who set them."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from server.db.models import AuditEntry
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from server.usage import prices as module
from server.usage.prices import Amounts, Price, Prices, plain
from tests.clocks import BEGINNING, FakeClock
from tests.usage.parts import somebody

ROOT = somebody("root", "admin")
DAY = timedelta(days=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=2)
    yield database
    await database.close()


@pytest.fixture
def clock() -> FakeClock:
    """Noon."""
    return FakeClock()


@pytest.fixture
def prices(database: Database, clock: FakeClock) -> Prices:
    """All prices."""
    return Prices(database, clock)


def cost(amount: str, **more: Decimal) -> Amounts:
    """The same for what is read and written."""
    return Amounts(input_per_million=Decimal(amount), output_per_million=Decimal(amount), **more)


def periods(found: list[Price]) -> list[tuple[str, str, datetime, datetime | None]]:
    """Model, amount, and from when to when."""
    return [(each.model, plain(each.amounts.input_per_million), each.since, each.until) for each in found]


async def test_a_new_price_ends_the_one_before(prices: Prices, clock: FakeClock) -> None:
    """What was is kept; a price that is removed ends, and can be set again."""
    await prices.put(ROOT, "m", cost("1"))
    clock.advance(DAY)
    await prices.put(ROOT, "m", cost("2.5"))
    await prices.put(ROOT, "*", cost("3"))
    assert periods(await prices.all()) == [
        ("*", "3", BEGINNING + DAY, None),
        ("m", "2.5", BEGINNING + DAY, None),
    ]
    clock.advance(DAY)
    await prices.remove(ROOT, "m")
    clock.advance(DAY)
    await prices.put(ROOT, "m", cost("2.5"))
    assert periods(await prices.all(is_history=True))[1:] == [
        ("m", "2.5", BEGINNING + 3 * DAY, None),
        ("m", "2.5", BEGINNING + DAY, BEGINNING + 2 * DAY),
        ("m", "1", BEGINNING, BEGINNING + DAY),
    ]


async def test_a_price_may_hold_from_earlier_on(prices: Prices) -> None:
    """As long as it does not reach behind the one before it, and not from a time that is yet to come."""
    await prices.put(ROOT, "m", cost("1"), BEGINNING - 9 * DAY)
    await prices.put(ROOT, "m", cost("2"), BEGINNING - 5 * DAY)
    for since, sentence in (
        (BEGINNING - 6 * DAY, "since lies before the price before it"),
        (BEGINNING + DAY, "since lies in the future."),
    ):
        with pytest.raises(InvalidRequest, match=sentence) as caught:
            await prices.put(ROOT, "m", cost("3"), since)
        assert caught.value.param == "since"
    # A mistake is mended: the one that began then never held.
    await prices.put(ROOT, "m", cost("4"), BEGINNING - 5 * DAY)
    assert periods(await prices.all(is_history=True)) == [
        ("m", "4", BEGINNING - 5 * DAY, None),
        ("m", "1", BEGINNING - 9 * DAY, BEGINNING - 5 * DAY),
    ]
    await prices.remove(ROOT, "m")
    with pytest.raises(InvalidRequest, match="since lies before"):
        await prices.put(ROOT, "m", cost("3"), BEGINNING - DAY)


async def test_changes_are_logged(database: Database, prices: Prices, clock: FakeClock) -> None:
    """Who, what, before and after, as they were written; the same price again is no change."""
    await prices.put(ROOT, "org/m:7b", cost("0.000000001", per_kwh=Decimal("0.30")))
    await prices.put(ROOT, "org/m:7b", cost("0.000000001", per_kwh=Decimal("0.3")))
    clock.advance(DAY)
    await prices.put(ROOT, "*", cost("2"))
    await prices.remove(ROOT, "org/m:7b")
    async with database.transaction() as session:
        log = (await session.scalars(select(AuditEntry).order_by(AuditEntry.at, AuditEntry.action.desc()))).all()
    tiny = {"input_per_million": "0.000000001", "output_per_million": "0.000000001", "per_kwh": "0.3"}
    two = {"input_per_million": "2", "output_per_million": "2"}
    assert [(row.actor_id, row.action, row.subject, row.before, row.after) for row in log] == [
        (ROOT.id, "price.set", "price of org/m:7b", None, tiny | {"since": BEGINNING.isoformat()}),
        (ROOT.id, "price.set", "price of every other model", None, two | {"since": (BEGINNING + DAY).isoformat()}),
        (ROOT.id, "price.remove", "price of org/m:7b", tiny, None),
    ]


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-1", "-0.000000001", "100000000.1", "1e30", "0.0000000001"])
async def test_amounts_that_are_none(prices: Prices, amount: str) -> None:
    """Neither below zero nor beyond all measure, nor finer than is kept."""
    with pytest.raises(InvalidRequest, match="is a number from 0 to 100000000 with 9 decimals") as caught:
        await prices.put(ROOT, "m", Amounts(input_per_million=Decimal(1), output_per_million=Decimal(amount)))
    assert caught.value.param == "output_per_million"
    assert await prices.all(is_history=True) == []


@pytest.mark.parametrize("model", ["", "a\0b", "a\nb", "x" * 201])
async def test_models_that_are_none(prices: Prices, model: str) -> None:
    """They get no price, and have none to be removed."""
    with pytest.raises(InvalidRequest) as caught:
        await prices.put(ROOT, model, cost("1"))
    assert caught.value.param == "model"
    with pytest.raises(NotFound):
        await prices.remove(ROOT, model)


async def test_there_are_so_many(prices: Prices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones included."""
    monkeypatch.setattr(module, "PRICES_MAX", 2)
    await prices.put(ROOT, "a", cost("1"))
    await prices.put(ROOT, "b", cost("1"))
    with pytest.raises(Conflict, match="There are 2 prices already"):
        await prices.put(ROOT, "c", cost("1"))


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put since", "remove", "wait"]), st.integers(0, 3), st.integers(0, 5)),
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_periods_of_a_model_never_overlap(database: Database, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is set, removed and set from earlier on, also at one moment: at any time there is one price at most."""
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM prices"))
    clock = FakeClock()
    clock.advance(9 * DAY)
    prices = Prices(database, clock)
    for step, amount, days in steps:
        try:
            match step:
                case "put":
                    await prices.put(ROOT, "m", cost(str(amount)))
                case "put since":
                    await prices.put(ROOT, "m", cost(str(amount)), clock.now() - days * DAY)
                case "remove":
                    await prices.remove(ROOT, "m")
                case _:
                    clock.advance(days * DAY)
        except (InvalidRequest, NotFound):
            continue
    found = await prices.all(is_history=True)
    assert [price.until is None for price in found[1:]] == [False] * len(found[1:])
    for later, earlier in pairwise(found):
        assert earlier.until is not None
        assert earlier.since < earlier.until <= later.since


@given(st.decimals(min_value=0, max_value=10**8, places=9))
def test_amounts_are_written_plainly(amount: Decimal) -> None:
    """Without an exponent or idle zeros, and as the same number."""
    written = plain(amount)
    assert Decimal(written) == amount
    assert "E" not in written
    assert "." not in written or written[-1] not in "0."
