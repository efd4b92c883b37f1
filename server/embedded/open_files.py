"""Who has a file open, asked in such a way that the answer still holds when one acts on it.

Two questions, since neither is enough:

- A lock (flock, shared) is what our own servers hold on every model that they offer, loaded or not (model_cache.py). It
  works wherever locks do, and ends with its holder however that dies.
- A write lease (Linux, fcntl(2) F_SETLEASE) is granted only while nobody else at all has the file open or mapped,
  whatever the program, its user or its container; and while we have it, whoever opens the file waits for us. So nothing
  can begin to read between our question and what we do. The kernel tells the lease's holder of such a waiter by a
  signal, SIGIO by default, which ends a process; SIGURG does nothing to ours.

Where there are no leases (macOS, network file systems) only the first question is asked.
"""

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors by which a file system says that it knows no locks, or no leases.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})


class InUse(Exception):
    """Somebody may have the file open; says who, as far as that is known."""


@contextmanager
def alone_with(path: Path) -> Iterator[os.stat_result]:
    """For the length of the block, nobody else has the file at `path` open, and who wants to must wait. Never waits.

    Yields:
        What the file is, so that one can see whether it is still the one that was meant.

    Raises:
        InUse: somebody has it open, or nobody can tell.
        OSError: it is gone, is a link, or cannot be opened.
    """
    try:
        file = _open(path)
    except BlockingIOError:
        raise InUse("another program is at work on it") from None
    try:
        _lock(file)
        _lease(file)
        yield os.fstat(file)
    finally:
        os.close(file)


def share(path: Path) -> int:
    """Open the file and lock it against `alone_with` until the number that is returned is closed.

    Waits while somebody is alone with it, which is no longer than a removal takes.

    Raises:
        OSError: it cannot be opened. One that cannot be locked is shared all the same: nobody can be alone with it.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            os.close(file)
            raise
    except BaseException:
        os.close(file)
        raise
    return file


def _open(path: Path) -> int:
    how = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # For writing, because network file systems lock nothing else exclusively.
        return os.open(path, os.O_RDWR | how)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
    return os.open(path, os.O_RDONLY | how)


def _lock(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse("a server offers it") from None
    except OSError as error:
        raise InUse(f"nobody can tell whether it is in use: {error.strerror}") from None


def _lease(file: int) -> None:
    if not hasattr(fcntl, "F_SETLEASE"):
        return
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        raise InUse("another program has it open") from None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return
        # Leases are for a file's owner.
        raise InUse(f"nobody can tell whether it is in use: {error.strerror}") from None
