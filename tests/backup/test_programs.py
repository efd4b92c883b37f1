"""How Postgres' programs are told where to connect."""

import pytest

from server.backup.programs import NO_TLS, dbname, environment, running
from server.db.address import address
from server.errors import StartError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql+asyncpg://wirthforge@/wirthforge?host=%2Fsrv%2Frun&port=5432",
            {"PGHOST": "/srv/run", "PGPORT": "5432", "PGUSER": "wirthforge", "PGDATABASE": "wirthforge"},
        ),
        (
            "postgresql://ann:p%40ss%3A@db.example:6543/box?sslmode=verify-full&sslrootcert=/ca.pem",
            {
                "PGHOST": "db.example",
                "PGPORT": "6543",
                "PGUSER": "ann",
                "PGPASSWORD": "p@ss:",
                "PGDATABASE": "box",
            },
        ),
        ("postgres:///box?prepared_statement_cache_size=0", {"PGDATABASE": "box"}),
    ],
)
def test_a_url_becomes_variables(url: str, expected: dict[str, str]) -> None:
    """All of what asyncpg takes from a URL, and nothing that it did not say; TLS is not libpq's (tests/tls)."""
    found = environment(address(url))
    ours = {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "wirthforge backup", "PGTZ": "UTC"}
    assert found == {**ours, **NO_TLS, **expected}


def test_several_hosts_are_one_too_many() -> None:
    """A snapshot is of one server; the program could connect to another."""
    with pytest.raises(StartError, match="names several hosts"):
        environment(address("postgresql://ann@/box?host=a:1&host=b:2"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://a@b/box", "dbname='box'"),
        ("postgresql://a@b/it's%20host=elsewhere", "dbname='it\\'s host=elsewhere'"),
    ],
)
def test_a_name_is_nothing_but_a_name(url: str, expected: str) -> None:
    """Whatever is in it, it does not become another parameter."""
    assert dbname(url) == expected


async def test_a_program_that_fails_says_why() -> None:
    """Its first complaint, in one line."""
    async with running("pg_restore", ["--list"], None, feeds=True) as program:
        await program.feed(b"no dump")
        with pytest.raises(StartError) as failed:
            await program.ended()
    assert failed.value.message.startswith("pg_restore failed: input file ")


async def test_a_program_does_not_outlive_its_block() -> None:
    """It waits for input that never comes, and is ended."""
    async with running("pg_restore", ["--list"], None, feeds=True) as program:
        process = program._process
    assert process.returncode == -9
