"""Nothing of ours is on a line that is not encrypted where TLS is asked for; and where it is not, that is told."""

from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from server.backup.programs import running
from server.db import address
from server.db.migrate import migrate
from server.db.session import Database
from server.errors import StartError, Unavailable, WirthforgeError
from server.sharing.redis import connect_redis, require_trusted
from server.upkeep.owner import Owner
from tests.tls.certificates import Authority
from tests.tls.listeners import ASKS_FOR_TLS, listening
from tests.tls.services import ask

PASSWORD = "hush"


async def by_migrating(url: str) -> None:
    """As `wirthforge migrate`."""
    await migrate(url)


async def by_serving(url: str) -> None:
    """As a server."""
    database = Database(url)
    try:
        await database.ping()
    finally:
        await database.close()


async def by_upkeep(url: str) -> None:
    """As upkeep, and what a backup asks first."""
    async with Owner(url).connection():
        pass


async def by_dumping(url: str) -> None:
    """As pg_dump."""
    async with running("pg_dump", ["--schema-only"], url) as program:
        async for _ in program.output():
            pass
        await program.ended()


WAYS = [by_migrating, by_serving, by_upkeep, by_dumping]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_postgres_without_tls_hears_nothing(
    authority: Authority, way: Callable[[str], Awaitable[None]], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But that we want TLS: no name, no password, by no way; and a command says why."""
    monkeypatch.setattr("server.db.session.is_logging", lambda: False)
    async with listening(b"N") as listener:
        asked = f"sslmode={mode}&sslrootcert={authority.file}"
        with pytest.raises(WirthforgeError) as refused:
            await way(f"postgresql://ann:{PASSWORD}@127.0.0.1:{listener.port}/box?{asked}")
        assert PASSWORD not in str(refused.value)
        assert f"has no TLS, and sslmode={mode} asks for it" in str(refused.value)
    assert set(listener.heard) == {ASKS_FOR_TLS}


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_slipped_in_before_tls_is_no_answer(
    authority: Authority, way: Callable[[str], Awaitable[None]]
) -> None:
    """A thief answers "yes" and goes on as a server that asks for the password (CVE-2021-23222)."""
    asks_for_password = bytes.fromhex("520000000800000003")
    async with listening(b"S" + asks_for_password) as listener:
        with pytest.raises(WirthforgeError):
            await way(
                f"postgresql://ann:{PASSWORD}@127.0.0.1:{listener.port}/box"
                f"?sslmode=verify-full&sslrootcert={authority.file}"
            )
    assert listener.heard
    assert all(PASSWORD.encode() not in heard and b"ann" not in heard for heard in listener.heard)


@pytest.mark.parametrize("way", WAYS)
async def test_a_line_that_need_not_be_encrypted(way: Callable[[str], Awaitable[None]]) -> None:
    """Without sslmode a Postgres that has no TLS is spoken to in the open; with `disable` nobody asks for it."""
    async with listening(b"N") as listener:
        with pytest.raises(WirthforgeError):
            await way(f"postgresql://ann:{PASSWORD}@127.0.0.1:{listener.port}/box?sslmode=disable")
        assert all(not heard.startswith(ASKS_FOR_TLS) and b"ann" in heard for heard in listener.heard)
        listener.heard.clear()
        with pytest.raises(WirthforgeError):
            await way(f"postgresql://ann:{PASSWORD}@127.0.0.1:{listener.port}/box")
    assert listener.heard[0].startswith(ASKS_FOR_TLS)
    assert b"ann" in b"".join(listener.heard)


async def test_an_open_line_to_another_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, unless it is meant. What is another machine is a name here, since all of them are this one."""
    monkeypatch.setattr(address, "_is_here", lambda _: False)
    address._tell_open.cache_clear()
    async with listening(b"N") as listener:
        where = f"postgresql://ann@127.0.0.1:{listener.port}/box"
        with capture_logs() as lines:
            for url in (f"{where}?sslmode=disable", where, where):
                with pytest.raises(StartError):
                    await migrate(url)
        assert [(line["log_level"], line["event"]) for line in lines] == [
            ("warning", "the line to the database is not encrypted")
        ]
    address._tell_open.cache_clear()


async def test_a_redis_without_tls_hears_nothing(authority: Authority) -> None:
    """But the beginning of TLS."""
    async with listening(b"-ERR unknown command\r\n") as listener:
        url = f"rediss://ann:{PASSWORD}@127.0.0.1:{listener.port}/0?ssl_ca_certs={authority.file}"
        with pytest.raises(StartError, match=r"Redis at 127\.0\.0\.1:\d+ does not speak TLS"):
            await require_trusted(url)
        async with connect_redis(url) as client:
            with pytest.raises(Exception, match="does not speak TLS"):
                await ask(client, "PING")
    assert len(listener.heard) == 2
    # A ClientHello: https://www.rfc-editor.org/rfc/rfc8446#section-5.1
    assert all(heard.startswith(b"\x16\x03") and PASSWORD.encode() not in heard for heard in listener.heard)


async def test_who_is_away_is_away(authority: Authority) -> None:
    """And no matter of trust."""
    database = Database(f"postgresql://ann@127.0.0.1:1/box?sslmode=verify-full&sslrootcert={authority.file}")
    with capture_logs() as lines, pytest.raises(Unavailable):
        await database.ping()
    assert lines == []
    await database.close()
