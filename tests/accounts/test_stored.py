"""What lies in the database is of no use to whoever steals it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.users import Users
from server.db.session import async_url
from tests.accounts.parts import HOME, PASSWORD


async def _everything(url: str) -> str:
    """All rows of all tables, as Postgres shows them to whoever owns them."""
    engine = create_async_engine(async_url(url))
    async with engine.connect() as connection:
        tables = (await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))).all()
        assert {"users", "api_keys", "login_sessions", "setup_tokens"} <= set(tables)
        rows = [
            row
            for table in tables
            for row in (await connection.scalars(text(f'SELECT t::text FROM "{table}" t'))).all()  # noqa: S608
        ]
    await engine.dispose()
    return "\n".join(rows)


async def test_secrets_are_stored_hashed_only(users: Users, logins: Logins, keys: ApiKeys, database_url: str) -> None:
    """Neither password nor cookie nor link nor key is anywhere in the tables, as text or as bytes."""
    ann = await users.add("ann", "member", PASSWORD)
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    link = await users.invite(ann.id)
    _, key = await keys.create(ann.id, "x")
    stored = await _everything(database_url)
    assert "$argon2id$" in stored
    assert key[:11] in stored
    for secret in (PASSWORD, cookie, link, key, key.removeprefix("wf-")):
        assert secret not in stored
        assert secret.encode().hex() not in stored
