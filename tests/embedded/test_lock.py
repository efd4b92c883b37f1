"""One server per data folder, and a sentence for a folder that cannot be one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.embedded.lock import Holder, hold, holder
from server.embedded.paths import socket_dir
from server.errors import StartError

HOLDS = """
import sys
from pathlib import Path
from server.embedded.lock import hold
with hold(Path(sys.argv[1])) as lock:
    lock.tell("http://127.0.0.1:8000")
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_second_server_learns_of_the_first(data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """A second server is told the first one's process id and address; kill -9 frees the folder."""
    first = spawn(sys.executable, "-P", "-c", HOLDS, data_dir)
    assert first.stdout is not None
    first.stdout.readline()
    expected = rf"already running \(pid {first.pid}\) at http://127\.0\.0\.1:8000"
    with pytest.raises(StartError, match=expected), hold(data_dir):
        pass
    assert holder(data_dir) == Holder(first.pid, "http://127.0.0.1:8000")
    first.kill()
    first.wait(5)
    assert holder(data_dir) is None
    with hold(data_dir):
        assert holder(data_dir) == Holder(os.getpid(), "")


def test_a_file_in_the_way(data_dir: Path) -> None:
    """A data folder below a file, or in a file's place, gives one sentence."""
    (data_dir / "file").write_text("")
    for path in (data_dir / "file", data_dir / "file" / "below"):
        with pytest.raises(StartError, match=r"cannot be written: a file is in its place\. Choose another"), hold(path):
            pass


def test_a_read_only_place() -> None:
    """A place where even root cannot write gives one sentence."""
    path = Path("/proc/wirthforge" if sys.platform.startswith("linux") else "/System/wirthforge")
    with pytest.raises(StartError, match=f"The data folder {path} cannot be written: "), hold(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make somebody else's folder")
def test_a_strangers_socket_folder(long_data_dir: Path) -> None:
    """A folder in /tmp that somebody else made in our name is refused."""
    short = socket_dir(long_data_dir)
    short.mkdir()
    os.chown(short, 65534, 65534)
    with pytest.raises(StartError, match="belongs to user 65534"):
        socket_dir(long_data_dir)
    short.rmdir()
    short.symlink_to("/etc")
    with pytest.raises(StartError, match="is in the way"):
        socket_dir(long_data_dir)
    short.unlink()
