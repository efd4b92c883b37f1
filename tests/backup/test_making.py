"""What keeps a backup from being made, and that nothing of one is left that was not."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from server.backup import making
from server.backup.making import UPKEEP_WAIT_MS_MAX, Source
from server.clock import SystemClock
from server.errors import Conflict, StartError, WirthforgeError
from server.upkeep.owner import ADVISORY_LOCK
from tests.backup.conftest import PASSWORD, Box, Place, run
from tests.cli.programs import COMMAND, environment
from tests.upkeep.conftest import StillClock

PROGRAM_S_MAX = 80
POLL_MS = 20
# Ends the program's writing at so many bytes, as a disk does that is full.
SMALL_DISK = (
    "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"
    "from server.cli import main\n"
    "sys.exit(main())\n"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(box: Box, source: Place) -> Start:
    """Starts `wirthforge backup` as a program."""

    def begin(*command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(  # noqa: S603 (our own program)
            [*(command or COMMAND), "backup", str(box.file), "--data-dir", str(box.data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=box.data_dir,
            env=environment(box.data_dir, DATABASE_OWNER_URL=source.url.replace("+asyncpg", "")),
        )

    return begin


def left(box: Box) -> list[str]:
    """What lies where the backup should be."""
    return sorted(path.name for path in box.file.parent.iterdir() if path != box.data_dir)


@pytest.fixture
async def lock(source: Place) -> AsyncIterator[asyncpg.Connection]:
    """A connection whose open transaction keeps everybody from reading one table."""
    url = make_url(source.url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN; LOCK TABLE quotas IN ACCESS EXCLUSIVE MODE")
    yield connection
    await connection.close()


async def waits_for(connection: asyncpg.Connection) -> None:
    """Return when somebody waits for that table."""
    clock = SystemClock()
    while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
        await clock.sleep_ms(POLL_MS)


async def test_a_file_that_is_there(box: Box, source: Place) -> None:
    """It is kept, unless one says that it shall be replaced; then it is a backup."""
    box.file.write_text("precious")
    with pytest.raises(StartError, match=r"There is a file .* already: give another name, or --force"):
        await box.backup(source)
    assert (box.file.read_text(), left(box)) == ("precious", [box.file.name])
    await box.backup(source, overwrite=True)
    assert box.file.read_bytes().startswith(b"database.dump\0")
    assert left(box) == [box.file.name]


async def test_a_folder_that_is_not_there(box: Box, source: Place, tmp_path: Path) -> None:
    """Neither a folder's name nor one in a folder that does not exist is a place for a file."""
    box.file = tmp_path
    with pytest.raises(StartError, match="is a folder: give the name of a file"):
        await box.backup(source)
    box.file = tmp_path / "absent" / "box.tar"
    with pytest.raises(StartError, match="cannot be written: No such file or directory"):
        await box.backup(source)


@pytest.mark.parametrize("disk_bytes", [1, 20_000])
def test_a_full_disk(box: Box, start: Start, disk_bytes: int) -> None:
    """One sentence, exit status 1, and no file, neither whole nor in part."""
    program = start(sys.executable, "-c", SMALL_DISK.format(disk_bytes))
    out, err = program.communicate(timeout=PROGRAM_S_MAX)
    assert (program.returncode, out) == (1, "")
    assert err.splitlines()[-1] == f"wirthforge: The backup {box.file} cannot be written: File too large."
    assert left(box) == []


async def test_a_backup_that_is_killed(box: Box, source: Place, start: Start, lock: asyncpg.Connection) -> None:
    """With -9 it leaves its part, which no one takes for a backup, and which the next one replaces."""
    program = start()
    await waits_for(lock)
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=PROGRAM_S_MAX)
    assert left(box) == [f"{box.file.name}.part"]
    await lock.execute("ROLLBACK")
    await box.backup(source)
    assert left(box) == [box.file.name]


async def test_no_password_is_on_a_command_line(box: Box, start: Start) -> None:
    """Other users of the machine can read those. And pg_dump does not outlive a backup that is killed."""
    clock, program = SystemClock(), start()
    try:
        while not (found := [child for child in psutil.Process(program.pid).children() if child.name() == "pg_dump"]):
            assert program.poll() is None
            await clock.sleep_ms(POLL_MS)
        (dump,) = found
        dump.suspend()
        assert dump.environ()["PGPASSWORD"] == PASSWORD
        assert PASSWORD not in " ".join(dump.cmdline())
    finally:
        program.kill()
        program.communicate(timeout=PROGRAM_S_MAX)
    dump.resume()
    assert psutil.wait_procs([dump], timeout=PROGRAM_S_MAX)[1] == []
    assert left(box) == [f"{box.file.name}.part"]


async def test_a_backup_that_is_asked_to_end(box: Box, start: Start, lock: asyncpg.Connection) -> None:
    """By Ctrl-C, or by whoever stops the machine: nothing is left."""
    program = start()
    await waits_for(lock)
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=PROGRAM_S_MAX)
    assert (program.returncode, out, left(box)) == (1, "", [])
    assert err.splitlines()[-1] == "wirthforge: Interrupted: no backup was made."


async def test_rows_that_the_login_does_not_see(box: Box, source: Place) -> None:
    """Row-level security hides rows without an error; a backup that would lack them is not made."""
    await run(source.url, "DROP POLICY upkeep ON usage", "CREATE POLICY upkeep ON usage USING (model <> 'hidden')")
    with pytest.raises(StartError, match="This login does not see all rows of usage: set DATABASE_OWNER_URL"):
        await box.backup(source)
    await run(source.url, "CREATE POLICY all_of_it ON usage USING (true)")
    await box.backup(source)
    await run(source.url, "CREATE POLICY less ON usage AS RESTRICTIVE USING (model <> 'hidden')")
    with pytest.raises(StartError, match="does not see all rows of usage"):
        await box.backup(source, overwrite=True)


async def test_an_empty_database(box: Box, target: Place) -> None:
    """There is nothing to back up in it."""
    with pytest.raises(WirthforgeError, match="run `wirthforge migrate`"):
        await box.backup(target)
    assert left(box) == []


async def test_a_newer_postgres(box: Box, source: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our pg_dump cannot read is told before it tries."""
    monkeypatch.setattr(making, "MAJOR", 10)
    with pytest.raises(
        StartError, match=r"This is Postgres \d+\.\d+, and the pg_dump of this WIRTHFORGE is of version 10"
    ):
        await box.backup(source)
    assert left(box) == []


async def test_a_dump_that_fails(box: Box, source: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pg_dump says is in the sentence: here, that nobody has lent it such a snapshot."""
    monkeypatch.setattr(making, "_SNAPSHOT", text("SELECT '00000000-00000001-1'"))
    with pytest.raises(StartError, match=r"pg_dump failed: .*snapshot"):
        await box.backup(source)
    assert left(box) == []


async def test_upkeep_at_work(box: Box, source: Place) -> None:
    """A backup waits for it, and not for ever: rows are on their way into files."""
    url = make_url(source.url).set(drivername="postgresql").render_as_string(hide_password=False)
    upkeep = await asyncpg.connect(url)
    await upkeep.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    clock = StillClock()
    try:
        with pytest.raises(Conflict, match="is at work on this database for too long"):
            await making.make(box.file, Source(source.url, box.data_dir), clock, box.lines.append)
    finally:
        await upkeep.close()
    assert clock.slept_ms >= UPKEEP_WAIT_MS_MAX
    assert box.lines == ["  upkeep, or another backup, is at work on this database; waiting for its end"]
    assert left(box) == []


async def test_models_are_named(box: Box, source: Place) -> None:
    """What can be fetched again is not in the backup, but what it was is."""
    (folder := box.data_dir / "models" / "owner" / "repo").mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"GGUF" * 10)
    manifest = await box.backup(source)
    assert [(model.name, model.bytes) for model in manifest.models] == [("owner/repo/model.gguf", 40)]
    assert b"GGUFGGUF" not in box.file.read_bytes()
