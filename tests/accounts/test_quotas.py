"""Quotas: what is in force, from which request on, and what the log tells."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from quotas.ledger import Ledger
from quotas.policy import Limits
from server.accounts.access import FRESH_MS, Access
from server.accounts.quotas import DEFAULT, Actor, Quotas, Scope
from server.accounts.users import Users
from server.db.models import User
from server.db.session import Database
from server.errors import InvalidRequest, NotFound, Unavailable
from server.messages import Principal
from server.privacy import version
from tests.clocks import FakeClock

ADMIN = Actor("root", UUID(int=7))
NOBODY = UUID(int=0)
MEMBERS = Scope.of_role("member")


@pytest.fixture
def quotas(database: Database, ledger: Ledger, clock: FakeClock) -> Quotas:
    """The quotas, as one replica sees them."""
    return Quotas(database, Access(ledger, clock), clock, version.bump)


@pytest.fixture
def other(database: Database, ledger: Ledger, clock: FakeClock) -> Quotas:
    """The quotas, as another replica sees them."""
    return Quotas(database, Access(ledger, clock), clock, version.bump)


@pytest.fixture
async def cut_off(database: Database, clock: FakeClock) -> AsyncIterator[Quotas]:
    """The quotas, as a replica sees them that cannot reach Redis."""
    async with Redis.from_url("redis://127.0.0.1:1", decode_responses=True) as redis:
        yield Quotas(database, Access(Ledger(redis), clock), clock, version.bump)


@pytest.fixture
async def ann(users: Users) -> User:
    """A member."""
    return await users.add("ann", "member")


def _principal(user: User) -> Principal:
    return Principal(id=user.id, name=user.name, role="admin" if user.role == "admin" else "member")


async def _limits(quotas: Quotas, user: User) -> Limits:
    return (await quotas.of(_principal(user)))[0]


async def test_the_strongest_rule_holds(quotas: Quotas, ann: User, users: Users) -> None:
    """A person's own rule comes before their role's, and that before the default; others are not touched."""
    ben, cleo = await users.add("ben", "member"), await users.add("cleo", "admin")
    await quotas.set_rule(ADMIN, DEFAULT, {"weight": 50, "in_flight_max": 1, "council_size_max": 2})
    await quotas.set_rule(ADMIN, MEMBERS, {"in_flight_max": 2, "council_size_max": 3})
    await quotas.set_rule(ADMIN, Scope.of_user(ann.id), {"council_size_max": None})
    assert await _limits(quotas, ann) == Limits(weight=50, in_flight_max=2, council_size_max=None)
    assert await _limits(quotas, ben) == Limits(weight=50, in_flight_max=2, council_size_max=3)
    assert await _limits(quotas, cleo) == Limits(weight=50, in_flight_max=1, council_size_max=2)
    won = (await quotas.in_force(ann.id)).won
    assert [won[name] for name in ("council_size_max", "in_flight_max", "weight", "models")] == [
        *("user ann", "role member", "default", "built-in"),
    ]


async def test_a_new_role_brings_its_limits(quotas: Quotas, ann: User, users: Users) -> None:
    """The role that counts is the one of the request."""
    await quotas.set_rule(ADMIN, Scope.of_role("admin"), {"weight": 900})
    assert (await _limits(quotas, ann)).weight == 100
    assert (await _limits(quotas, await users.change(ann.id, role="admin"))).weight == 900


async def test_nobody_is_asked_while_rules_are_fresh(
    quotas: Quotas, ann: User, database: Database, redis: Redis
) -> None:
    """The limits of a thousand requests cost one reading: no query and no Redis command after the first."""
    await quotas.set_rule(ADMIN, DEFAULT, {"weight": 50})
    first = await quotas.of(_principal(ann))
    queries: list[str] = []
    event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    before = (await redis.info("stats"))["total_commands_processed"]
    assert [await quotas.of(_principal(ann)) for _ in range(1000)] == [first] * 1000
    assert (await redis.info("stats"))["total_commands_processed"] == before + 1
    assert queries == []


async def test_many_who_find_out_at_once_read_once(quotas: Quotas, ann: User, database: Database) -> None:
    """When rules are forgotten under load, one reads them and the others wait for that."""
    _, version = await quotas.of(_principal(ann))
    queries: list[str] = []
    event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))

    async def again() -> Limits:
        quotas._access.forget(version)
        return (await quotas.of(_principal(ann)))[0]

    await asyncio.gather(*(again() for _ in range(50)))
    assert len([query for query in queries if "FROM quotas" in query]) == 1


async def test_a_change_reaches_other_replicas(quotas: Quotas, other: Quotas, ledger: Ledger, ann: User) -> None:
    """The ledger's version is another then; whoever learns that forgets, asks again, and has the new limits."""
    assert await other.of(_principal(ann)) == (Limits(), "")
    assert (await quotas.set_rule(ADMIN, DEFAULT, {"weight": 50})).is_announced
    limits, version = await other.of(_principal(ann))
    assert limits.weight == 100
    assert version != await ledger.policy_version()
    other._access.forget(version)
    assert await other.of(_principal(ann)) == (Limits(weight=50), await ledger.policy_version())


async def test_every_change_has_a_version(quotas: Quotas, ledger: Ledger) -> None:
    """Setting and clearing renew it; what changes nothing leaves it."""
    versions = [await ledger.policy_version()]
    for rule in ({"weight": 50}, {"weight": 60}, {}):
        await quotas.set_rule(ADMIN, DEFAULT, rule)
        versions.append(await ledger.policy_version())
        await quotas.set_rule(ADMIN, DEFAULT, rule)
        assert await ledger.policy_version() == versions[-1]
    assert len(set(versions)) == 4


async def test_old_rules_never_have_the_new_version(quotas: Quotas, other: Quotas, ledger: Ledger, ann: User) -> None:
    """While somebody changes them again and again, limits under the newest version are the newest limits."""
    for weight in range(1, 40):
        changing = asyncio.create_task(quotas.set_rule(ADMIN, DEFAULT, {"weight": weight}))
        while not changing.done():
            other._access._epoch = None
            await other.of(_principal(ann))
        limits, version = await other.of(_principal(ann))
        assert version != await ledger.policy_version() or limits.weight == weight
        other._access.forget(version)
        assert (await _limits(other, ann)).weight == weight


async def test_forgetting_another_version_keeps_the_rules(quotas: Quotas, ann: User, clock: FakeClock) -> None:
    """Whoever learns late that old rules were stale does not cost the new ones."""
    await quotas.of(_principal(ann))
    kept = quotas._snapshot
    quotas._access.forget("older")
    clock.advance(timedelta(milliseconds=FRESH_MS - 1))
    await quotas.of(_principal(ann))
    assert quotas._snapshot is kept


async def test_without_redis_a_change_holds_within_ten_seconds(
    quotas: Quotas, cut_off: Quotas, ann: User, clock: FakeClock
) -> None:
    """It is made, is told to be unannounced, holds here at once, and elsewhere when the rules are no longer fresh."""
    assert (await _limits(quotas, ann)).weight == 100
    change = await cut_off.set_rule(ADMIN, DEFAULT, {"weight": 50})
    assert not change.is_announced
    assert await cut_off.of(_principal(ann)) == (Limits(weight=50), "")
    assert (await _limits(quotas, ann)).weight == 100
    clock.advance(timedelta(milliseconds=FRESH_MS))
    assert (await _limits(quotas, ann)).weight == 50


async def test_without_postgres_there_are_no_limits_to_go_by(ledger: Ledger, clock: FakeClock) -> None:
    """Nobody is let in unlimited because the rules cannot be read."""
    database = Database("postgresql://x@127.0.0.1:1/x")
    with pytest.raises(Unavailable, match="Postgres"):
        await Quotas(database, Access(ledger, clock), clock, version.bump).of(
            Principal(id=NOBODY, name="ann", role="member")
        )
    await database.close()


async def test_a_rule_is_replaced_amended_and_cleared(quotas: Quotas, ann: User) -> None:
    """Setting replaces all of it, amending only what is named; the empty rule is none."""
    scope = Scope.of_user(ann.id)
    assert (await quotas.set_rule(ADMIN, scope, {"weight": 50, "tokens_per_day": 9})).rule == {
        "weight": 50,
        "tokens_per_day": 9,
    }
    amended = await quotas.amend_rule(ADMIN, scope, {"in_flight_max": None}, ["weight", "models"])
    assert amended.rule == {"tokens_per_day": 9, "in_flight_max": None}
    assert (await quotas.set_rule(ADMIN, scope, {"models": ["b", "a"]})).rule == {"models": ["b", "a"]}
    assert (await quotas.standing(scope)).rule == {"models": ["b", "a"]}
    assert (await quotas.clear_rule(ADMIN, scope)).rule == {}
    assert await quotas.rules() == []
    assert await _limits(quotas, ann) == Limits()


async def test_rules_are_listed_in_order(quotas: Quotas, ann: User, users: Users, clock: FakeClock) -> None:
    """The default, roles, people by name; with the person as they are called now."""
    ben = await users.add("ben", "member")
    for scope in (Scope.of_user(ben.id), MEMBERS, Scope.of_user(ann.id), DEFAULT, Scope.of_role("admin")):
        await quotas.set_rule(ADMIN, scope, {"weight": 50})
    entries = await quotas.rules()
    assert [entry.subject for entry in entries] == ["default", "role admin", "role member", "user ann", "user ben"]
    assert [entry.scope for entry in entries][-2:] == [Scope.of_user(ann.id), Scope.of_user(ben.id)]
    assert {entry.updated_at for entry in entries} == {clock.now()}


async def test_a_bad_rule_changes_nothing(quotas: Quotas, ann: User) -> None:
    """The error names the field; the rule that was there stays, and the log is silent."""
    scope = Scope.of_user(ann.id)
    await quotas.set_rule(ADMIN, scope, {"weight": 50})
    for rule, param in (
        ({"weight": 0}, "weight"),
        ({"weight": 60, "tokens_per_day": -1}, "tokens_per_day"),
        ({"weight": True}, "weight"),
        ({"x" * 200: 1}, "x" * 100),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await quotas.set_rule(ADMIN, scope, rule)
        assert caught.value.param == param
        with pytest.raises(InvalidRequest):
            await quotas.amend_rule(ADMIN, scope, rule)
    assert (await quotas.standing(scope)).rule == {"weight": 50}
    assert len(await quotas.audit()) == 1


async def test_nobody_has_a_quota_who_does_not_exist(quotas: Quotas) -> None:
    """Neither to set, nor to clear, nor to read."""
    scope = Scope.of_user(NOBODY)
    for ask in (
        quotas.set_rule(ADMIN, scope, {"weight": 50}),
        quotas.clear_rule(ADMIN, scope),
        quotas.standing(scope),
        quotas.in_force(NOBODY),
    ):
        with pytest.raises(NotFound, match=r"There is no such person."):
            await ask
    assert await quotas.audit() == []


async def test_the_log_tells_every_change(quotas: Quotas, ann: User, clock: FakeClock) -> None:
    """Who, when, whose, and the rule before and after; newest first. What changed nothing is not in it."""
    scope = Scope.of_user(ann.id)
    for rule in ({"weight": 50}, {"weight": 50}, {"weight": 60, "models": None}):
        clock.advance(timedelta(seconds=1))
        await quotas.set_rule(ADMIN, scope, rule)
    clock.advance(timedelta(seconds=1))
    await quotas.clear_rule(Actor("command line"), scope)
    await quotas.clear_rule(ADMIN, DEFAULT)
    told = [
        (row.actor_name, row.actor_id, row.action, row.subject, row.subject_id, row.before, row.after)
        for row in await quotas.audit()
    ]
    assert told == [
        ("command line", None, "quota.clear", "user ann", ann.id, {"weight": 60, "models": None}, None),
        ("root", ADMIN.id, "quota.set", "user ann", ann.id, {"weight": 50}, {"weight": 60, "models": None}),
        ("root", ADMIN.id, "quota.set", "user ann", ann.id, None, {"weight": 50}),
    ]
    assert [row.at for row in await quotas.audit(count_max=1)] == [clock.now()]


async def test_the_log_has_no_json_null(quotas: Quotas, database: Database) -> None:
    """Where there was no rule, the column is empty for whoever asks Postgres itself."""
    await quotas.set_rule(ADMIN, DEFAULT, {"weight": 50})
    async with database.transaction(everybody=True) as session:
        assert await session.scalar(text("SELECT count(*) FROM audit_log WHERE before IS NULL")) == 1


async def test_changes_at_once_take_turns(quotas: Quotas, ann: User) -> None:
    """Of many who set one rule at the same time all succeed; the log is a chain from nothing to what is there."""
    scope = Scope.of_user(ann.id)
    await asyncio.gather(*(quotas.set_rule(ADMIN, scope, {"weight": weight}) for weight in range(1, 21)))
    log = list(reversed(await quotas.audit()))
    # The clock stands still, so that only the chain itself can order it.
    after_of = {None if row.before is None else row.before["weight"]: row.after for row in log}
    steps, weight = 0, None
    while weight in after_of:
        after = after_of[weight]
        assert after is not None
        steps, weight = steps + 1, after["weight"]
    assert steps == len(log) == 20
    assert (await quotas.standing(scope)).rule == {"weight": weight}


async def test_amendments_at_once_lose_nothing(quotas: Quotas) -> None:
    """Each sets its own limit, and all of them are there afterwards."""
    values: dict[str, object] = {"weight": 50, "in_flight_max": 3, "tokens_per_day": 9, "models": ["a"]}
    await asyncio.gather(*(quotas.amend_rule(ADMIN, DEFAULT, {name: value}) for name, value in values.items()))
    assert (await quotas.standing(DEFAULT)).rule == values


async def test_one_rule_for_each_scope(quotas: Quotas, ann: User, database: Database) -> None:
    """Postgres itself refuses a second one, a scope that does not exist, and one that names too much."""
    await quotas.set_rule(ADMIN, DEFAULT, {"weight": 50})
    await quotas.set_rule(ADMIN, MEMBERS, {"weight": 50})
    await quotas.set_rule(ADMIN, Scope.of_user(ann.id), {"weight": 50})
    insert = text(
        "INSERT INTO quotas (id, scope, role, user_id, rule, updated_at) "
        "VALUES (gen_random_uuid(), :scope, :role, :user_id, '{}', now())"
    )
    for scope, role, user_id in (
        ("default", None, None),
        ("role", "member", None),
        ("user", None, ann.id),
        ("role", None, None),
        ("role", "guest", None),
        ("user", None, None),
        ("default", "admin", None),
        ("user", "admin", ann.id),
        ("team", None, None),
        ("user", None, NOBODY),
    ):
        with pytest.raises(IntegrityError):
            async with database.transaction(everybody=True) as session:
                await session.execute(insert, {"scope": scope, "role": role, "user_id": user_id})


async def test_a_quota_goes_with_its_person_and_the_log_stays(quotas: Quotas, ann: User, database: Database) -> None:
    """Deleting somebody from the database leaves no rule behind, and nothing of the log is lost."""
    await quotas.set_rule(Actor("ann", ann.id), Scope.of_user(ann.id), {"weight": 50})
    async with database.transaction(everybody=True) as session:
        await session.execute(text("DELETE FROM users"))
    assert await quotas.rules() == []
    assert [row.subject for row in await quotas.audit()] == ["user ann"]
