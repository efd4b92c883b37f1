"""What is written down about the files of the models folder, in a folder inside it.

    MODELS/.wirthforge/OWNER/REPO/FILE.gguf.pulled   what `wirthforge models pull` fetched, as JSON
    MODELS/.wirthforge/OWNER/REPO/FILE.gguf.used     nothing; its modification time is when a model was used last

One small file each, so that two writers never write the same one, and a load costs one utimes(2). The access time of
the model itself would say the same for nothing, but most disks are mounted so that it is rarely written.

A model is ours if its `.pulled` says so and fits it: somebody who replaces a file by their own takes it from us. A
record that cannot be read speaks for them too. While a model is fetched, the fetching process has `.pulled` locked.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from server.embedded.open_files import UNSUPPORTED
from server.errors import StartError

FOLDER = ".wirthforge"
PULLED = ".pulled"
USED = ".used"
RECORD_BYTES_MAX = 4096

log = structlog.get_logger(__name__)


class Record(msgspec.Struct, frozen=True):
    """A file that was pulled.

    Attributes:
        reference: as `hf:owner/repo:file.gguf`.
        size_bytes: of the file; before it is here, what the hub announced; None where it did not.
        modified_s: when it was complete, in seconds since 1970 (copies of a folder keep no more); None before.
    """

    reference: str
    size_bytes: int | None
    modified_s: int | None = None

    def fits(self, size_bytes: int, modified_s: int) -> bool:
        """Whether a file is still the one that was pulled, also where the end of the pull could not be recorded."""
        return self.size_bytes == size_bytes and self.modified_s in {None, modified_s}


class Entry:
    """The record of a file that is fetched now: locked, so that others see that it comes."""

    def __init__(self, file: int) -> None:
        self._file = file

    def clear(self) -> None:
        """Take back what an earlier attempt announced. Raises OSError."""
        os.truncate(self._file, 0)

    def write(self, record: Record) -> None:
        """Put it down, in place: the lock is on this file. Raises OSError."""
        text = msgspec.json.encode(record)
        os.pwrite(self._file, text, 0)
        os.truncate(self._file, len(text))


def name_of(models: Path, path: Path) -> Path | None:
    """`path` as seen from the models folder; None where it is not below it."""
    below = path.parent.resolve() / path.name
    folder = models.resolve()
    return below.relative_to(folder) if below.is_relative_to(folder) and path.name != ".." else None


def pulled_path(models: Path, name: Path) -> Path:
    """Where the record of a file is, or would be."""
    return _beside(models, name, PULLED)


def used_path(models: Path, name: Path) -> Path:
    """The file whose modification time is the last use."""
    return _beside(models, name, USED)


def read(models: Path, name: Path) -> Record | None:
    """The record of a file; None where there is none that can be read."""
    with suppress(OSError, msgspec.DecodeError), pulled_path(models, name).open("rb") as file:
        return msgspec.json.decode(file.read(RECORD_BYTES_MAX), type=Record)
    return None


def is_fetched_now(models: Path, name: Path) -> bool:
    """Whether a process that fetches it holds its record."""
    try:
        file = os.open(pulled_path(models, name), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno not in UNSUPPORTED
    finally:
        os.close(file)
    return False


@contextmanager
def fetching(models: Path, name: Path) -> Iterator[Entry]:
    """Lock the record of a file, which is made if need be, for the length of the block.

    Raises:
        StartError: another process fetches the file, or the record cannot be made.
    """
    path = pulled_path(models, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StartError(f"The folder {models} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"Another process is fetching {name}: wait for its end.") from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise StartError(f"{path} cannot be locked: {error.strerror}.") from None
        yield Entry(file)
    finally:
        os.close(file)


def names(models: Path, *suffixes: str) -> list[Path]:
    """Files of which something is written down, by default that they were pulled, whether they are there or not."""
    records = models / FOLDER
    found = {
        path.relative_to(records).with_name(path.name.removesuffix(suffix))
        for suffix in suffixes or (PULLED,)
        for path in records.rglob(f"?*{suffix}")
        if path.is_file()
    }
    return sorted(found)


def mark_used(models: Path, path: Path, now: datetime) -> None:
    """Put down that the model at `path` is used now, if it is in the models folder. A full disk stops no model."""
    name = name_of(models, path)
    if name is None:
        return
    mark, now_ns = used_path(models, name), int(now.timestamp() * 1000) * 1_000_000
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT, 0o644))
        os.utime(mark, ns=(now_ns, now_ns))
    except OSError as error:
        log.warning("model.use_not_recorded", path=str(mark), reason=error.strerror)


def last_used(models: Path, name: Path) -> datetime | None:
    """When the model was used last; None where nobody put that down."""
    try:
        return datetime.fromtimestamp(used_path(models, name).stat().st_mtime, UTC)
    except OSError:
        return None


def forget(models: Path, name: Path) -> None:
    """Remove what is written down about a file that is gone, and the folders that are empty without it.

    Also what the hub's library keeps beside a repository's files (huggingface_hub 2.4, _local_folder.py): without it
    nothing but an empty skeleton would be left of each model. What cannot be removed is left: it does no harm.
    """
    repository = models.joinpath(*name.parts[:2])
    if len(name.parts) > 2:  # noqa: PLR2004 (OWNER/REPO/FILE)
        inside = Path(*name.parts[2:])
        library = repository / ".cache" / "huggingface"
        kept = library / "download" / inside
        _unlink(kept.with_name(f"{kept.name}.metadata"), kept.with_name(f"{kept.name}.lock"))
        if _remove_empty(kept.parent, until=library):
            _unlink(library / ".gitignore", library / "CACHEDIR.TAG")
            _remove_empty(library, until=repository)
    # Last: as long as it is there, whoever comes next does the rest.
    _unlink(used_path(models, name), pulled_path(models, name))
    # Where a record is left, or comes just now, its file is about to come too.
    if _remove_empty(pulled_path(models, name).parent, until=models / FOLDER):
        _remove_empty((models / name).parent, until=models)


def _beside(models: Path, name: Path, suffix: str) -> Path:
    return models / FOLDER / name.with_name(f"{name.name}{suffix}")


def _unlink(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _remove_empty(folder: Path, *, until: Path) -> bool:
    """Remove `folder` and those above it, as far as they are empty, up to `until`, which stays."""
    while folder != until:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return False
        folder = folder.parent
    return True
