"""One server per data folder.

The lock is the kernel's (flock), so it ends with its holder however that dies; the file's text only tells who it is.
The file is never removed: a second server could lock the removed one while a third makes it anew.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.embedded.paths import private_dir
from server.errors import StartError

FILE_BYTES_MAX = 4096


@dataclass(frozen=True)
class Holder:
    """The server that owns a data folder."""

    pid: int
    # Empty while it starts.
    address: str


class DataLock:
    """The lock of one data folder, held."""

    def __init__(self, file: int) -> None:
        self._file = file

    def tell(self, address: str) -> None:
        """Write where the server can be reached, for whoever comes second."""
        text = f"{os.getpid()}\n{address}\n".encode()
        # Written, then cut: a reader in between sees a whole first and second line, and reads no further.
        os.pwrite(self._file, text, 0)
        os.truncate(self._file, len(text))


@contextmanager
def hold(data_dir: Path) -> Iterator[DataLock]:
    """Own `data_dir`, which is made if need be, for the length of the block.

    Raises:
        StartError: another server owns it, or it cannot be written.
    """
    file = _open(data_dir)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already_running(data_dir, _read(file)) from None
        except OSError as error:
            raise _unusable(data_dir, error) from None
        lock = DataLock(file)
        try:
            lock.tell("")
        except OSError as error:
            raise _unusable(data_dir, error) from None
        yield lock
    finally:
        os.close(file)


def holder(data_dir: Path) -> Holder | None:
    """The server that owns `data_dir` at this moment, if there is one."""
    try:
        file = os.open(data_dir / "run" / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    finally:
        os.close(file)
    return None


def _open(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_dir(data_dir / "run")
        return os.open(data_dir / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from None


def _read(file: int) -> Holder:
    pid, address, *_ = [*os.pread(file, FILE_BYTES_MAX, 0).decode(errors="replace").splitlines(), "", ""]
    return Holder(int(pid) if pid.isdecimal() else 0, address)


def _already_running(data_dir: Path, other: Holder) -> StartError:
    where = f" at {other.address}" if other.address else ", starting"
    return StartError(f"WIRTHFORGE is already running (pid {other.pid}){where} with the data folder {data_dir}.")


def _unusable(data_dir: Path, error: OSError) -> StartError:
    # EEXIST: the folder's own name is a file's.
    reason = "a file is in its place" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return StartError(
        f"The data folder {data_dir} cannot be written: {reason}. "
        "Choose another with WIRTHFORGE_DATA_DIR, or make it writable."
    )
