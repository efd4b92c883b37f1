"""Real services that speak TLS: Debian's Postgres and Redis, and stunnel before the Postgres of our wheel.

The wheel's Postgres and Redis were built without TLS, and Debian's Postgres is older than what a backup can be restored
into. So Postgres' own TLS is tried with Debian's, and backups with the wheel's, to which stunnel translates: it speaks
Postgres' way of beginning TLS (protocol = pgsql, https://www.stunnel.org/static/stunnel.html). tools/install-tls
installs them; where one is missing its tests are skipped.
"""

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.clock import SystemClock
from server.embedded.child import Child
from tests.tls.certificates import Authority, Issued

HOST = "localhost"
# What may stand on no line that is not encrypted, and in no message.
PASSWORD = "hush/it is@secret:100%"
QUOTED = "hush%2Fit%20is%40secret%3A100%25"
# What the server needs of Redis, as docs/tls.md has it.
RIGHTS = "~wf:* &wf:* +@all -@admin -@dangerous +info"
START_MS_MAX = 20_000


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def program(*names: str) -> Path:
    """A program of the system; the test is skipped where it is missing."""
    for name in names:
        if found := shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin"):
            return Path(found).absolute()
    pytest.skip(f"{names[0]} is not installed: run `make tls`")


def debian_postgres() -> Path:
    """The folder of programs of a Postgres that speaks TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        pytest.skip("no Postgres with TLS is installed: run `make tls`")
    return found[-1]


class Cluster:
    """A Postgres with a password, `postgres`, on a port or on a socket alone.

    Attributes:
        port: where it listens.
        sockets: its socket's folder.
    """

    def __init__(self, folder: Path, programs: Path, served: Issued | None, authority: Authority) -> None:
        folder.mkdir()
        self._folder, self._programs = folder, programs
        self._served, self._authority = served, authority
        self.port, self.sockets = free_port(), folder
        self.child = Child("postgres", data_dir=folder, clock=SystemClock(), grace_ms_max=5_000, not_root=True)

    async def start(self) -> None:
        """As its own initdb makes it."""
        words = self._folder / "password"
        words.write_text(f"{PASSWORD}\n")
        data = self._folder / "data"
        await self.child.launch(
            [
                *[str(self._programs / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync"],
                *["--auth=scram-sha-256", f"--pwfile={words}", "--no-locale", "--encoding=UTF8"],
            ]
        )
        status = await self.child.exited_within(60_000)
        await self.child.stop()
        assert status == 0, self.child.last_lines()
        if self._served is not None:
            # Users whose certificate says so need no password; all others do, and nobody comes in unencrypted.
            (data / "pg_hba.conf").write_text(
                "hostssl all by_certificate all cert\nhostssl all all all scram-sha-256\nlocal all all scram-sha-256\n"
            )
        await self._run(data)

    async def _run(self, data: Path) -> None:
        settings = {"port": self.port, "unix_socket_directories": self.sockets, "fsync": "off", "max_connections": 40}
        if self._served is None:
            settings["listen_addresses"] = ""
        else:
            settings |= {
                "listen_addresses": "127.0.0.1",
                "ssl": "on",
                "ssl_cert_file": self._served.certificate,
                "ssl_key_file": self._served.key,
                "ssl_ca_file": self._authority.file,
            }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        await self.child.launch([str(self._programs / "postgres"), "-D", str(data), *words])
        await self.child.until(self._ready, start_ms_max=START_MS_MAX)

    async def reload(self) -> None:
        """Have it read its certificate anew."""
        await self.run("SELECT pg_reload_conf()")

    async def run(self, *statements: str, database: str = "postgres") -> None:
        """As the superuser, by the socket."""
        connection = await asyncpg.connect(
            host=str(self.sockets), port=self.port, user="postgres", password=PASSWORD, database=database
        )
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def _ready(self) -> bool:
        try:
            await self.run()
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        return True

    def url(self, database: str = "postgres", *, host: str = HOST, port: int = 0, **words: Any) -> str:
        """As an administrator writes it."""
        asked = "?" + urlencode(words) if words else ""
        return f"postgresql://postgres:{QUOTED}@{host}:{port or self.port}/{database}{asked}"


@asynccontextmanager
async def tunnel(folder: Path, cluster: Cluster, served: Issued) -> AsyncIterator[tuple[int, int]]:
    """Stunnel before a cluster's socket; gives its port, and the one where TLS begins at once."""
    port, direct, configuration = free_port(), free_port(), folder / "stunnel.conf"
    common = f"connect = {cluster.sockets}/.s.PGSQL.{cluster.port}\ncert = {served.certificate}\nkey = {served.key}\n"
    configuration.write_text(
        f"foreground = yes\npid =\n[asked]\naccept = 127.0.0.1:{port}\nprotocol = pgsql\n{common}"
        f"[direct]\naccept = 127.0.0.1:{direct}\n{common}"
    )
    child = Child("stunnel", data_dir=folder, clock=SystemClock(), grace_ms_max=2_000)
    await child.launch([str(program("stunnel4", "stunnel")), str(configuration)])
    await child.until(lambda: _listens(direct), start_ms_max=START_MS_MAX)
    try:
        yield port, direct
    finally:
        await child.stop()


async def _listens(port: int) -> bool:
    with socket.socket() as connecting:
        return connecting.connect_ex(("127.0.0.1", port)) == 0


async def ask(client: Redis, *words: str) -> Any:
    """A command of Redis, as it is written."""
    return await cast("Any", client).execute_command(*words)


class TlsRedis:
    """Debian's Redis, with TLS and a user `box`.

    Attributes:
        port: of TLS; there is no other.
    """

    def __init__(self, folder: Path, served: Issued, authority: Authority, *, wants_certificate: bool = False) -> None:
        folder.mkdir()
        self._folder, self._served, self._authority = folder, served, authority
        self._wants = wants_certificate
        self.port = free_port()
        self.child = Child("redis", data_dir=folder, clock=SystemClock(), grace_ms_max=3_000)

    async def start(self) -> None:
        """Return when it answers on its socket."""
        configuration = self._folder / "redis.conf"
        configuration.write_text(
            f"port 0\nbind 127.0.0.1\ntls-port {self.port}\nunixsocket {self._folder}/redis.sock\nsave ''\n"
            f"dir {self._folder}\ntls-cert-file {self._served.certificate}\ntls-key-file {self._served.key}\n"
            f"tls-ca-cert-file {self._authority.file}\ntls-auth-clients {'yes' if self._wants else 'no'}\n"
            f'user box on ">{PASSWORD}" {RIGHTS}\nuser admin on ">{PASSWORD}" ~* &* +@all\nuser default off\n'
        )
        await self.child.launch([str(program("redis-server")), str(configuration)])
        await self.child.until(self._ready, start_ms_max=START_MS_MAX)

    async def reload(self) -> None:
        """Have it read its certificate anew."""
        async with self._at_socket() as client:
            await client.config_set("tls-cert-file", str(self._served.certificate))

    def _at_socket(self) -> Redis:
        return Redis(unix_socket_path=f"{self._folder}/redis.sock", username="admin", password=PASSWORD)

    async def _ready(self) -> bool:
        try:
            async with self._at_socket() as client:
                await ask(client, "PING")
        except (OSError, RedisError):
            return False
        return True

    def url(self, *, host: str = HOST, user: str = "box", password: str = QUOTED, **words: Any) -> str:
        """As an administrator writes it."""
        asked = "?" + urlencode(words) if words else ""
        return f"rediss://{user}:{password}@{host}:{self.port}/0{asked}"
