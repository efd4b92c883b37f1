"""A disk that is really full, for the whole of a box."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations.installation import Installation, installation

SIZE = "200m"
# Less than this no part of the box can do anything with.
PIECE_BYTES = 4096
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def small_disk() -> Iterator[Installation]:
    """An installation whose data folder is on a disk of its own."""
    with installation() as made:
        made.data.mkdir()
        mounted = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(made.data))
        if mounted.returncode != 0:
            pytest.skip(f"No disk can be mounted here: {mounted.stderr.strip()}")
        try:
            yield made
        finally:
            made.close()
            assert _run("umount", str(made.data)).returncode == 0


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 (ours)


def fill(folder: Path) -> Path:
    """Write until nothing more can be written; the file that takes all."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PIECE_BYTES))
        except OSError:
            return filler


async def test_a_full_disk(small_disk: Installation) -> None:
    """Nothing is taken any more, and it is said why; with room it goes on by itself, and nothing was lost or forged."""
    box = small_disk
    box.start()
    box.add_admin("ann")
    assert box.chat().status_code == 200
    used = await box.tokens_beyond(0)
    filler = fill(box.data)
    assert box.chat().status_code == 503
    box.do("a full disk")
    refused = box.type(f"wirthforge backup {box.data}/box.tar")
    assert "No space left on device" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not list(box.data.glob("*.tar*"))
    filler.unlink()
    box.do("room again")
    assert box.chat().status_code == 200
    assert await box.tokens_beyond(used) > used
