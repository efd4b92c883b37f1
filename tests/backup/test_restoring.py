"""What keeps a backup from being restored, and that nobody takes a part of a box for a whole one."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from server.backup import database
from server.backup.making import LEFT_OUT
from server.clock import SystemClock
from server.db.migrate import migrate, require_newest
from server.embedded import lock
from server.embedded.postgres import Postgres
from server.errors import StartError
from tests.backup.conftest import Box, Place, run
from tests.backup.rows import contents
from tests.cli.programs import COMMAND, environment

PROGRAM_S_MAX = 80

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(box: Box) -> Start:
    """Starts `wirthforge restore` as a program."""

    def begin(data_dir: Path, **settings: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(  # noqa: S603 (our own program)
            [*COMMAND, "restore", str(box.file), "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=box.data_dir,
            env=environment(box.data_dir, **settings),
        )

    return begin


def ends(program: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status, and the last thing that it says."""
    out, err = program.communicate(timeout=PROGRAM_S_MAX)
    assert out == ""
    return program.returncode, err.splitlines()[-1]


async def test_a_database_that_is_not_empty(box: Box, source: Place, target: Place) -> None:
    """Whatever is in it stays as it is."""
    await box.backup(source)
    await run(target.url, "CREATE TABLE mine (word text)", "INSERT INTO mine VALUES ('here')")
    with pytest.raises(StartError, match=r"The database is not empty \(mine\): a backup is restored into an empty one"):
        await box.restore(target)
    assert {name: len(rows) for name, rows in (await contents(target.url)).items()} == {"mine": 1}


async def test_a_restore_that_does_not_agree(
    box: Box, source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last step fails no server starts on what is there, and the next restore says what to do."""
    await box.backup(source)

    async def require_more(connection: object, counts: dict[str, int], tables: object) -> None:
        counts = {**counts, "usage": counts["usage"] + 1}
        await require_same(connection, counts, tables)  # type: ignore[arg-type]

    require_same = database.require_same
    monkeypatch.setattr(database, "require_same", require_more)
    with pytest.raises(StartError, match="The table usage has 4 rows, and 5 were in the backup"):
        await box.restore(target)
    with pytest.raises(StartError, match="has no schema"):
        await require_newest(target.url)
    with pytest.raises(StartError, match="holds a restore that did not come to its end: drop the database"):
        await box.restore(target)


async def test_policies_that_are_missing(box: Box, source: Place, target: Place) -> None:
    """A box in which a table of people is open is not restored."""
    await run(source.url, "DROP POLICY own ON api_keys")
    await box.backup(source)
    with pytest.raises(StartError, match="Row-level security does not hold as it did: api_keys"):
        await box.restore(target)


async def test_rows_that_do_not_fit(box: Box, source: Place, target: Place) -> None:
    """What pg_restore says is in the sentence, without the rows; nothing of its transaction stays."""
    await run(source.url, f"ALTER TABLE prices ADD CONSTRAINT at_home CHECK (current_database() = '{source.name}')")
    await box.backup(source)
    with pytest.raises(StartError, match=r"pg_restore failed: .*at_home") as refused:
        await box.restore(target)
    assert "second line" not in refused.value.message
    assert await contents(target.url) == {}


def test_a_server_runs(box: Box, start: Start) -> None:
    """Beside a running server nothing is restored; not even the file is looked at."""
    box.file.write_text("")
    with lock.hold(box.data_dir):
        status, sentence = ends(start(box.data_dir))
    assert status == 1
    assert sentence.startswith("wirthforge: WIRTHFORGE is already running (pid ")


async def test_a_data_folder_with_a_database(box: Box, source: Place, start: Start) -> None:
    """An embedded database is never overwritten."""
    await box.backup(source)
    place = box.data_dir / "postgres-18"
    place.mkdir()
    status, sentence = ends(start(box.data_dir))
    assert status == 1
    assert sentence.startswith(f"wirthforge: The data folder has a database ({place}): move it away")
    assert list(place.iterdir()) == []
    assert not (box.data_dir / "restore.part").exists()


async def in_the_midst(program: "subprocess.Popen[str]", data_dir: Path) -> None:
    """Return when its Postgres begins to run."""
    while not (data_dir / "restore.part" / "postgres-18").exists():
        assert program.poll() is None
        await SystemClock().sleep_ms(10)


async def test_a_restore_that_is_asked_to_end(box: Box, source: Place, start: Start, short_dir: Path) -> None:
    """By Ctrl-C, or by whoever stops the machine: the data folder is as it was."""
    await box.backup(source)
    data_dir = short_dir / "not restored"
    program = start(data_dir)
    await in_the_midst(program, data_dir)
    program.send_signal(signal.SIGTERM)
    status, sentence = ends(program)
    assert status == 1
    assert sentence == "wirthforge: Interrupted: nothing was restored that a server would start on."
    assert [path.name for path in data_dir.iterdir()] == ["run"]


async def test_an_embedded_box(box: Box, source: Place, start: Start, short_dir: Path) -> None:
    """Killed in the midst, it leaves no database; done once more, it is complete, and Postgres starts on it."""
    await box.backup(source)
    data_dir = short_dir / "restored"
    program = start(data_dir)
    await in_the_midst(program, data_dir)
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=PROGRAM_S_MAX)
    assert not (data_dir / "postgres-18").exists()

    assert ends(start(data_dir)) == (0, "Restored. Everybody must log in once more; keys work as they did.")
    assert sorted(path.name for path in data_dir.iterdir()) == ["postgres-18", "run"]
    before = {**await contents(source.url), **{table: [] for table in LEFT_OUT}}
    postgres = Postgres(data_dir, SystemClock())
    await postgres.start()
    try:
        await require_newest(postgres.url)
        assert await contents(postgres.owner_url) == before
        before_and_after = await migrate(postgres.owner_url)
        assert before_and_after[0] == before_and_after[1]
    finally:
        await postgres.stop()
