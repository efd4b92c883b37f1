"""Row-level security: what the app's own connections can reach, whatever query is on them."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import SystemClock, uuid7
from server.db import session
from server.db.models import Base
from server.db.session import APP_ROLE, Database
from server.errors import Unavailable

CONTENT = ("conversations", "messages", "member_answers")
COUNTED = (
    *("api_keys", "login_sessions", "setup_tokens", "usage", "council_runs"),
    *("cloud_policies", "cloud_consents", "cloud_spend"),
)
# Only added to (tests/privacy/test_egress.py), and only read (tests/upkeep/test_sums.py).
ADDED = ("egress", "usage_days")

INSERTS = {
    "conversations": (
        "INSERT INTO conversations VALUES (:id, :who, 'secret', 'm', NULL, NULL, now(), now(), NULL, NULL)"
    ),
    "messages": (
        "INSERT INTO messages (id, conversation_id, user_id, role, content, thinking, model, state, created_at,"
        " updated_at) VALUES (:id, :id, :who, 'user', 'secret', '', 'm', 'complete', now(), now())"
    ),
    "member_answers": (
        "INSERT INTO member_answers VALUES (:id, :id, :id, :who, 'A', 'm', 'member', 'secret', 'complete', 1)"
    ),
    "api_keys": "INSERT INTO api_keys VALUES (:id, :who, 'label', 'wf-', uuid_send(:id), now(), NULL, NULL, NULL)",
    "login_sessions": "INSERT INTO login_sessions VALUES (uuid_send(:id), :who, now(), now())",
    "setup_tokens": "INSERT INTO setup_tokens VALUES (:who, uuid_send(:id), now())",
    "usage": (
        "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms,"
        " total_ms, outcome, started_at) VALUES (:id, :who, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed', now())"
    ),
    "council_runs": (
        "INSERT INTO council_runs VALUES (:id, :who, 'council', 'duo', 'open', NULL, 2, '', 'worth', '{}', '[]', NULL,"
        " NULL, NULL, NULL, NULL, 'completed', now(), 1, NULL)"
    ),
    "cloud_policies": "INSERT INTO cloud_policies VALUES (:id, 'own', :who, '{}', now())",
    "cloud_consents": (
        "INSERT INTO cloud_consents VALUES (uuid_send(:id), :who, :id, NULL, 'p', 'm', '', 0, now(), now())"
    ),
    "cloud_spend": "INSERT INTO cloud_spend VALUES (:who, now(), 0, 0)",
}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With one connection, so that every transaction takes the one before it's."""
    opened = Database(database_url, connections_max=1)
    yield opened
    await opened.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Who migrated."""
    connection = await asyncpg.connect(make_url(database_url).set(drivername="postgresql").render_as_string(False))  # noqa: FBT003
    yield connection
    await connection.close()


async def add_person(database: Database) -> UUID:
    """Somebody with a row in every table."""
    who = uuid4()
    async with database.transaction(of=who) as session:
        await session.execute(
            text("INSERT INTO users VALUES (:id, :name, 'member', NULL, now(), NULL)"), {"id": who, "name": str(who)}
        )
        for insert in INSERTS.values():
            await session.execute(text(insert), {"id": uuid7(SystemClock().now()), "who": who})
    return who


async def count(session: AsyncSession, table: str) -> int:
    """Rows that this transaction sees."""
    return await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0  # noqa: S608 (names of ours)


async def run(database: Database, of: UUID | None, statement: str, **values: object) -> None:
    """One statement, in a transaction of somebody."""
    async with database.transaction(of=of) as session:
        await session.execute(text(statement), values)


async def refused(database: Database, of: UUID | None, statement: str, **values: object) -> None:
    """The policies do not let it pass."""
    with pytest.raises(DBAPIError, match="row-level security"):
        await run(database, of, statement, **values)


@pytest.mark.parametrize("table", CONTENT + COUNTED)
async def test_a_person_sees_and_changes_their_own_rows_only(database: Database, table: str) -> None:
    """A query without WHERE finds one row of two; what is changed or deleted without WHERE is that row."""
    ada, bob = await add_person(database), await add_person(database)
    async with database.transaction(of=ada) as session:
        assert await count(session, table) == 1
        changed = await session.execute(text(f"UPDATE {table} SET user_id = user_id"))  # noqa: S608
        gone = await session.execute(text(f"DELETE FROM {table}"))  # noqa: S608
        assert (changed.rowcount, gone.rowcount) == (1, 1)  # type: ignore[attr-defined]
    async with database.transaction(of=bob) as session:
        assert await count(session, table) == 1


@pytest.mark.parametrize("table", CONTENT + COUNTED)
async def test_nobody_writes_a_row_of_somebody_else(database: Database, table: str) -> None:
    """Neither a new one, nor by giving one's own away."""
    ada, bob = await add_person(database), await add_person(database)
    async with database.transaction(of=bob) as session:
        # There may be one for each person only, which is not what is looked at here.
        for one in ("setup_tokens", "cloud_policies", "cloud_spend"):
            await session.execute(text(f"DELETE FROM {one}"))  # noqa: S608
    await refused(database, ada, INSERTS[table], id=uuid7(SystemClock().now()), who=bob)
    await refused(database, ada, f"UPDATE {table} SET user_id = :bob", bob=bob)  # noqa: S608


@pytest.mark.parametrize("table", CONTENT + COUNTED)
async def test_a_transaction_of_nobody_sees_nothing(database: Database, table: str) -> None:
    """Whoever forgets to say whose rows it is about gets none, and can write none."""
    ada = await add_person(database)
    async with database.transaction() as session:
        assert await count(session, table) == 0
    await refused(database, None, INSERTS[table], id=uuid7(SystemClock().now()), who=ada)


async def test_everybody_is_counted_and_nobody_is_read(database: Database) -> None:
    """Usage, keys and sessions of all are there for authentication and reports; what people wrote is not."""
    await add_person(database)
    await add_person(database)
    async with database.transaction(everybody=True) as session:
        assert [await count(session, table) for table in COUNTED] == [2] * len(COUNTED)
        assert [await count(session, table) for table in CONTENT] == [0] * len(CONTENT)


async def test_a_connection_goes_back_without_its_person(database: Database) -> None:
    """After a commit, after an error, after a failed statement: the next transaction on it is nobody's."""
    ada = await add_person(database)
    async with database.transaction(of=ada) as session:
        assert await count(session, "messages") == 1
        backend = await session.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(DBAPIError):
        await run(database, ada, "SELECT 1 / 0")
    with pytest.raises(DBAPIError):
        await run(database, ada, "SELECT set_config('wirthforge.everybody', 'on', true), 1 / 0")
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) == backend
        assert await count(session, "messages") == 0
        assert await count(session, "usage") == 0


async def test_the_app_cannot_name_a_partition_nor_lift_the_rules(database: Database) -> None:
    """Partitions have no policies, so the app has no right to them; what it does not own it cannot change."""
    ada = await add_person(database)
    async with database.transaction(of=ada) as session:
        partitions = (await session.scalars(text("SELECT inhrelid::regclass::text FROM pg_inherits"))).all()
    partitions = [name for name in partitions if name.startswith(("messages_2", "member_answers_2", "messages_def"))]
    assert partitions
    for statement in (
        *(f"SELECT * FROM {partition}" for partition in partitions),  # noqa: S608
        "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE messages NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY own ON messages",
        "TRUNCATE usage",
        "UPDATE audit_log SET actor_name = 'somebody else'",
        "DELETE FROM audit_log",
        f"ALTER ROLE {APP_ROLE} BYPASSRLS",
    ):
        with pytest.raises(DBAPIError):
            await run(database, ada, statement)


async def test_every_table_of_people_is_under_the_rule(owner: asyncpg.Connection) -> None:
    """Whoever adds a table with a user_id, and forgets its policy or its rights, reads it here."""
    # Quotas are an admin's word about a person, not that person's.
    of_people = {name for name, table in Base.metadata.tables.items() if "user_id" in table.c} - {"quotas"}
    assert of_people == set(CONTENT + COUNTED + ADDED)
    rows = await owner.fetch(
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced, relispartition,"
        " has_table_privilege($1, oid, 'SELECT') AS readable FROM pg_class"
        " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace",
        APP_ROLE,
    )
    assert {row["relname"] for row in rows if row["forced"]} == of_people
    assert {row["relname"] for row in rows if not row["readable"]} == {
        row["relname"] for row in rows if row["relispartition"]
    }


async def test_a_database_without_the_role_is_called_not_migrated(postgres_url: str) -> None:
    """Somebody whose login may not act as the app is told what to do."""
    admin = await asyncpg.connect(make_url(postgres_url).set(drivername="postgresql").render_as_string(False))  # noqa: FBT003
    name = f"wf_stranger_{uuid4().hex[:8]}"
    await admin.execute(f"CREATE ROLE {name} LOGIN")
    stranger = Database(make_url(postgres_url).set(username=name).render_as_string(False))  # noqa: FBT003
    try:
        with pytest.raises(Unavailable, match=f"GRANT {APP_ROLE}"):
            await stranger.ping()
    finally:
        await stranger.close()
        await admin.execute(f"DROP ROLE {name}")
        await admin.close()


async def test_a_search_finds_the_words_of_its_person_alone(database: Database) -> None:
    """The function that searches runs as the owner, whom policies let through; it asks for the principal itself."""
    ada = await add_person(database)
    await add_person(database)
    search = text("SELECT count(*) FROM found_messages('secret')")
    async with database.transaction(of=ada) as session:
        assert await session.scalar(search) == 1
    for everybody in (False, True):
        async with database.transaction(everybody=everybody) as session:
            assert await session.scalar(search) == 0


@pytest.mark.parametrize("login", ["postgres", "wirthforge_nobody"])
async def test_a_postgres_of_before_the_role_is_told_to_migrate(
    postgres_url: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer command that meets an older server's Postgres: whether it takes the role or logs in with it."""
    monkeypatch.setattr(session, "APP_ROLE", "wirthforge_nobody")
    url = make_url(postgres_url)
    older = Database((url if login == "postgres" else url.set(username=login)).render_as_string(False))  # noqa: FBT003
    try:
        with pytest.raises(Unavailable, match="wirthforge migrate"):
            await older.ping()
    finally:
        await older.close()
