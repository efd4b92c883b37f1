"""Postgres' own TLS: every mode, every certificate that does not fit, and the log."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from server.db.address import open_engine
from server.db.migrate import migrate, require_newest
from server.db.session import Database
from server.errors import StartError, Unavailable
from server.tls import Untrusted
from tests.tls.certificates import Authority
from tests.tls.services import PASSWORD, Cluster


async def is_encrypted(url: str) -> bool:
    """What Postgres itself says of a connection that is opened as all of ours."""
    engine = open_engine(url, connect_args={"timeout": 5})
    try:
        async with engine.connect() as connection:
            query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return bool(await connection.scalar(query))
    finally:
        await engine.dispose()


@pytest.mark.parametrize("mode", [None, "prefer", "require", "verify-ca", "verify-full"])
async def test_encrypted_in_every_mode(cluster: Cluster, authority: Authority, mode: str | None) -> None:
    """Also where the URL says nothing of it."""
    words: dict[str, Any] = {} if mode is None else {"sslmode": mode, "sslrootcert": authority.file}
    assert await is_encrypted(cluster.url(**words))
    if mode is not None:
        assert await is_encrypted(cluster.url(host="127.0.0.1", **words))


async def test_not_where_it_is_not_wanted(cluster: Cluster) -> None:
    """This Postgres takes nothing but TLS, and says so; nobody tries it in secret."""
    with pytest.raises(DBAPIError, match="no encryption"):
        await is_encrypted(cluster.url(sslmode="disable"))


async def test_libpqs_variables_are_heard(
    cluster: Cluster, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that is not in the URL comes from there, with its authority."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(stranger.file))
    with pytest.raises(StartError, match=r"authority that is not in .*stranger\.crt"):
        await migrate(cluster.url())


async def sentence(url: str) -> str:
    """What the server says when it is started with this URL."""
    with pytest.raises(StartError) as refused:
        await require_newest(url)
    assert PASSWORD not in str(refused.value)
    assert "secret" not in str(refused.value)
    return str(refused.value)


async def test_an_authority_that_is_not_believed(cluster: Cluster, stranger: Authority) -> None:
    """In the modes that ask, with the file that does not hold it."""
    for mode in ("require", "verify-ca", "verify-full"):
        said = await sentence(cluster.url(sslmode=mode, sslrootcert=stranger.file))
        assert said == (
            "Postgres cannot be used: the certificate of Postgres at localhost is of an authority that is not in "
            f"{stranger.file}. Is DATABASE_URL right?"
        )
    said = await sentence(cluster.url(sslmode="verify-full", sslrootcert="system"))
    assert "is of an authority that is not in what this machine trusts" in said


async def test_certificates_that_do_not_fit(cluster: Cluster, authority: Authority) -> None:
    """For another name, and expired; exchanged while Postgres runs, and then exchanged back."""
    asked: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.file}
    database = Database(cluster.url(**asked), connections_max=1)
    try:
        authority.issue("postgres", names=("elsewhere.example",))
        await cluster.reload()
        assert "the certificate of Postgres at localhost is for another name." in await sentence(cluster.url(**asked))
        assert await is_encrypted(cluster.url(sslmode="verify-ca", sslrootcert=authority.file))
        authority.issue("postgres", ended=True)
        await cluster.reload()
        with capture_logs() as lines:
            for _ in range(2):
                with pytest.raises(Unavailable, match="cannot reach its database"):
                    await database.ping()
        assert [(line["log_level"], line["event"], line["reason"]) for line in lines] == [
            ("error", "Postgres is not trusted", "the certificate of Postgres at localhost has expired")
        ]
    finally:
        authority.issue("postgres")
        await cluster.reload()
    await cluster.run("CREATE ROLE wirthforge_app")
    await database.ping()
    await database.close()
    await cluster.run("DROP ROLE wirthforge_app")


async def test_revoked(cluster: Cluster, authority: Authority) -> None:
    """With a list that holds it; and the same list is no harm to others."""
    authority.issue("revoked")
    asked: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.file}
    assert await is_encrypted(cluster.url(**asked, sslcrl=authority.revoke("revoked")))
    assert "was revoked" in await sentence(cluster.url(**asked, sslcrl=authority.revoke("postgres")))


async def test_a_certificate_in_place_of_a_password(
    cluster: Cluster, authority: Authority, stranger: Authority
) -> None:
    """Files are read when a connection is opened: one that was exchanged holds from the next one on."""
    await cluster.run("CREATE ROLE by_certificate LOGIN")
    ours = authority.issue_client("client", "by_certificate")
    url = cluster.url(sslmode="verify-full", sslrootcert=authority.file, sslcert=ours.certificate, sslkey=ours.key)
    url = url.replace(url[url.index("postgres:hush") : url.index("@localhost")], "by_certificate")
    engine = open_engine(url, connect_args={"timeout": 5}, pool_size=1, max_overflow=0)
    try:
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_user")) == "by_certificate"
            await connection.invalidate()
        stranger.issue_client("other", "by_certificate")
        for name in ("pem", "key"):
            ours.key.with_suffix(f".{name}").write_bytes((ours.key.parent / f"other.{name}").read_bytes())
        with pytest.raises(
            Untrusted, match=rf"hung up as soon as TLS began; it may refuse our certificate \({ours.certificate}\)$"
        ):
            async with engine.connect():
                pass
    finally:
        await engine.dispose()
        await cluster.run("DROP ROLE by_certificate")


async def test_files_that_are_of_no_use(cluster: Cluster, authority: Authority) -> None:
    """Said at the start, by name."""
    missing = authority.file.with_name("missing.pem")
    assert await sentence(cluster.url(sslmode="verify-ca", sslrootcert=missing)) == (
        f"Postgres cannot be reached over TLS: {missing} cannot be read: No such file or directory."
    )
    empty = authority.file.with_name("empty.pem")
    empty.write_text("nothing\n")
    said = await sentence(cluster.url(sslmode="verify-ca", sslrootcert=empty))
    assert said.endswith(f"{empty} holds no certificates in PEM form.")
    said = await sentence(cluster.url(sslmode="require", sslcert=authority.file, sslkey=empty))
    assert "are no certificate and its key" in said
