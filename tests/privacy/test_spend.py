"""What requests to clouds may cost: reserved before they leave, settled at their end, never beyond the limit."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from server.db.session import Database
from server.errors import TooMany
from server.privacy.spend import Spent, month_of, reserve, spent
from tests.privacy.ledgers import ANN, BEN, NOW, a_send, come_back, leave, opened, verdict

MONTH = date(2026, 1, 1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With Ann and Ben, who never spent anything."""
    async with opened(database_url) as database:
        yield database


async def of(database: Database, month: date = MONTH) -> Spent:
    """What Ann's month holds."""
    async with database.transaction(of=ANN) as session:
        return await spent(session, ANN, month)


async def test_reserved_then_settled(database: Database) -> None:
    """What was reserved makes room for what was spent, which may be less, or more."""
    assert await of(database) == Spent(0, 0)
    entry = await leave(database, a_send(), limit_micros=100)
    assert await of(database) == Spent(100, 0)
    await come_back(database, entry)
    await come_back(database, entry)
    assert await of(database) == Spent(0, 60)
    dear = await leave(database, a_send(reserved_micros=40), limit_micros=100)
    await come_back(database, dear, spent_micros=500)
    assert await of(database) == Spent(0, 560)
    with pytest.raises(TooMany) as refused:
        await leave(database, a_send(reserved_micros=0), limit_micros=100)
    assert refused.value.code == "cloud_budget_spent"


async def test_twenty_at_once_never_exceed_the_limit(database: Database) -> None:
    """As many as fit may leave, whoever is first; the others are refused and leave no trace."""

    async def one(number: int) -> bool:
        try:
            entry = await leave(database, a_send(), limit_micros=750)
        except TooMany:
            return False
        held = await of(database)
        assert held.reserved_micros + held.spent_micros <= 750
        if number % 2:
            await come_back(database, entry, spent_micros=100)
        return True

    left = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(left) == 7
    held = await of(database)
    assert held.reserved_micros + held.spent_micros == 700
    found = await verdict(database)
    assert found.is_well, found.broken
    assert found.open == held.reserved_micros // 100


async def test_ends_and_sends_together_do_not_lock_each_other_out(database: Database) -> None:
    """Both take the spend before the head, so neither waits for the other in a circle."""
    open_entries = [await leave(database, a_send()) for _ in range(10)]
    await asyncio.gather(
        *(come_back(database, entry) for entry in open_entries),
        *(leave(database, a_send(), limit_micros=10_000) for _ in range(10)),
    )
    assert await of(database) == Spent(1_000, 600)
    assert (await verdict(database)).is_well


async def test_no_limit_and_nothing(database: Database) -> None:
    """None is no limit; with 0 nothing leaves, not even for nothing; people have their own."""
    await leave(database, a_send(reserved_micros=10**15), limit_micros=None)
    for micros in (0, 1):
        with pytest.raises(TooMany):
            await leave(database, a_send(BEN, reserved_micros=micros), limit_micros=0)
    await leave(database, a_send(BEN, reserved_micros=1), limit_micros=1)
    with pytest.raises(TooMany):
        await leave(database, a_send(BEN, reserved_micros=1), limit_micros=1)


async def test_the_month_is_that_of_the_send(database: Database) -> None:
    """Also when the answer ends in the next one; by UTC, whatever zone the time is told in."""
    last = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    entry = await leave(database, a_send(), last)
    await come_back(database, entry, last + timedelta(minutes=5))
    assert await of(database) == Spent(0, 60)
    assert await of(database, date(2026, 2, 1)) == Spent(0, 0)
    assert (await verdict(database, now=last + timedelta(minutes=6))).is_well
    assert month_of(datetime(2026, 2, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == MONTH
    assert month_of(datetime(2026, 12, 31, 20, 0, tzinfo=timezone(timedelta(hours=-5)))) == date(2027, 1, 1)


async def test_a_refusal_inside_the_transaction_takes_all_back(database: Database) -> None:
    """Nothing is reserved, and nothing is in the ledger."""

    async def twice() -> None:
        async with database.transaction(of=ANN) as session:
            await reserve(session, ANN, month_of(NOW), 60, 100)
            await reserve(session, ANN, month_of(NOW), 60, 100)

    with pytest.raises(TooMany):
        await twice()
    assert await of(database) == Spent(0, 0)
    assert (await verdict(database)).entries == 0


async def test_who_was_removed_stays_removed(database: Database) -> None:
    """An answer that ends after its person was removed has its end in the ledger, and makes no new row of theirs."""
    entry = await leave(database, a_send())
    async with database.transaction(everybody=True) as session:
        await session.execute(text("DELETE FROM cloud_spend"))
        await session.execute(text("DELETE FROM users WHERE name = 'ann'"))
    assert await come_back(database, entry) is not None
    async with database.transaction(everybody=True) as session:
        assert await session.scalar(text("SELECT count(*) FROM cloud_spend")) == 0
    assert (await verdict(database)).is_well
