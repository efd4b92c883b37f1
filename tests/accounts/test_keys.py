"""API keys: shown once, stored hashed, gone when revoked."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from server.accounts.keys import KEYS_PER_USER_MAX, ApiKeys
from server.accounts.users import Users
from server.db.models import ApiKey, User
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound
from tests.clocks import FakeClock


@pytest.fixture
async def ann(users: Users) -> User:
    """Somebody."""
    return await users.add("ann", "member")


async def _last_use(database: Database, key_id: UUID) -> timedelta | None:
    async with database.transaction(everybody=True) as session:
        row = await session.get_one(ApiKey, key_id)
    return None if row.last_used_at is None else row.last_used_at - row.created_at


async def test_a_key_says_who_gave_it(keys: ApiKeys, ann: User) -> None:
    """It begins with our sign, is listed by its beginning, and the principal knows which key it was."""
    row, key = await keys.create(ann.id, "  editor ")
    assert key.startswith("wf-")
    assert len(key) == 46
    assert row.label == "editor"
    assert [listed.prefix for listed in await keys.of(ann.id)] == [key[:11]]
    principal = await keys.principal(key)
    assert principal is not None
    assert (principal.id, principal.name, principal.role, principal.key_id) == (ann.id, "ann", "member", row.id)


async def test_keys_that_nobody_made(keys: ApiKeys) -> None:
    """They are nobody's."""
    for key in ("", "wf-", "x", "wf-" + "A" * 43, "ä\0"):
        assert await keys.principal(key) is None


async def test_a_key_expires(keys: ApiKeys, clock: FakeClock, ann: User) -> None:
    """After its days it is no key; one without days lives on."""
    _, brief = await keys.create(ann.id, "brief", days=1)
    _, lasting = await keys.create(ann.id, "lasting")
    clock.advance(timedelta(days=1, seconds=-1))
    assert await keys.principal(brief) is not None
    clock.advance(timedelta(seconds=1))
    assert await keys.principal(brief) is None
    assert await keys.principal(lasting) is not None


async def test_days_that_will_not_do(keys: ApiKeys, ann: User) -> None:
    """One day to ten years."""
    for days in (0, -1, 3651, 10**30):
        with pytest.raises(InvalidRequest, match=r"A key expires after 1 to 3650 days, or never.") as caught:
            await keys.create(ann.id, "x", days=days)
        assert caught.value.param == "expires_in_days"


async def test_labels_that_will_not_do(keys: ApiKeys, ann: User) -> None:
    """One line of at most a hundred characters."""
    for label in ("", "   ", "x" * 101, "a\0b", "a\nb", "\ud800", "\x7f"):
        with pytest.raises(InvalidRequest, match=r"A label has 1 to 100 characters on one line.") as caught:
            await keys.create(ann.id, label)
        assert caught.value.param == "label"


async def test_labels_that_will_do(keys: ApiKeys, ann: User) -> None:
    """Any writing."""
    for label in ("x", "x" * 100, "Anns Klavier 🎹", "می‌خواهم", "a/b: c"):
        assert (await keys.create(ann.id, label))[0].label == label


async def test_a_revoked_key_is_gone(keys: ApiKeys, users: Users, ann: User) -> None:
    """Its owner ends it, at once and for good; nobody else can."""
    row, key = await keys.create(ann.id, "x")
    ben = await users.add("ben", "admin")
    with pytest.raises(NotFound, match=r"There is no such key."):
        await keys.revoke(row.id, ben.id)
    assert await keys.principal(key) is not None
    await keys.revoke(row.id, ann.id)
    assert await keys.principal(key) is None
    assert await keys.of(ann.id) == []
    with pytest.raises(NotFound, match=r"There is no such key."):
        await keys.revoke(row.id, ann.id)


async def test_the_last_use_is_written_once_a_minute(
    keys: ApiKeys, database: Database, clock: FakeClock, ann: User
) -> None:
    """A key in constant use costs one write a minute."""
    row, key = await keys.create(ann.id, "x")
    assert await _last_use(database, row.id) is None
    seen = []
    for _ in range(5):
        clock.advance(timedelta(seconds=25))
        await keys.principal(key)
        seen.append(await _last_use(database, row.id))
    assert [use.total_seconds() for use in seen if use] == [25, 25, 25, 100, 100]


async def test_a_hundred_keys_are_enough(keys: ApiKeys, ann: User) -> None:
    """Also when the last ones are made at once; a revoked key makes room."""
    for number in range(KEYS_PER_USER_MAX - 1):
        await keys.create(ann.id, str(number))
    results = await asyncio.gather(*(keys.create(ann.id, "last") for _ in range(4)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Conflict)]
    assert [refusal.code for refusal in refused] == ["too_many_keys"] * 3
    newest, *_ = listed = await keys.of(ann.id)
    assert len(listed) == 100
    await keys.revoke(newest.id, ann.id)
    await keys.create(ann.id, "again")
