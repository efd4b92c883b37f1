"""The encryption key of a box that has one data folder: made once, DATA/encryption.key, for its owner alone.

It is not in a backup: a backup that is lost opens no provider's key. One key a line, the first of which seals
(server/privacy/sealed.py).
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from server.embedded.paths import private_dir
from server.errors import StartError

NAME = "encryption.key"
FILE_BYTES_MAX = 4096
# A secret that a container mounts belongs to root.
ROOT = 0


def path_of(data_dir: Path) -> Path:
    """Where it lies."""
    return data_dir / NAME


def read(data_dir: Path) -> str:
    """The keys as the setting writes them, with commas; "" where there is no file.

    Raises:
        StartError: somebody else may read or write it, or it cannot be read.
    """
    path = path_of(data_dir)
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StartError(f"The encryption key {path} cannot be read: {error.strerror}.") from None
    try:
        _refuse(path, os.fstat(opened))
        text = os.read(opened, FILE_BYTES_MAX + 1)
    finally:
        os.close(opened)
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines() if line.strip()]
    if not lines or len(text) > FILE_BYTES_MAX:
        raise StartError(f"The encryption key {path} holds no key. Put the old one back, or remove the file.")
    return ",".join(lines)


def read_or_make(data_dir: Path, make: Callable[[], str]) -> str:
    """The keys; where there is no file yet, a new one with what `make` gives. Raises StartError."""
    if kept := read(data_dir):
        return kept
    private_dir(data_dir)
    path = path_of(data_dir)
    beginning = path.with_name(f"{NAME}.{os.getpid()}")
    try:
        with suppress(FileNotFoundError):
            beginning.unlink()
        opened = os.open(beginning, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Whole or not at all, and never in the place of one that is there: what it sealed would be lost.
        with suppress(FileExistsError):
            os.link(beginning, path)
        _sync(data_dir)
    except OSError as error:
        raise StartError(f"The encryption key {path} cannot be made: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            beginning.unlink()
    return read(data_dir)


def _refuse(path: Path, found: os.stat_result) -> None:
    """Raise StartError for what is no secret of ours."""
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"{path} is in the way: it should be a file. Move it away.")
    if found.st_uid not in {os.geteuid(), ROOT}:
        raise StartError(f"The encryption key {path} belongs to user {found.st_uid}, not to user {os.geteuid()}.")
    if found.st_mode & 0o077:
        raise StartError(
            f"Others may read or change the encryption key {path}. Run `chmod 600 {path}`; if somebody did, change the "
            "providers' keys."
        )


def _sync(folder: Path) -> None:
    """Have its names on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
