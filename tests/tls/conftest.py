"""One of each service for all tests of a process; their certificates are a test's to exchange."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from server.embedded.binaries import postgres_bin
from tests.tls.certificates import Authority
from tests.tls.services import Cluster, TlsRedis, debian_postgres, program, tunnel


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the machine's libpq is told, or finds at home, is not part of a test."""
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGPASSWORD", "PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def tls_dir(short_dir: Path) -> Path:
    """Short, since sockets lie in it."""
    folder = short_dir / "tls"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def authority(tls_dir: Path) -> Authority:
    """Whom the tests believe."""
    return Authority(tls_dir)


@pytest.fixture(scope="session")
def stranger(tls_dir: Path) -> Authority:
    """Somebody else."""
    return Authority(tls_dir, "stranger")


@pytest.fixture(scope="session")
async def cluster(tls_dir: Path, authority: Authority) -> AsyncIterator[Cluster]:
    """A Postgres of the system with TLS of its own."""
    found = Cluster(tls_dir / "pg", debian_postgres(), authority.issue("postgres"), authority)
    await found.start()
    yield found
    await found.child.stop()


@pytest.fixture(scope="session")
async def redis_over_tls(tls_dir: Path, authority: Authority) -> AsyncIterator[TlsRedis]:
    """A Redis of the system with TLS of its own."""
    program("redis-server")
    found = TlsRedis(tls_dir / "redis", authority.issue("redis"), authority)
    await found.start()
    yield found
    await found.child.stop()


@pytest.fixture(scope="session")
async def plain_cluster(tls_dir: Path, authority: Authority) -> AsyncIterator[Cluster]:
    """The wheel's Postgres, with a password and without TLS."""
    found = Cluster(tls_dir / "pg18", postgres_bin("postgres").parent, None, authority)
    await found.start()
    yield found
    await found.child.stop()


@pytest.fixture(scope="session")
async def tunnel_ports(tls_dir: Path, plain_cluster: Cluster, authority: Authority) -> AsyncIterator[tuple[int, int]]:
    """Where the wheel's Postgres is reached over TLS, and where that begins at once."""
    async with tunnel(tls_dir, plain_cluster, authority.issue("tunnel")) as ports:
        yield ports


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[str]:
    """The name of an empty database of the test's own."""
    name = f"tls_{uuid4().hex[:8]}"
    await cluster.run(f"CREATE DATABASE {name}")
    yield name
    await cluster.run(f"DROP DATABASE {name} WITH (FORCE)")
