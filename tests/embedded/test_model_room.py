"""Room for a model that comes: the limit holds at every moment, and a refusal removes nothing."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from server.clock import SystemClock
from server.embedded import model_records
from server.embedded.llama import Llama
from server.embedded.model_cache import Model, alone_in
from server.embedded.model_room import entering, said
from server.embedded.supervisor import Part
from server.errors import StartError
from tests.embedded.pulled import MB, day, left, prune, pull, put

NEW = "n/r/new.gguf"
UNSHARE = shutil.which("unshare")
REPOSITORY = Path(__file__).parents[2]
# A disk of 16 MiB, in memory, in a name space of its own: real ENOSPC, and no other disk is filled.
SMALL_DISK = """
import os, subprocess, sys
from pathlib import Path
from server.embedded import model_room
from server.errors import StartError
from tests.embedded.pulled import prune, pull
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], check=True)
model_room.DISK_LEFT_BYTES_MIN = 2**20
MIB = 2**20
def fill(path, size):
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
def held(name):
    path = pull(folder, name, 6 * MIB)
    stamp = path.stat().st_mtime
    fill(path, 6 * MIB)
    os.utime(path, (stamp, stamp))
def come(name, size):
    with model_room.entering(
        folder / name, folder=folder, reference=name, size_bytes=size, bytes_max=10**9,
        named=(), tell=lambda model: print("removed", model.name),
    ):
        (folder / name).parent.mkdir(parents=True)
        fill(folder / name, size)
    print("came")
held("a/x/one.gguf")
held("a/x/two.gguf")
come("n/r/new.gguf", 8 * MIB)
try:
    come("o/r/large.gguf", 15 * MIB + MIB // 2)
except StartError as error:
    print(error.message)
try:
    fill(folder / "full", 64 * MIB)
except OSError as error:
    print(error.strerror)
with open(folder / "full", "ab", buffering=0) as file:
    try:
        while True:
            file.write(b"0" * 4096)
    except OSError as error:
        print(error.strerror)
print(prune(folder))
"""


@pytest.fixture
def told() -> list[str]:
    """Lines about what was removed."""
    return []


@pytest.fixture
def come(tmp_path: Path, told: list[str]) -> Callable[..., AbstractContextManager[None]]:
    """Makes room in `tmp_path`."""

    def begin(
        size: int | None, limit: int, name: str = NEW, named: tuple[Path, ...] = ()
    ) -> AbstractContextManager[None]:
        def tell(model: Model) -> None:
            told.append(said(model))

        return entering(
            tmp_path / name,
            folder=tmp_path,
            reference=f"hf:{name}",
            size_bytes=size,
            bytes_max=limit,
            named=named,
            tell=tell,
        )

    return begin


Come = Callable[..., AbstractContextManager[None]]


def test_room_is_made_first(tmp_path: Path, come: Come, told: list[str]) -> None:
    """The longest unused is gone before the first byte comes; what has come is ours, and the next to go is another."""
    pull(tmp_path, "a/x/old.gguf", used=1)
    pull(tmp_path, "a/x/newer.gguf", used=2)
    with come(50 * MB, 160 * MB):
        assert not (tmp_path / "a" / "x" / "old.gguf").exists()
        put(tmp_path / NEW, 50 * MB, since=9)
    assert told == ["Removed a/x/old.gguf (0.1 GB, last used 2026-11-02 00:00) to make room."]
    assert prune(tmp_path, 149 * MB)[0] == ["a/x/newer.gguf"]
    assert prune(tmp_path) == ([NEW], {})


def test_where_there_is_room(tmp_path: Path, come: Come, told: list[str]) -> None:
    """Nothing goes, and what people put there does not count."""
    pull(tmp_path, "a/x/old.gguf")
    put(tmp_path / "theirs.gguf", 5000 * MB)
    with come(100 * MB, 200 * MB):
        put(tmp_path / NEW)
    assert told == []
    assert {"a/x/old.gguf", "theirs.gguf", NEW} < left(tmp_path)


def test_a_refusal_removes_nothing(tmp_path: Path, come: Come, told: list[str]) -> None:
    """Neither for a model larger than the limit, nor where too much must stay; each sentence says what to do."""
    kept = pull(tmp_path, "a/x/kept.gguf", used=1)
    pull(tmp_path, "a/x/other.gguf", used=2)
    before = left(tmp_path)
    with pytest.raises(StartError, match=r"has 1\.0 GB, and the model cache may hold 0\.5 GB.*copy the file into"):
        come(1000 * MB, 500 * MB).__enter__()
    with pytest.raises(
        StartError, match=r"There is no room for hf:n/r/new\.gguf \(0\.2 GB\).*0\.1 GB in it stay.*prune"
    ):
        come(160 * MB, 200 * MB, named=(kept,)).__enter__()
    assert told == []
    assert left(tmp_path) == before


def test_a_download_that_fails(tmp_path: Path, come: Come) -> None:
    """Leaves no record, and its fault is told as it was."""
    with pytest.raises(OSError, match="away"), come(100 * MB, 200 * MB):
        raise OSError("away")
    assert left(tmp_path) == set()
    with come(100 * MB, 200 * MB):
        put(tmp_path / NEW)


def test_two_that_come_at_once(tmp_path: Path, come: Come) -> None:
    """The second counts what the first was announced with, before a byte of it is here; one file comes once."""
    with come(100 * MB, 250 * MB):
        with pytest.raises(StartError, match=r"There is no room for hf:n/r/second\.gguf.*0\.1 GB in it stay"):
            come(200 * MB, 250 * MB, "n/r/second.gguf").__enter__()
        with pytest.raises(StartError, match=r"Another process is fetching n/r/new\.gguf"):
            come(1, 250 * MB).__enter__()
        with come(150 * MB, 250 * MB, "n/r/third.gguf"):
            put(tmp_path / NEW, 100 * MB)
            put(tmp_path / "n" / "r" / "third.gguf", 150 * MB)
    assert sorted(prune(tmp_path)[0]) == [NEW, "n/r/third.gguf"]


def test_a_file_that_is_here_by_now(tmp_path: Path, come: Come, told: list[str]) -> None:
    """Another process was faster: no room is made, and the file is as much ours as it was."""
    pull(tmp_path, NEW)
    with come(100 * MB, 100 * MB):
        pass
    put(tmp_path / "theirs.gguf")
    with come(100 * MB, 100 * MB, "theirs.gguf"):
        pass
    assert told == []
    assert prune(tmp_path) == ([NEW], {"theirs.gguf": "yours"})


def test_an_attempt_that_was_killed(tmp_path: Path, come: Come) -> None:
    """What it announced does not count beside what the next one does, and nothing of it is left."""
    with model_records.fetching(tmp_path, Path(NEW)) as entry:
        entry.write(model_records.Record("hf:x", 200 * MB))
    with model_records.fetching(tmp_path, Path("gone/r/x.gguf")) as entry:
        entry.write(model_records.Record("hf:y", 200 * MB))
    with come(200 * MB, 250 * MB):
        put(tmp_path / NEW, 200 * MB)
    assert left(tmp_path) == {NEW, f".wirthforge/{NEW}.pulled"}


def test_a_size_that_nobody_tells(tmp_path: Path, come: Come, told: list[str]) -> None:
    """Then room is made when the model is here; it itself stays."""
    pull(tmp_path, "a/x/old.gguf", used=20)
    with come(None, 150 * MB):
        put(tmp_path / NEW)
    assert told == ["Removed a/x/old.gguf (0.1 GB, last used 2026-11-21 00:00) to make room."]
    assert (tmp_path / NEW).exists()


def test_names_that_lead_out(come: Come) -> None:
    """A reference with dots does not make room for, or a record of, a file elsewhere."""
    with pytest.raises(StartError, match="outside of"):
        come(1, 10**9, "../../x.gguf").__enter__()
    with pytest.raises(StartError, match=r"cannot be made: "):
        entering(
            Path("/proc/none/a/b/c.gguf"), folder=Path("/proc/none"), reference="hf:x", size_bytes=1, bytes_max=10**9,
            named=(), tell=lambda _: None,
        ).__enter__()  # fmt: skip


def test_many_at_once_keep_the_limit(tmp_path: Path, come: Come) -> None:
    """Whoever comes, the sum of what is here and what is announced is never more than the limit."""
    sums, start = list[int](), threading.Barrier(4)

    def fetch(number: int) -> None:
        start.wait()
        for round_ in range(4):
            name = f"o/r/{number}-{round_}.gguf"
            try:
                with come(100 * MB, 300 * MB, name):
                    put(tmp_path / name, since=number * 4 + round_)
                    # Nothing is removed while we count.
                    with alone_in(tmp_path):
                        sums.append(sum(path.stat().st_size for path in tmp_path.glob("o/r/*.gguf")))
            except StartError:
                continue

    several = [threading.Thread(target=fetch, args=(number,)) for number in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert len(sums) >= 4
    assert max(sums) <= 300 * MB


@pytest.mark.skipif(UNSHARE is None, reason="needs a name space for a disk of its own")
def test_a_full_disk(tmp_path: Path) -> None:
    """Where the disk is the bound, room is made on it, or the sentence says so; prune works on a disk that is full."""
    assert UNSHARE is not None
    done = subprocess.run(  # noqa: S603 (our own program)
        [UNSHARE, "-rm", sys.executable, "-c", SMALL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    if "unshare failed" in done.stderr or "mount" in done.stderr:
        pytest.skip("this machine makes no name spaces for us")
    assert done.returncode == 0, done.stderr
    first, came, refused, full, still_full, pruned = done.stdout.splitlines()
    assert (first, came) == ("removed a/x/one.gguf", "came")
    assert "too little, also without what may be removed" in refused
    assert full == still_full == "No space left on device"
    assert pruned == "(['a/x/two.gguf', 'n/r/new.gguf'], {})"


async def test_loading_is_using(
    running: Callable[[Part], Awaitable[None]], model: Path, data_dir: Path, clock: SystemClock
) -> None:
    """A model that is loaded, or ended, is used at that moment; what is put down outlives the server."""
    folder = data_dir / "models"
    path = pull(folder, "o/r/tiny.gguf", used=1)
    shutil.copyfile(model, path)
    begin = clock.now()
    engine = Llama(path, name="tiny", slots=1, context_tokens=256, data_dir=data_dir, clock=clock)
    await running(engine)
    loaded = model_records.last_used(folder, Path("o/r/tiny.gguf"))
    assert loaded is not None
    assert begin.timestamp() - 0.001 <= loaded.timestamp() <= clock.now().timestamp()
    model_records.mark_used(folder, path, day(2))
    await engine.stop()
    ended = model_records.last_used(folder, Path("o/r/tiny.gguf"))
    assert ended is not None
    assert ended >= loaded
    # Ended already: it is not used by ending it once more.
    model_records.mark_used(folder, path, day(2))
    await engine.stop()
    assert model_records.last_used(folder, Path("o/r/tiny.gguf")) == day(2)


def test_a_use_that_cannot_be_put_down(tmp_path: Path) -> None:
    """Stops no model; of a file elsewhere nothing is put down."""
    folder = tmp_path / "models"
    path = put(folder / "own.gguf")
    put(folder / ".wirthforge", 0)
    model_records.mark_used(folder, path, day(1))
    model_records.mark_used(folder, put(tmp_path / "elsewhere.gguf"), day(1))
    assert left(folder) == {"own.gguf", ".wirthforge"}
    assert model_records.last_used(folder, Path("own.gguf")) is None
