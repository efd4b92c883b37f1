"""Where the embedded parts keep what they keep, below one data folder.

    DATA/postgres-18    rows            DATA/logs   what each part said
    DATA/redis          the ledger      DATA/run    the lock and, usually, the sockets

Whoever may open Postgres' socket is believed to be the server (`trust`), so the folder of the sockets is the password:
mode 0700 and ours, or nothing starts.
"""

import hashlib
import os
import stat
from pathlib import Path

from server.errors import StartError

# sun_path holds 104 bytes on macOS and 108 on Linux, with the zero at its end.
SOCKET_PATH_BYTES_MAX = 103
POSTGRES_SOCKET = ".s.PGSQL.5432"
REDIS_SOCKET = "redis.sock"


def socket_dir(data_dir: Path) -> Path:
    """The folder of the sockets of the server that owns `data_dir`; it need not exist yet.

    It is DATA/run where the kernel accepts a path that long. Otherwise it is a folder in /tmp (not in $TMPDIR, which
    may differ between the server and the shell that looks for it) whose name follows from the data folder.

    Raises:
        StartError: the folder in /tmp is there and belongs to somebody else.
    """
    folder = data_dir.resolve() / "run"
    if len(os.fsencode(folder / POSTGRES_SOCKET)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    short = Path("/tmp") / f"wirthforge-{digest}"  # noqa: S108 (its owner is checked)
    if short.is_symlink() or short.exists():
        _refuse_strangers(short)
    return short


def private_dir(folder: Path) -> Path:
    """Make `folder` if need be, with mode 0700, and return it.

    Raises:
        StartError: it cannot be made, is no folder, or belongs to somebody else.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_strangers(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise StartError(f"The folder {folder} cannot be made or used: {error.strerror}.") from None
    return folder


def log_path(data_dir: Path, name: str) -> Path:
    """The log of the part called `name`, in a folder that exists afterwards."""
    return private_dir(data_dir / "logs") / f"{name}.log"


def _refuse_strangers(folder: Path) -> None:
    # lstat: a link that somebody else left in /tmp would lead anywhere.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StartError(f"{folder} is in the way: it should be a folder. Move it away.")
    if found.st_uid != os.geteuid():
        raise StartError(
            f"The folder {folder} belongs to user {found.st_uid}, not to user {os.geteuid()}. "
            "Start as its owner, or choose another data folder."
        )
