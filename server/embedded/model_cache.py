"""The model cache: which files of the models folder may be deleted to make room, and deleting them.

Cache is what the server fetched itself and could fetch again: files below DATA/models of which there is a record
(model_records.py) that still fits them. Everything else there is somebody's own: it does not count against the limit,
and goes only if they ask for it. The files are those of GGUF models; nothing else in the folder is touched.

Whatever the limit, these stay: what a server offers, loaded or not, and what any other program has open
(open_files.py); what the settings name; what is being fetched; what also has a name outside of the folder, since taking
ours away frees nothing. The rest goes in the order of its last use, the longest ago first, until the limit is kept.

A file may have several names: hard links, and links such as those of the hub's own cache (`snapshots/…/x.gguf` to
`blobs/SHA`). So a file is known by device and inode, and goes with all its names or not at all. A model in several
files (`-00001-of-00003.gguf`) goes whole too.

What was found may be old when it is acted on, so each file is asked once more, and locked, when its turn comes. One
process at a time works on a folder. It may be killed at any step: records go last, so what is left is found again.
"""

import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from msgspec import Struct

from server.embedded import model_records
from server.embedded.open_files import UNSUPPORTED, InUse, alone_with, share
from server.errors import StartError

SUFFIX = ".gguf"
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
# What the hub's library leaves of a download that was killed (huggingface_hub 2.4, file_download.py). It is never
# continued: its name is made up anew each time.
LEFTOVER = ".cache/huggingface/download/**/*.incomplete"
FETCHED_NOW = "is being fetched"

Key = tuple[int, int]

log = structlog.get_logger(__name__)


class File(Struct, frozen=True):
    """A file, by device and inode.

    Attributes:
        names: below the models folder, links first.
        is_elsewhere: it has a name outside of the folder, or none in it but links.
    """

    key: Key
    size_bytes: int
    modified_s: int
    names: tuple[Path, ...]
    is_elsewhere: bool


class Model(Struct, frozen=True):
    """What goes together or stays together.

    Attributes:
        name: of its first file, as seen from the models folder.
        used: when it was used last; where nobody put that down, since when it is there.
        counts: whether it is part of what is limited.
        stays: why it does not go, whatever the limit; empty where it may.
        is_leftover: nobody can use it, so it goes whatever the limit.
    """

    name: str
    files: tuple[File, ...]
    size_bytes: int
    used: datetime
    counts: bool
    stays: str = ""
    is_leftover: bool = False


class Plan(Struct, frozen=True):
    """What would go, in this order, and what stays."""

    going: tuple[Model, ...]
    staying: tuple[Model, ...]

    @property
    def freed_bytes(self) -> int:
        """How much would be free afterwards that is not so now."""
        return sum(model.size_bytes for model in self.going)

    @property
    def left_bytes(self) -> int:
        """How much of what is limited would be left."""
        return sum(model.size_bytes for model in self.staying if model.counts)


def plan(models: Sequence[Model], to_bytes: int, *, free_bytes: int = 0) -> Plan:
    """Choose what goes: the longest unused first, until at most `to_bytes` are left and `free_bytes` become free."""
    left = sum(model.size_bytes for model in models if model.counts)
    going, freed = list[Model](), 0
    for model in sorted(models, key=lambda model: (not model.is_leftover, model.used, model.name)):
        if model.stays or (left <= to_bytes and freed >= free_bytes and not model.is_leftover):
            continue
        going.append(model)
        left -= model.size_bytes if model.counts else 0
        freed += model.size_bytes
    return Plan(tuple(going), tuple(model for model in models if model not in going))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one who removes files of `folder`, or counts them for a new one; waits for whoever is before.

    Raises:
        StartError: the folder cannot be opened.
    """
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StartError(f"The models folder {folder} cannot be used: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise StartError(f"The models folder {folder} cannot be locked: {error.strerror}.") from None
            # Each file is locked as well, so nothing in use goes; two at once may only remove more than was needed.
            log.warning("models.not_locked", folder=str(folder), reason=error.strerror)
        yield
    finally:
        os.close(file)


def look(folder: Path, named: Collection[Path], *, also_theirs: bool = False) -> list[Model]:
    """What is in the models folder, and what of it may go.

    Args:
        named: files that the settings name, which stay.
        also_theirs: also what people put there themselves may go, and counts.

    Raises:
        StartError: the folder, or one in it, cannot be read.
    """
    # First: what is complete meanwhile is found below, and what is found in both is counted once.
    coming = _coming(folder)
    on_their_way = {_whole(folder / model.name) for model in coming}
    groups: dict[Path, list[File]] = {}
    for file in _files(folder):
        first = next((name for name in file.names if name.suffix == SUFFIX), None)
        if first is not None and str(file.names[-1].relative_to(folder)) not in {model.name for model in coming}:
            groups.setdefault(_whole(first), []).append(file)
    kept = {key for path in named if (key := _key(path)) is not None}
    found = [
        _model(folder, files, kept, stays=FETCHED_NOW if whole in on_their_way else "", also_theirs=also_theirs)
        for whole, files in sorted(groups.items())
    ]
    return found + coming + _broken(folder) + _leftovers(folder)


def remove(folder: Path, model: Model) -> None:
    """Delete a model that was found, with all its names. The caller is `alone_in` the folder.

    Raises:
        InUse: somebody began to use it meanwhile, or it is another one now; nothing is deleted.
        OSError: it cannot be deleted.
    """
    with ExitStack() as stack:
        for file in model.files:
            # The last is its own name, no link to it.
            found = stack.enter_context(alone_with(file.names[-1]))
            if (found.st_dev, found.st_ino) != file.key or int(found.st_mtime) != file.modified_s:
                raise InUse("it has changed meanwhile")
        for file in model.files:
            for name in file.names:
                name.unlink(missing_ok=True)
    for file in model.files:
        for name in file.names:
            model_records.forget(folder, name.relative_to(folder))


def carry_out(folder: Path, chosen: Plan) -> tuple[list[Model], list[tuple[Model, str]]]:
    """Delete what goes. The caller is `alone_in` the folder.

    Returns:
        What is gone, and what is not, with the reason.
    """
    gone, kept = list[Model](), list[tuple[Model, str]]()
    for model in chosen.going:
        try:
            remove(folder, model)
        except InUse as error:
            kept.append((model, f"in use: {error}"))
        except OSError as error:
            kept.append((model, f"cannot be removed: {error.strerror}"))
        else:
            gone.append(model)
    return gone, kept


def forget_gone(folder: Path) -> None:
    """Remove records of files that are gone. The caller is `alone_in` the folder."""
    for name in model_records.names(folder, model_records.PULLED, model_records.USED):
        if not os.path.lexists(folder / name) and not model_records.is_fetched_now(folder, name):
            model_records.forget(folder, name)


@contextmanager
def offering(paths: Collection[Path]) -> Iterator[None]:
    """Keep the models at `paths` from being removed for the length of the block, loaded or not.

    Raises:
        StartError: one of them cannot be opened, or was removed just now.
    """
    with ExitStack() as stack:
        for path in paths:
            try:
                file = share(path)
                stack.callback(os.close, file)
                is_gone = _key(path) != (os.fstat(file).st_dev, os.fstat(file).st_ino)
            except OSError as error:
                raise StartError(f"The model file {path} cannot be used: {error.strerror}.") from None
            if is_gone:
                raise StartError(f"The model file {path} was removed just now: start again.")
        yield


def _files(folder: Path) -> list[File]:
    """All files below the folder, each once. Links to folders are not followed, as `up` follows none."""
    real: dict[Key, list[Path]] = {}
    links: dict[Key, list[Path]] = {}
    for path in _walk(folder):
        try:
            itself = path.lstat()
            found = path.stat() if stat.S_ISLNK(itself.st_mode) else itself
        except OSError:
            continue  # gone again, or a link that leads nowhere
        if stat.S_ISREG(found.st_mode):
            names = real if found is itself else links
            names.setdefault((found.st_dev, found.st_ino), []).append(path)
    files = []
    for key in real.keys() | links.keys():
        by_name = sorted(links.get(key, [])) + sorted(real.get(key, []))
        try:
            found = by_name[-1].stat()
        except OSError:
            continue
        is_elsewhere = key not in real or found.st_nlink > len(real[key])
        files.append(File(key, found.st_size, int(found.st_mtime), tuple(by_name), is_elsewhere))
    return sorted(files, key=lambda file: file.names)


def _walk(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return
        raise StartError(f"The folder {error.filename} cannot be read: {error.strerror}.") from None

    for place, folders, names in os.walk(folder, onerror=unreadable):
        if Path(place) == folder and model_records.FOLDER in folders:
            folders.remove(model_records.FOLDER)
        yield from (Path(place, name) for name in names)


def _whole(path: Path) -> Path:
    """What the parts of a model have in common; of one that has none, its own path."""
    return path.with_name(PART.sub(SUFFIX, path.name))


def _model(folder: Path, files: list[File], kept: Collection[Key], *, stays: str, also_theirs: bool) -> Model:
    is_ours = all(_is_ours(folder, file) for file in files)
    counts = (is_ours or also_theirs) and not any(file.is_elsewhere for file in files)
    name = str(next(name for name in files[0].names if name.suffix == SUFFIX).relative_to(folder))
    used = max(_used(folder, file) for file in files)
    stays = stays or _why_it_stays(files, kept, is_ours=is_ours, also_theirs=also_theirs)
    return Model(name, tuple(files), sum(file.size_bytes for file in files), used, counts, stays)


def _is_ours(folder: Path, file: File) -> bool:
    """Whether it was pulled, is still the same, and nobody gave it another name."""
    record = model_records.read(folder, file.names[-1].relative_to(folder))
    return len(file.names) == 1 and record is not None and record.fits(file.size_bytes, file.modified_s)


def _why_it_stays(files: list[File], kept: Collection[Key], *, is_ours: bool, also_theirs: bool) -> str:
    if any(file.key in kept for file in files):
        return "named by the settings"
    if any(file.is_elsewhere for file in files):
        return "also has a name elsewhere: nothing would be freed"
    if not is_ours and not also_theirs:
        return "yours"
    for file in files:
        try:
            with alone_with(file.names[-1]):
                pass
        except InUse as error:
            return f"in use: {error}"
        except OSError as error:
            return f"cannot be opened: {error.strerror}"
    return ""


def _used(folder: Path, file: File) -> datetime:
    put_down = [model_records.last_used(folder, name.relative_to(folder)) for name in file.names]
    return max(filter(None, put_down), default=datetime.fromtimestamp(file.modified_s, UTC))


def _broken(folder: Path) -> list[Model]:
    """Links to models that are not there."""
    links = [path for path in _walk(folder) if path.suffix == SUFFIX and path.is_symlink() and not path.exists()]
    return [
        Model(str(path.relative_to(folder)), (), 0, _modified(path), counts=False, stays="a link that leads nowhere")
        for path in sorted(links)
    ]


def _coming(folder: Path) -> list[Model]:
    """Models that are being fetched just now, with the size that the hub announced, however much of them is here."""
    coming = []
    for name in model_records.names(folder):
        record = model_records.read(folder, name)
        if record is None or not model_records.is_fetched_now(folder, name):
            continue
        size, since = record.size_bytes or 0, _modified(model_records.pulled_path(folder, name))
        with suppress(OSError):
            size = max(size, (folder / name).stat().st_size)
        coming.append(Model(str(name), (), size, since, counts=True, stays=FETCHED_NOW))
    return coming


def _leftovers(folder: Path) -> list[Model]:
    """What downloads of ours left that were killed."""
    names = model_records.names(folder)
    repositories = {Path(*name.parts[:2]) for name in names if len(name.parts) > 2}  # noqa: PLR2004 (OWNER/REPO/FILE)
    # A record that is locked and still empty: room is being made, nothing is on its way yet.
    coming = [name for name in names if model_records.is_fetched_now(folder, name) and model_records.read(folder, name)]
    busy = {Path(*name.parts[:2]) for name in coming}
    found = []
    for repository in sorted(repositories - busy):
        paths = {path for path in (folder / repository).glob(LEFTOVER) if path.is_file() and not path.is_symlink()}
        for file in (file for file in _files(folder / repository) if paths & set(file.names)):
            stays = _why_it_stays([file], (), is_ours=True, also_theirs=False)
            modified = datetime.fromtimestamp(file.modified_s, UTC)
            name = str(file.names[-1].relative_to(folder))
            found.append(Model(name, (file,), file.size_bytes, modified, counts=True, stays=stays, is_leftover=True))
    return found


def _modified(path: Path) -> datetime:
    """When it was written last; the begin of time where it is gone just now."""
    with suppress(FileNotFoundError):
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    return datetime.fromtimestamp(0, UTC)


def _key(path: Path) -> Key | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
