"""A box that loses its data, one kind after the other, and what is left of it afterwards is what the page says."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select

from server.backup.manifest import DUMP, NAME, SUM_NAME
from server.clock import SystemClock
from server.db.models import User
from server.db.session import Database
from server.embedded.postgres import Postgres
from tests.operations.installation import PASSWORD, Installation, installation
from tests.upkeep.chats import add_chat

OLD = timedelta(days=200)
pytestmark = pytest.mark.timeout(240)  # real servers, stopped and started


async def old_conversation(box: Installation, name: str) -> str:
    """One whose months the next upkeep archives; its id."""
    clock = SystemClock()
    database = Database(Postgres(box.data, clock).url, connections_max=1)
    try:
        async with database.transaction() as session:
            who = (await session.scalars(select(User.id).where(User.name == name))).one()
        return str(await add_chat(database, who, clock.now() - OLD))
    finally:
        await database.close()


@pytest.fixture(scope="module")
async def lived_in() -> AsyncIterator[tuple[Installation, str]]:
    """A box with somebody who has asked, an old conversation in the archive, its id, and a backup of all that."""
    with installation() as made:
        made.start()
        made.add_admin("ann")
        assert made.chat().status_code == 200
        await made.tokens_beyond(0)
        chat = await old_conversation(made, "ann")
        made.ask("wirthforge upkeep run && wirthforge backup box.tar")
        yield made, chat


@pytest.fixture
def box(lived_in: tuple[Installation, str]) -> Installation:
    """That box."""
    return lived_in[0]


@pytest.fixture
def chat(lived_in: tuple[Installation, str]) -> str:
    """That conversation."""
    return lived_in[1]


@contextmanager
def browser(box: Installation) -> Iterator[httpx.Client]:
    """Of ann, who has logged in."""
    with httpx.Client(base_url=box.url, timeout=60) as client:
        client.post("/api/login", json={"name": "ann", "password": PASSWORD}).raise_for_status()
        yield client


def budget(box: Installation) -> tuple[int, int]:
    """Tokens and requests of this month that ann's budget holds."""
    lines = json.loads(box.ask("wirthforge doctor ledger --json"))["lines"]
    (line,) = (line for line in lines if line["person"] == "ann" and len(line["window"]) == len("2026-01"))
    return line["budget_tokens"], line["budget_requests"]


def kill_when(box: Installation, words: str, beginning: Path) -> None:
    """Type a command, and kill it as soon as that path is there."""
    program = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-m", "server", *words.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=box.home,
        env=box.variables,
    )
    while not beginning.exists():
        assert program.poll() is None
    family = psutil.Process(program.pid).children(recursive=True)
    program.kill()
    program.wait()
    psutil.wait_procs(family, timeout=20)


def flip(path: Path, at: int | None = None) -> None:
    """One bit of it, in its midst unless it is said where."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3 if at is None else at] ^= 1
    path.write_bytes(content)


def newer(path: Path, like: Path) -> None:
    """A whole backup, of a version that does not exist yet."""
    with tarfile.open(like) as old, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as new:
        parts = {member.name: part.read() for member in old if (part := old.extractfile(member))}
        manifest = {**json.loads(parts[NAME]), "revision": "9999"}
        parts[NAME] = json.dumps(manifest).encode()
        parts[SUM_NAME] = f"{hashlib.sha256(parts[NAME]).hexdigest()}  {NAME}\n".encode()
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))


def test_the_archive_is_damaged(box: Installation, chat: str) -> None:
    """A flipped bit is found by whoever opens it, and by the backup; the file of an older backup mends both."""
    (file,) = (box.data / "archive").glob("messages_*.parquet")
    box.own = {"messages_EXAMPLE.1.parquet": file.name}
    flip(file)
    with browser(box) as ann:
        assert ann.get(f"/api/conversations/{chat}").json()["error"]["code"] == "archive_changed"
        box.do("the archive is damaged")
        box.do("the archive is mended")
        assert len(ann.get(f"/api/conversations/{chat}").json()["messages"]) == 5


def test_backups_that_are_none(box: Installation) -> None:
    """One bit, a newer version, a box that is not empty: refused with a sentence, and nothing is written."""
    (box.home / "damaged.tar").write_bytes((box.home / "box.tar").read_bytes())
    flip(box.home / "damaged.tar")
    with tarfile.open(box.home / "box.tar") as tar:
        assert tar.getmember(DUMP).size > 1000
    newer(box.home / "newer.tar", box.home / "box.tar")
    box.do("stop")
    box.do("a restore that is refused")
    assert not any((box.home / "practice").glob("postgres*"))
    assert (box.data / "postgres-18").exists()


async def test_redis_loses_its_data(box: Installation) -> None:
    """A file that was overwritten keeps the box from starting, with a sentence; without it everybody starts level."""
    file = box.data / "redis" / "appendonly.aof"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"X" * 100_000)
    refused = box.type("wirthforge up")
    assert (
        f"wirthforge: Redis' file in {file.parent} is damaged. Move the folder away and start again" in refused.stdout
    )
    assert refused.returncode == 1
    box.do("redis has lost its data")
    usage = box.tokens()
    assert box.chat().status_code == 200
    more = await box.tokens_beyond(usage) - usage
    assert budget(box) == (more, 1)


async def test_postgres_loses_its_data(box: Installation, chat: str) -> None:
    """After kill -9 and the loss of all rows the backup is back, and what came after it is not."""
    box.ask("wirthforge backup box.tar --force")
    kept = box.tokens()
    kill_when(box, "backup killed.tar", box.home / "killed.tar.part")
    assert not (box.home / "killed.tar").exists()
    revoked = box.ask("wirthforge key create --user ann --label late")
    box.ask("wirthforge user add late")
    assert box.chat().status_code == 200
    with browser(box) as before:
        box.up.end(signal.SIGKILL)
        flip(box.data / "postgres-18" / "global" / "pg_control", at=100)
        refused = box.type("wirthforge up")
        assert (refused.returncode, "incorrect checksum" in refused.stdout) == (1, True), refused.stdout
        shutil.rmtree(box.data / "postgres-18")
        box.do("postgres has lost its data")
        assert before.get("/api/conversations").status_code == 401
    assert box.tokens() == kept
    assert box.chat(revoked).status_code == 401
    assert "late" not in box.ask("wirthforge user list")
    assert box.chat().status_code == 200
    more = await box.tokens_beyond(kept) - kept
    assert budget(box) == (more, 1)
    with browser(box) as ann:
        assert len(ann.get(f"/api/conversations/{chat}").json()["messages"]) == 5


def test_a_restore_is_killed(box: Installation) -> None:
    """Done once more, it is complete."""
    practice = box.home / "practice"
    kill_when(box, f"restore box.tar --data-dir {practice}", practice / "restore.part" / "postgres-18")
    assert not (practice / "postgres-18").exists()
    box.do("a restore beside")
    assert not practice.exists()
