"""Postgres on a laptop keeps its rows."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from server.clock import SystemClock
from server.embedded import leash
from server.embedded.binaries import postgres_bin
from server.embedded.paths import private_dir, socket_dir
from server.embedded.postgres import Postgres
from server.embedded.supervisor import Part
from server.errors import StartError

Running = Callable[[Part], Awaitable[None]]
Spawn = Callable[..., subprocess.Popen[str]]
Family = Callable[[int], list[psutil.Process]]
ON_A_LEASH = [sys.executable, "-I", "-S", leash.__file__]
FOLDER = "postgres-18"
ORDINARY = 65534
ORDINARY_PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from server.clock import SystemClock
from server.embedded.postgres import Postgres
async def main():
    postgres = Postgres(Path(sys.argv[1]), SystemClock())
    await postgres.start()
    await postgres.stop()
    print(os.geteuid(), (Path(sys.argv[1]) / "postgres-18" / "PG_VERSION").stat().st_uid)
asyncio.run(main())
"""


async def ask(postgres: Postgres, *statements: str) -> object:
    """Run statements as whoever owns the database; the first value that the last one gives."""
    engine = create_async_engine(postgres.owner_url)
    try:
        async with engine.begin() as connection:
            results = [await connection.execute(text(statement)) for statement in statements]
            return results[-1].scalar() if results[-1].returns_rows else None
    finally:
        await engine.dispose()


def kill_all(folder: Path, family: Family) -> None:
    """Kill -9 whatever has `folder` on its command line or descends from it; some end before we come to them."""
    found = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in (one.info["cmdline"] or [])]
    found += [child for one in found for child in family(one.pid)]
    assert found
    for one in set(found):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(found, timeout=5)


def give_pid_to_us(stale: Path) -> None:
    """Let the process id in a lock file be that of a living program: this one."""
    stale.write_text("\n".join([str(os.getpid()), *stale.read_text().splitlines()[1:]]) + "\n")


async def test_rows_survive_stop_and_start(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """A row that was committed is there after an orderly stop and a new start."""
    first = Postgres(data_dir, clock)
    await running(first)
    await ask(first, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('here')")
    await first.stop()
    second = Postgres(data_dir, clock)
    await running(second)
    assert await ask(second, "SELECT word FROM kept") == "here"


async def test_rows_survive_kill_9(running: Running, family: Family, data_dir: Path, clock: SystemClock) -> None:
    """A row that was committed is there after everything was killed with -9, though the old pid is somebody else's."""
    postgres = Postgres(data_dir, clock)
    await running(postgres)
    await ask(postgres, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('here')")
    kill_all(data_dir / FOLDER, family)
    await postgres.exited()
    await postgres.stop()
    give_pid_to_us(data_dir / FOLDER / "postmaster.pid")
    await running(postgres)
    assert await ask(postgres, "SELECT word FROM kept") == "here"


async def test_the_role_is_bound_by_row_level_security(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """The server works as a role that is no superuser, owns its database and may make roles."""
    postgres = Postgres(data_dir, clock)
    await running(postgres)
    assert await ask(postgres, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user") is False
    await ask(postgres, "CREATE ROLE app", "CREATE SCHEMA mine AUTHORIZATION wirthforge")


async def test_nobody_else_can_connect(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """There is no TCP port, and the folder of the socket is closed to others."""
    postgres = Postgres(data_dir, clock)
    await running(postgres)
    assert await ask(postgres, "SHOW listen_addresses") == ""
    assert await ask(postgres, "SHOW fsync") == "on"
    assert socket_dir(data_dir).stat().st_mode & 0o777 == 0o700


async def test_a_long_path_works(running: Running, long_data_dir: Path, clock: SystemClock) -> None:
    """A data folder whose path no socket could have is served through a private folder in /tmp."""
    postgres = Postgres(long_data_dir, clock)
    await running(postgres)
    assert str(socket_dir(long_data_dir)).startswith("/tmp/wirthforge-")  # noqa: S108 (which is the point)
    assert await ask(postgres, "SELECT current_user") == "wirthforge"


async def test_an_orphan_is_ended_first(running: Running, spawn: Spawn, data_dir: Path, clock: SystemClock) -> None:
    """A Postgres that still runs on the folder, without a server, makes room."""
    postgres = Postgres(data_dir, clock)
    await running(postgres)
    await postgres.stop()
    sockets, folder = socket_dir(data_dir), f"{data_dir}/{FOLDER}"
    command = [postgres_bin("postgres"), "-D", folder, "-k", sockets, "-c", "listen_addresses="]
    orphan = spawn(*ON_A_LEASH, "SIGINT", "9000", "--not-root", *command, stderr=subprocess.PIPE)
    assert orphan.stderr is not None
    assert any("ready to accept connections" in line for line in orphan.stderr)
    await running(postgres)
    assert orphan.wait(5) == 0
    assert await ask(postgres, "SELECT 1") == 1


async def test_a_half_made_folder_is_refused(data_dir: Path, clock: SystemClock) -> None:
    """A folder with files but no control file gives its path and what to do, and is not touched."""
    folder = private_dir(data_dir / FOLDER)
    (folder / "PG_VERSION").write_text("18\n")
    with pytest.raises(StartError, match=r"postgres-18 is incomplete .* Move it away .* restore a backup"):
        await Postgres(data_dir, clock).start()
    assert [path.name for path in folder.iterdir()] == ["PG_VERSION"]


async def test_another_version_is_refused(data_dir: Path, clock: SystemClock) -> None:
    """A folder of another major version says which one."""
    control = private_dir(data_dir / FOLDER / "global") / "pg_control"
    control.write_bytes(b"control")
    (data_dir / FOLDER / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartError, match=r"written by Postgres 16, and this is Postgres 18"):
        await Postgres(data_dir, clock).start()


async def test_an_interrupted_initdb_is_forgotten(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """What a crash left of making the folder does not stand in the way."""
    (private_dir(data_dir / f"{FOLDER}.part") / "PG_VERSION").write_text("18\n")
    await running(Postgres(data_dir, clock))
    assert not (data_dir / f"{FOLDER}.part").exists()


async def test_a_start_that_fails_shows_the_log(data_dir: Path, clock: SystemClock, running: Running) -> None:
    """What Postgres says about a broken file is in the sentence, and nothing is left running."""
    postgres = Postgres(data_dir, clock)
    await running(postgres)
    await postgres.stop()
    (data_dir / FOLDER / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(StartError, match=r"postgres ended while it started: .*its log: .*postgres\.log"):
        await postgres.start()
    assert await postgres.exited() != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user_needs_no_namespace(data_dir: Path, spawn: Spawn) -> None:
    """Started by an ordinary user, Postgres runs as that user."""
    os.chown(data_dir, ORDINARY, ORDINARY)
    try:
        program = spawn(
            *[sys.executable, "-B", "-P", "-c", ORDINARY_PROGRAM, data_dir],
            user=ORDINARY,
            group=ORDINARY,
            extra_groups=[],
            cwd="/",
        )
    except PermissionError:
        pytest.skip("this Python is closed to ordinary users")
    assert program.communicate(timeout=20)[0] == f"{ORDINARY} {ORDINARY}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can pretend not to be")
def test_a_server_that_is_not_root(data_dir: Path, spawn: Spawn) -> None:
    """A whole server in somebody else's namespace starts Postgres without another one."""
    program = spawn(
        *[*ON_A_LEASH, "SIGTERM", "9000", "--not-root"],
        *[sys.executable, "-B", "-P", "-c", ORDINARY_PROGRAM, data_dir],
    )
    # Not communicate: it would close the pipe, which ends the program.
    assert program.stdout is not None
    user, owner = program.stdout.read().split()
    assert user == owner != "0"
