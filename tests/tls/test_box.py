"""The whole: a box whose Postgres and Redis are reached over TLS; its migrations, its backup, and back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from server.backup.making import LEFT_OUT
from server.backup.programs import running
from server.db.address import open_engine
from server.db.migrate import migrate
from server.errors import StartError
from server.settings import Settings
from tests.backup.conftest import Box as Backups
from tests.backup.conftest import Place
from tests.backup.rows import contents, fill
from tests.boxes import serve_box
from tests.cli.programs import NEWEST, House
from tests.tls.certificates import Authority
from tests.tls.services import PASSWORD, QUOTED, Cluster, TlsRedis


@pytest.fixture
def trusted(cluster: Cluster, database: str, authority: Authority) -> str:
    """An empty database of Debian's Postgres, as an administrator writes it."""
    return cluster.url(database, sslmode="verify-full", sslrootcert=authority.file)


async def test_a_box_answers(trusted: str, redis_over_tls: TlsRedis, authority: Authority, engine_url: str) -> None:
    """Migrated, started, asked, and the usage written: all of it over TLS."""
    assert await migrate(trusted) == (None, NEWEST)
    settings = Settings(
        port=0,
        database_url=trusted,
        redis_url=redis_over_tls.url(ssl_ca_certs=authority.file),
        engines=(engine_url,),
        calibrates=False,
        log_level="warning",
        shutdown_grace_ms=2_000,
    )
    async with serve_box(settings) as box:
        ann = await box.person("ann")
        async with box.openai(ann) as client:
            model = (await client.models.list()).data[0].id
            answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello?"}])
        assert answer.choices[0].message.content
        await box.usage(1)
        assert await lines_to(trusted) == {True}


async def lines_to(url: str) -> set[bool]:
    """Whether connections to a database are encrypted, as Postgres says of all that there are."""
    engine = open_engine(url, connect_args={})
    async with engine.connect() as connection:
        found = await connection.scalars(
            text(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        seen = set(found.all())
    await engine.dispose()
    return seen


async def test_commands_take_the_same_urls(
    trusted: str,
    redis_over_tls: TlsRedis,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
) -> None:
    """`doctor` and `migrate` as programs; what the first one finds, and what the other says of a stranger."""
    house = House(tmp_path)
    redis_url = redis_over_tls.url(ssl_ca_certs=authority.file)
    settings = {"DATABASE_URL": trusted, "REDIS_URL": redis_url}
    await migrate(trusted)
    found = house.run("doctor", settings=settings | {"WIRTHFORGE_ENGINES": "http://127.0.0.1:1/v1"}).stdout
    assert [line.split()[-1] for line in found.splitlines() if line.split()[1] in {"postgres", "redis"}] == [
        "answers"
    ] * 2
    wrong = trusted.replace(authority.file.name, stranger.file.name)
    said = house.refusal("migrate", settings={"DATABASE_URL": wrong})
    assert said.startswith("Postgres cannot be used: the certificate of Postgres at localhost is of an authority")
    assert PASSWORD not in found + said


@pytest.fixture
async def places(
    plain_cluster: Cluster, tunnel_ports: tuple[int, int], authority: Authority
) -> AsyncIterator[list[Place]]:
    """Two databases of the wheel's Postgres behind TLS: one filled, one empty."""
    asked: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.file}
    names = [f"tls_{uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        await plain_cluster.run(f"CREATE DATABASE {name}")
    yield [Place("postgres", name, plain_cluster.url(name, port=tunnel_ports[0], **asked)) for name in names]
    for name in names:
        await plain_cluster.run(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_backup_and_back(places: list[Place], plain_cluster: Cluster, tmp_path: Path) -> None:
    """pg_dump and pg_restore speak no TLS: they go through the relay, and all rows are the same."""
    full, empty = places
    await migrate(full.url)
    at_socket = [
        f"postgresql://postgres:{QUOTED}@/{place.name}?host={plain_cluster.sockets}&port={plain_cluster.port}"
        for place in places
    ]
    await fill(at_socket[0])
    backups = Backups(tmp_path)
    manifest = await backups.backup(full)
    assert manifest.revision == NEWEST
    assert min(manifest.counts.values()) >= 1
    await backups.restore(empty)
    was, came = [await contents(url) for url in at_socket]
    assert all(was.pop(table) and not came.pop(table) for table in LEFT_OUT)
    assert was == came
    assert PASSWORD not in "".join(backups.lines)


async def test_a_dump_of_a_postgres_with_its_own_tls(trusted: str) -> None:
    """Which takes nothing but TLS."""
    await migrate(trusted)
    async with running("pg_dump", ["--schema-only"], trusted) as program:
        dumped = b"".join([chunk async for chunk in program.output()])
        await program.ended()
    assert b"CREATE TABLE public.messages" in dumped


async def test_a_dump_by_a_stranger(trusted: str, authority: Authority, stranger: Authority) -> None:
    """The program's complaint is the reason, by the relay's own word."""
    with pytest.raises(StartError, match=r"FATAL: +the certificate of Postgres at localhost is of an authority that"):
        async with running("pg_dump", [], trusted.replace(authority.file.name, stranger.file.name)) as program:
            await program.ended()


async def test_a_password_of_pgpass(trusted: str, tmp_path: Path) -> None:
    """Which libpq would look for under the relay's name."""
    kept = tmp_path / ".pgpass"
    kept.touch(mode=0o600)
    kept.write_text(f"localhost:*:*:postgres:{PASSWORD}\n")
    async with running("pg_dump", ["--schema-only"], trusted.replace(f":{QUOTED}@", "@")) as program:
        async for _ in program.output():
            pass
        await program.ended()


async def test_tls_from_the_first_byte(
    plain_cluster: Cluster, tunnel_ports: tuple[int, int], authority: Authority
) -> None:
    """Without asking first; by a connection of the server and by pg_dump. Who must be asked does not take it."""
    asked: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.file, "sslnegotiation": "direct"}
    url = plain_cluster.url(port=tunnel_ports[1], **asked)
    engine = open_engine(url, connect_args={"timeout": 5})
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_user")) == "postgres"
    await engine.dispose()
    async with running("pg_dump", ["--schema-only"], url) as program:
        assert b"PostgreSQL database dump" in b"".join([chunk async for chunk in program.output()])
        await program.ended()
    with pytest.raises(StartError, match="Postgres cannot be used"):
        await migrate(plain_cluster.url(port=tunnel_ports[0], **asked))
