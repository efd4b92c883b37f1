"""Policies as they are kept: who may change which, from when on they hold, and what the log tells."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError

from server.clock import uuid7
from server.db.models import AuditEntry, CloudPolicy, CloudProvider, User
from server.db.session import Database
from server.errors import InvalidRequest, NotFound, Unavailable
from server.privacy import version
from server.privacy.decision import Budget
from server.privacy.policies import BOX, Actor, Policies, Standing, Target, Whose
from server.privacy.policy import SILENT, For, Policy, Scopes
from server.privacy.version import FRESH_MS, Version
from tests.clocks import BEGINNING, FakeClock

ROOT = Actor("root", UUID(int=7))
ANN, BEN, NOBODY = UUID(int=1), UUID(int=2), UUID(int=99)
MINE, HERS = Whose.own_of(ANN), Whose.cap_of(ANN)
HERSELF = Actor("ann", ANN)


@pytest.fixture
def clock() -> FakeClock:
    """Noon, until the test says otherwise."""
    return FakeClock()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With Ann and Ben."""
    database = Database(database_url, connections_max=10)
    async with database.transaction(everybody=True) as session:
        for user_id, name in ((ANN, "ann"), (BEN, "ben")):
            session.add(User(id=user_id, name=name, role="member", created_at=BEGINNING))
    yield database
    await database.close()


def _policies(database: Database, clock: FakeClock) -> Policies:
    return Policies(database, clock, Version(database, clock))


@pytest.fixture
def policies(database: Database, clock: FakeClock) -> Policies:
    """The policies, as one replica sees them."""
    return _policies(database, clock)


async def _version(database: Database) -> int:
    async with database.transaction() as session:
        return await version.read(session)


async def _log(database: Database) -> list[AuditEntry]:
    async with database.transaction() as session:
        return list(await session.scalars(select(AuditEntry).order_by(AuditEntry.at, AuditEntry.id)))


async def test_where_nothing_was_said_all_are_silent(policies: Policies) -> None:
    """And the version is that of a box on which nothing was ever changed."""
    assert await policies.of(ANN) == Standing(version.NONE_YET, Scopes())
    assert await policies.box() == SILENT
    assert await policies.caps() == []
    assert (await policies.cap(ANN)).policy == SILENT


async def test_each_scope_has_its_own(policies: Policies) -> None:
    """What is said for one person is not said for another; the box's is everybody's."""
    await policies.set(ROOT, BOX, {"is_on": True, "mode": "allow"})
    await policies.set(ROOT, HERS, {"mode": "ask", "for": [{"provider": "openai", "mode": "never"}]})
    await policies.set(HERSELF, MINE, {"mode": "allow", "patience_ms": 5})
    box = Policy(is_on=True, mode="allow")
    cap = Policy(mode="ask", for_=(For(provider="openai", mode="never"),))
    assert (await policies.of(ANN)).scopes == Scopes(box=box, cap=cap, own=Policy(mode="allow", patience_ms=5))
    assert (await policies.of(BEN)).scopes == Scopes(box=box)
    assert await policies.box() == box
    assert [(each.name, each.policy) for each in await policies.caps()] == [("ann", cap)]


async def test_set_replaces_amend_keeps_and_nothing_is_none(policies: Policies, database: Database) -> None:
    """An empty policy leaves no row."""
    await policies.set(ROOT, BOX, {"mode": "ask", "is_on": True})
    assert await policies.set(ROOT, BOX, {"mode": "allow"}) == Policy(mode="allow")
    assert await policies.amend(ROOT, BOX, {"is_on": False}, ["mode", "patience_ms"]) == Policy(is_on=False)
    assert await policies.amend(ROOT, BOX, {"allows_code": True}) == Policy(is_on=False, allows_code=True)
    assert await policies.set(ROOT, BOX, {}) == SILENT
    assert await policies.set(ROOT, BOX, {}) == SILENT
    async with database.transaction(everybody=True) as session:
        assert (await session.scalars(select(CloudPolicy))).all() == []


async def test_every_change_counts_up_and_only_changes(policies: Policies, database: Database) -> None:
    """Of whichever scope; saying the same again is no change, nor is what is refused."""
    seen = [await _version(database)]
    exceptions = {"for": [{"provider": "openai", "mode": "ask"}]}
    for whose, said in ((BOX, {"mode": "ask"}), (HERS, exceptions), (MINE, {"mode": "ask"}), (MINE, {})):
        for _ in range(2):
            await policies.set(ROOT, whose, said)
        seen.append(await _version(database))
        with pytest.raises(InvalidRequest):
            await policies.set(ROOT, whose, {"mode": "perhaps"})
    assert seen == [0, 1, 2, 3, 4]


async def test_nobody_is_asked_for_policies_while_they_are_fresh(
    policies: Policies, database: Database, clock: FakeClock
) -> None:
    """A thousand decisions cost one reading; two seconds later the version is asked for, and nothing else."""
    await policies.set(ROOT, BOX, {"is_on": True})
    first = await policies.of(ANN)
    queries: list[str] = []
    for engine in (database._engine, database._readers):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    assert [await policies.of(ANN) for _ in range(1000)] == [first] * 1000
    assert queries == []
    clock.advance(timedelta(milliseconds=FRESH_MS))
    assert await policies.of(ANN) == first
    assert len(queries) == 1
    assert "cloud_policies" not in queries[0]


async def test_a_change_holds_here_at_once_and_elsewhere_when_it_is_no_longer_fresh(
    policies: Policies, database: Database, clock: FakeClock
) -> None:
    """What another replica decides on meanwhile is of an older version, which no send is made under."""
    other = _policies(database, clock)
    await policies.set(ROOT, BOX, {"is_on": True})
    before = await other.of(ANN)
    await policies.set(ROOT, BOX, {"is_on": False})
    assert (await policies.of(ANN)).scopes.box == Policy(is_on=False)
    assert await other.of(ANN) == before
    assert before.version < await _version(database)
    clock.advance(timedelta(milliseconds=FRESH_MS))
    assert (await other.of(ANN)).scopes.box == Policy(is_on=False)
    assert (await other.of(ANN)).version == await _version(database)


async def test_what_is_remembered_is_never_older_than_its_version(
    policies: Policies, database: Database, clock: FakeClock
) -> None:
    """While somebody changes it again and again, policies of the newest version are the newest policies."""
    other = _policies(database, clock)
    for patience_ms in range(1, 25):
        changing = asyncio.create_task(policies.set(HERSELF, MINE, {"patience_ms": patience_ms}))
        while not changing.done():
            other._version.forget()
            await other.of(ANN)
        await changing
        standing = await other.of(ANN)
        is_newest = standing.version == await _version(database)
        assert not is_newest or standing.scopes.own.patience_ms == patience_ms
        other._version.forget()
        assert (await other.of(ANN)).scopes.own.patience_ms == patience_ms


async def test_a_sender_and_a_change_take_turns(policies: Policies, database: Database) -> None:
    """Whoever holds the version sends under the policies of that version; the change waits for the commit."""
    await policies.set(ROOT, BOX, {"is_on": True})
    decided = await policies.of(ANN)
    async with database.transaction() as session:
        assert await version.hold(session) == decided.version
        switching_off = asyncio.create_task(policies.set(ROOT, BOX, {"is_on": False}))
        # A second reader is a turn of the database's in which the change could have committed.
        for _ in range(20):
            assert await _version(database) == decided.version
        assert not switching_off.done()
    await switching_off
    async with database.transaction() as session:
        assert await version.hold(session) != decided.version


async def test_changes_at_once_lose_nothing(policies: Policies, database: Database, clock: FakeClock) -> None:
    """From an empty box and of two replicas: each amends another field, and all are there afterwards."""
    replicas = (policies, _policies(database, clock))
    said: dict[str, object] = {
        "mode": "ask",
        "is_on": True,
        "allows_code": False,
        "patience_ms": 7,
        "detection_model": "tiny",
        "on_personal_data": "deny",
    }
    await asyncio.gather(
        *(replicas[at % 2].amend(ROOT, BOX, {name: value}) for at, (name, value) in enumerate(said.items()))
    )
    async with database.transaction(everybody=True) as session:
        row = await session.scalar(select(CloudPolicy))
    assert row is not None
    assert row.policy == said
    assert await _version(database) == len(said)
    log = sorted(await _log(database), key=lambda entry: len(entry.after or {}))
    assert [entry.before for entry in log] == [None, *(entry.after for entry in log[:-1])]


async def test_the_log_tells_what_admins_change_and_not_what_people_want(
    policies: Policies, database: Database, clock: FakeClock
) -> None:
    """The box's policy and bounds, before and after; a person's own policy is nobody else's."""
    for actor, whose, said in (
        (ROOT, BOX, {"is_on": True}),
        (ROOT, HERS, {"mode": "ask"}),
        (HERSELF, MINE, {"mode": "never"}),
        (Actor("command line"), HERS, {}),
        (ROOT, BOX, {"is_on": True}),
    ):
        clock.advance(timedelta(seconds=1))
        await policies.set(actor, whose, said)
    told = [
        (row.actor_name, row.actor_id, row.action, row.subject, row.subject_id, row.before, row.after)
        for row in await _log(database)
    ]
    assert told == [
        ("root", ROOT.id, "cloud_policy.set", "cloud policy of the box", None, None, {"is_on": True}),
        ("root", ROOT.id, "cloud_policy.set", "cloud policy of user ann", ANN, None, {"mode": "ask"}),
        ("command line", None, "cloud_policy.clear", "cloud policy of user ann", ANN, {"mode": "ask"}, None),
    ]


async def test_a_bad_policy_changes_nothing(policies: Policies, database: Database) -> None:
    """The error names the field; what was there stays, and the log is silent."""
    await policies.set(ROOT, HERS, {"mode": "ask"})
    for said, param in (
        ({"mode": "maybe"}, "mode"),
        ({"is_on": True}, "is_on"),
        ({"patience_ms": 5}, "patience_ms"),
        ({"x" * 200: 1}, "x" * 100),
    ):
        for change in (policies.set, policies.amend):
            with pytest.raises(InvalidRequest) as caught:
                await change(ROOT, HERS, said)
            assert caught.value.param == param
    assert (await policies.cap(ANN)).policy == Policy(mode="ask")
    assert len(await _log(database)) == 1


async def test_nobody_is_bounded_who_does_not_exist(policies: Policies) -> None:
    """Neither to set nor to read."""
    nobody = Whose.cap_of(NOBODY)
    for ask in (policies.set(ROOT, nobody, {"mode": "ask"}), policies.set(ROOT, nobody, {}), policies.cap(NOBODY)):
        with pytest.raises(NotFound, match=r"There is no such person\."):
            await ask


async def test_one_policy_for_each_scope(policies: Policies, database: Database) -> None:
    """Postgres itself refuses a second one, and a scope that does not exist or names too much."""
    for whose in (BOX, HERS, MINE):
        await policies.set(ROOT, whose, {"mode": "ask"})
    for scope, user_id in (("box", None), ("cap", ANN), ("own", ANN), ("box", BEN), ("cap", None), ("role", BEN)):
        with pytest.raises(IntegrityError):
            async with database.transaction(everybody=True) as session:
                session.add(CloudPolicy(id=uuid4(), scope=scope, user_id=user_id, policy={}, updated_at=BEGINNING))


async def test_somebody_elses_policy_is_out_of_reach(policies: Policies, database: Database) -> None:
    """A transaction of one person finds and changes nothing of another, whatever the query says."""
    await policies.set(ROOT, MINE, {"mode": "never"})
    await policies.set(ROOT, BOX, {"mode": "ask"})
    async with database.transaction(of=BEN) as session:
        assert (await session.scalars(select(CloudPolicy))).all() == []
        await session.execute(text("UPDATE cloud_policies SET policy = '{}'"))
        await session.execute(text("DELETE FROM cloud_policies"))
    assert (await policies.read(ANN)).scopes == Scopes(box=Policy(mode="ask"), own=Policy(mode="never"))


async def test_what_a_conversation_says_is_out_of_an_admins_reach(database: Database) -> None:
    """The transaction in which an admin reads and changes policies sees no conversation, so none of their choices."""
    async with database.transaction(of=ANN) as session:
        await session.execute(
            text(
                "INSERT INTO conversations (id, user_id, title, model, created_at, updated_at, cloud)"
                " VALUES (:id, :who, 't', 'm', now(), now(), 'private')"
            ),
            {"id": uuid7(BEGINNING), "who": ANN},
        )
        assert await session.scalar(text("SELECT count(*) FROM conversations WHERE cloud = 'private'")) == 1
    async with database.transaction(everybody=True) as session:
        assert await session.scalar(text("SELECT count(*) FROM conversations")) == 0


async def test_a_policy_that_cannot_be_read_is_not_taken_for_silence(policies: Policies, database: Database) -> None:
    """Of a newer server, or damaged: nothing is decided on it, and an admin can set it anew."""
    await policies.set(ROOT, BOX, {"mode": "never"})
    for damage in ('{"mode": "sometimes"}', '{"is_on": true, "newer": 1}', '{"is_on": "yes"}'):
        async with database.transaction(everybody=True) as session:
            await session.execute(text("UPDATE cloud_policies SET policy = CAST(:said AS jsonb)"), {"said": damage})
        for ask in (policies.read(ANN), policies.box()):
            with pytest.raises(Unavailable) as caught:
                await ask
            assert caught.value.code == "cloud_policy_unreadable"
    assert await policies.set(ROOT, BOX, {"mode": "never"}) == Policy(mode="never")
    assert (await policies.of(ANN)).scopes.box == Policy(mode="never")


async def test_without_postgres_nothing_is_known(clock: FakeClock) -> None:
    """Also where it was known before."""
    database = Database("postgresql://x@127.0.0.1:1/x")
    with pytest.raises(Unavailable, match="Postgres"):
        await _policies(database, clock).of(ANN)
    await database.close()


async def test_targets_are_the_models_of_enabled_providers(policies: Policies, database: Database) -> None:
    """By provider; those of one that is switched off are none."""
    async with database.transaction() as session:
        for name, is_enabled in (("zeta", True), ("openai", True), ("off", False)):
            models = [{"name": f"{name}-{size}"} for size in ("large", "small")]
            session.add(
                CloudProvider(
                    id=uuid4(),
                    name=name,
                    kind="openai",
                    url="https://example.org/v1",
                    sealed_key=b"",
                    models=models,
                    is_enabled=is_enabled,
                    updated_at=BEGINNING,
                )
            )
    assert await policies.targets() == [
        Target("openai", "openai-large"),
        Target("openai", "openai-small"),
        Target("zeta", "zeta-large"),
        Target("zeta", "zeta-small"),
    ]


async def test_the_budget_is_this_months(policies: Policies, database: Database) -> None:
    """Of this person; cents of the quota are ten thousand micros each."""
    row = text("INSERT INTO cloud_spend VALUES (:who, CAST(:month AS date), 7, 500)")
    async with database.transaction(everybody=True) as session:
        for who, month in ((ANN, BEGINNING.date().replace(day=1)), (ANN, BEGINNING.date().replace(month=10, day=1))):
            await session.execute(row, {"who": who, "month": month})
    assert await policies.budget(ANN, 3) == Budget(limit_micros=30_000, spent_micros=500, reserved_micros=7)
    assert await policies.budget(ANN, None) == Budget(limit_micros=None, spent_micros=500, reserved_micros=7)
    assert await policies.budget(BEN, 0) == Budget(limit_micros=0, spent_micros=0, reserved_micros=0)
