"""Being alone with a file, against real processes that have it open."""

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.embedded.open_files import InUse, alone_with, share

Spawn = Callable[..., subprocess.Popen[str]]

LEASES = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="write leases are Linux'")
# A program that knows nothing of us, as a llama-server of somebody else: it maps the file and closes it.
MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("mapped", flush=True)
sys.stdin.readline()
"""
SHARES = """
import sys
from pathlib import Path
from server.embedded.open_files import share
share(Path(sys.argv[1]))
print("shared", flush=True)
sys.stdin.readline()
"""
READS = """
import sys
print("begins", flush=True)
with open(sys.argv[1], "rb") as file:
    print(file.read(4).decode(), flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of some bytes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" * 4096)
    return path


def said(program: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert program.stdout is not None
    return program.stdout.readline().strip()


def test_nobody_has_it_open(file: Path) -> None:
    """Then one can be alone with it, more than once, and it is not changed by that."""
    before = file.stat()
    for _ in range(2):
        with alone_with(file) as found:
            assert (found.st_dev, found.st_ino) == (before.st_dev, before.st_ino)
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_server_offers_it(file: Path, spawn: Spawn) -> None:
    """As long as its process lives, and not a moment longer, however it dies."""
    other = spawn(sys.executable, "-P", "-c", SHARES, file)
    assert said(other) == "shared"
    with pytest.raises(InUse, match="a server offers it"), alone_with(file):
        pass
    other.kill()
    other.wait(5)
    with alone_with(file):
        pass


@LEASES
def test_a_strange_program_has_it_mapped(file: Path, spawn: Spawn) -> None:
    """Also where it has closed the file after mapping it, as llama.cpp does."""
    other = spawn(sys.executable, "-P", "-c", MAPS, file)
    assert said(other) == "mapped"
    with pytest.raises(InUse, match="another program has it open"), alone_with(file):
        pass
    other.kill()
    other.wait(5)
    with alone_with(file):
        pass


@LEASES
def test_who_comes_meanwhile_waits(file: Path, spawn: Spawn) -> None:
    """A program that opens the file while one is alone with it gets it afterwards; its coming ends nobody."""
    with alone_with(file):
        other = spawn(sys.executable, "-P", "-c", READS, file)
        assert said(other) == "begins"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert said(other) == "GGUF"


def test_two_cannot_be_alone(file: Path) -> None:
    """The second is told at once; it does not wait."""
    with alone_with(file), pytest.raises(InUse), alone_with(file):
        pass


def test_shared_twice(file: Path) -> None:
    """Two servers may offer one file; it is free when both have closed it."""
    first, second = share(file), share(file)
    os.close(first)
    with pytest.raises(InUse), alone_with(file):
        pass
    os.close(second)
    with alone_with(file):
        pass


@LEASES
def test_a_map_of_ones_own(file: Path) -> None:
    """What this process itself maps is in use as well."""
    with file.open("rb") as opened:
        view = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(InUse), alone_with(file):
        pass
    view.close()


def test_what_is_no_file_of_ones_own(file: Path, tmp_path: Path) -> None:
    """A link is not followed, and what is gone is told as such."""
    link = tmp_path / "link.gguf"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"), alone_with(link):
        pass
    with pytest.raises(FileNotFoundError), alone_with(tmp_path / "gone.gguf"):
        pass


@LEASES
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_somebody_else(data_dir: Path) -> None:
    """Nobody can tell who has it open, and so it counts as in use."""
    data_dir.chmod(0o755)
    file = data_dir / "model.gguf"
    file.write_bytes(b"GGUF")
    file.chmod(0o644)
    os.seteuid(65534)
    try:
        with pytest.raises(InUse, match="nobody can tell"), alone_with(file):
            pass
    finally:
        os.seteuid(0)
