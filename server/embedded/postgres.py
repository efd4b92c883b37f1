"""Postgres for one server: real, private, and gone when the server is.

It listens on a Unix socket only, in a folder that nobody else may enter (paths.py), so it asks for no password. The
database belongs to the role `wirthforge`, which migrates it and may make roles; the server works as `wirthforge_app`,
which owns nothing. Neither is a superuser: row-level security binds both.

A postmaster.pid from before is no obstacle. Either the process in it still is a Postgres on our folder (its leash was
killed): it is ended first. Or the number now belongs to somebody else, often another part of ours after a reboot:
Postgres is told to overlook it by PG_GRANDPARENT_PID, the way pg_ctl has, and goes on to check that nobody is attached
to the old shared memory. We never remove the file, because that check lives in it.
"""

import os
import signal
from pathlib import Path
from urllib.parse import quote

import asyncpg

from server.clock import Clock
from server.db.session import APP_ROLE
from server.embedded import cluster
from server.embedded.binaries import postgres_bin
from server.embedded.child import Child
from server.embedded.paths import POSTGRES_SOCKET, private_dir, socket_dir
from server.errors import StartError

NAME = "wirthforge"
PORT = int(POSTGRES_SOCKET.rpartition(".")[2])
START_MS_MAX = 30_000
GRACE_MS_MAX = 10_000
# Backends of a killed Postgres hold its shared memory until they notice, which takes one statement at worst.
SHARED_MEMORY_HELD = "pre-existing shared memory block"
ATTEMPTS_MAX = 20
ATTEMPT_PAUSE_MS = 250

# On the command line, not in postgresql.conf: they belong to this version of the server, not to the folder.
CONFIGURATION = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "50",
    # Parallel queries take their memory from /dev/shm, of which a container has 64 MB.
    "max_parallel_workers_per_gather": "0",
    # Three I/O workers fewer; our reads are small.
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Terse leaves out DETAIL, which quotes rows, and rows hold people's words.
    "log_error_verbosity": "terse",
}


class Postgres:
    """A part (see supervisor.py): Postgres on DATA/postgres-18."""

    name = "postgres"

    def __init__(self, data_dir: Path, clock: Clock) -> None:
        """Name the folder; nothing starts yet.

        Args:
            data_dir: the data folder, whose lock the caller holds.
            clock: measures waiting.
        """
        self._data_dir = data_dir.resolve()
        self._clock = clock
        self._folder = self._data_dir / f"postgres-{cluster.MAJOR}"
        # A folder that goes away while the server runs is no new box: an empty one would be taken for it.
        self._was_there = False
        self._child = Child(
            self.name,
            data_dir=self._data_dir,
            clock=clock,
            # Fast shutdown. SIGTERM would wait until every client has left by itself.
            polite=signal.SIGINT,
            grace_ms_max=GRACE_MS_MAX,
            not_root=True,
        )

    @property
    def url(self) -> str:
        """For the server, by SQLAlchemy."""
        return self._url(APP_ROLE)

    @property
    def owner_url(self) -> str:
        """For migrations and upkeep."""
        return self._url(NAME)

    def _url(self, role: str) -> str:
        # The port is there because asyncpg would otherwise take it from $PGPORT.
        return f"postgresql+asyncpg://{role}@/{NAME}?host={quote(str(socket_dir(self._data_dir)))}&port={PORT}"

    async def start(self) -> None:
        """Return when the server's role can connect to its database; both are made if need be.

        Raises:
            StartError: the folder is unusable, or Postgres does not start; nothing is left running.
        """
        private_dir(self._data_dir)
        sockets = private_dir(socket_dir(self._data_dir))
        if cluster.is_made(self._folder):
            await cluster.end_orphan(self._folder, self._clock)
        elif self._was_there:
            raise StartError(
                f"The Postgres folder {self._folder} is gone, with all rows. Put it back (is a disk not mounted?), or "
                "stop the server and restore a backup."
            )
        else:
            await cluster.make(self._folder, self._child)
        self._was_there = True
        for attempt in range(1, ATTEMPTS_MAX + 1):
            await self._child.launch(self._command(sockets), self._environment())
            try:
                await self._child.until(self._ready, start_ms_max=START_MS_MAX)
            except StartError:
                held = any(SHARED_MEMORY_HELD in line for line in self._child.last_lines())
                if not held or attempt == ATTEMPTS_MAX:
                    raise
                await self._clock.sleep_ms(ATTEMPT_PAUSE_MS)
            else:
                return

    async def exited(self) -> int:
        """Wait until Postgres has ended; its exit status."""
        return await self._child.exited()

    async def stop(self) -> None:
        """End Postgres: open transactions are rolled back, what was committed is on the disk."""
        await self._child.stop()

    def _command(self, sockets: Path) -> list[str]:
        command = [str(postgres_bin("postgres")), "-D", str(self._folder), "-k", str(sockets)]
        for setting, value in CONFIGURATION.items():
            command += ["-c", f"{setting}={value}"]
        return command

    def _environment(self) -> dict[str, str]:
        stale = cluster.recorded_pid(self._folder)
        return cluster.ENVIRONMENT | ({} if stale is None else {"PG_GRANDPARENT_PID": str(stale)})

    async def _ready(self) -> bool:
        try:
            connection = await self._connect(NAME, NAME)
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError):
            await self._make_role_and_database()
            return False
        except asyncpg.PostgresError as error:
            raise StartError(f"Postgres started and refuses the server: {error}") from None
        try:
            # Folders of older versions have no such role; a migration from elsewhere has made it without a login.
            has_login = await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", APP_ROLE)
            if not has_login:
                await connection.execute(f"{'CREATE' if has_login is None else 'ALTER'} ROLE {APP_ROLE} LOGIN")
        finally:
            await connection.close()
        return True

    async def _make_role_and_database(self) -> None:
        connection = await self._connect(cluster.SUPERUSER, cluster.SUPERUSER)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", NAME):
                await connection.execute(f"CREATE ROLE {NAME} LOGIN CREATEROLE")
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", NAME):
                await connection.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
        finally:
            await connection.close()

    async def _connect(self, role: str, database: str) -> asyncpg.Connection:
        sockets = os.fspath(socket_dir(self._data_dir))
        return await asyncpg.connect(host=sockets, port=PORT, user=role, database=database, ssl=False)
