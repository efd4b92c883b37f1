"""Runs pg_dump and pg_restore of Postgres' wheel: where they connect to, what they say, and that they end.

They speak no TLS; where that is asked for, they connect through us (relay.py).

What they need to connect is in their environment, where no other user of the machine can read it (a command line can
be). Of what they complain about only the first line is shown: others may quote rows, and rows hold people's words.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from asyncpg import connect_utils

from server.backup import relay
from server.backup.tape import CHUNK_BYTES
from server.db.address import Address, address
from server.embedded import cluster
from server.embedded.binaries import postgres_bin
from server.errors import StartError

# The only major versions that they can read and write. A dump begins with a setting that Postgres 17 introduced:
# https://www.postgresql.org/docs/17/runtime-config-client.html#GUC-TRANSACTION-TIMEOUT
MAJOR = int(cluster.MAJOR)
RESTORED_MAJOR_MIN = 17
CONNECT_S_MAX = 5
COMPLAINT_BYTES_MAX = 16 * 1024
COMPLAINT_CHARS_MAX = 300
# Parameters of a URL that both asyncpg and libpq know: https://www.postgresql.org/docs/18/libpq-envars.html
VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "database": "PGDATABASE",
    "passfile": "PGPASSFILE",
    "krbsrvname": "PGKRBSRVNAME",
}
# What the administrator's variables say of TLS is read by address.py; it would only make libpq refuse.
NO_TLS = {"PGSSLMODE": "disable", "PGSSLROOTCERT": "", "PGSSLNEGOTIATION": "postgres"}
POSTGRES_PORT = 5432


def environment(where: Address) -> dict[str, str]:
    """What tells libpq to connect as an address says, but for TLS. Raises StartError for one with several hosts."""
    url = where.url
    named: dict[str, object] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": url.database,
        **url.query,
    }
    found = {"PGCONNECT_TIMEOUT": str(CONNECT_S_MAX), "PGAPPNAME": "wirthforge backup", "PGTZ": "UTC"}
    for name, value in named.items():
        if isinstance(value, tuple):
            raise StartError("The database's URL names several hosts: name the one that is to be used.")
        if value is not None and name in VARIABLES:
            found[VARIABLES[name]] = str(value)
    return {**cluster.ENVIRONMENT, **NO_TLS, **found}


@asynccontextmanager
async def _way_to(url: str) -> AsyncIterator[dict[str, str]]:
    """Variables with which libpq reaches Postgres as all of us do, as long as the block lasts."""
    where = address(url)
    found = environment(where)
    if where.trust is None:
        yield found
        return
    host = found.get("PGHOST") or os.environ.get("PGHOST") or "localhost"
    port = int(found.get("PGPORT") or os.environ.get("PGPORT") or POSTGRES_PORT)
    if not (found.get("PGPASSWORD") or os.environ.get("PGPASSWORD")):
        # libpq would look for the socket's name in it.
        found |= await asyncio.to_thread(_kept_password, host, port, found)
    async with relay.relay(where, host, port) as folder:
        yield {**found, "PGHOST": str(folder), "PGPORT": str(relay.PORT)}


def _kept_password(host: str, port: int, found: dict[str, str]) -> dict[str, str]:
    """What ~/.pgpass holds, as asyncpg finds it."""
    kept = found.get("PGPASSFILE") or os.environ.get("PGPASSFILE") or str(Path("~/.pgpass").expanduser())
    user = found.get("PGUSER") or os.environ.get("PGUSER") or ""
    password = connect_utils._read_password_from_pgpass(  # noqa: SLF001 (asyncpg has no other way to ask)
        passfile=Path(kept), hosts=[host], ports=[port], database=found.get("PGDATABASE") or user, user=user
    )
    return {"PGPASSWORD": password} if password else {}


class Program:
    """One that runs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._complaint = bytearray()
        self._listens = asyncio.create_task(self._listen(), name=f"hear {name}")

    async def output(self) -> AsyncIterator[bytes]:
        """What it writes, to the end."""
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(CHUNK_BYTES):
            yield chunk

    async def feed(self, chunk: bytes) -> bool:
        """Give it a piece of its input; False when it wants no more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(chunk)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    async def ended(self) -> None:
        """Let its input end, and wait until it has ended itself. Raises StartError if it failed."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._process.stdin.close()
        await self._listens
        if await self._process.wait() != 0:
            raise StartError(f"{self._name} failed: {self._reason()}")

    async def stop(self) -> None:
        """End it at once, if it still runs."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._listens.cancel()
        await asyncio.gather(self._listens, return_exceptions=True)

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(COMPLAINT_BYTES_MAX):
            self._complaint += chunk[: COMPLAINT_BYTES_MAX - len(self._complaint)]

    def _reason(self) -> str:
        lines = [line.strip() for line in self._complaint.decode(errors="replace").splitlines() if line.strip()]
        errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
        return (errors or lines or [f"exit status {self._process.returncode}"])[0][:COMPLAINT_CHARS_MAX]


@asynccontextmanager
async def running(name: str, words: Sequence[str], url: str | None, *, feeds: bool = False) -> AsyncIterator[Program]:
    """Start one of Postgres' programs; it does not outlive the block.

    Args:
        words: its arguments.
        url: where it connects to, if it does.
        feeds: whether it is given input.
    """
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    async with AsyncExitStack() as stack:
        found = {} if url is None else await stack.enter_async_context(_way_to(url))
        process = await asyncio.create_subprocess_exec(
            str(postgres_bin(name)),
            *words,
            stdin=pipe if feeds else nothing,
            stdout=pipe,
            stderr=pipe,
            # Ctrl-C is for us; we end it.
            start_new_session=True,
            env={**os.environ, **found},
        )
        program = Program(name, process)
        try:
            yield program
        finally:
            await program.stop()


def dbname(url: str) -> str:
    """A connection string that names the database alone, for programs that must be told it."""
    name = address(url).url.database or ""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"
