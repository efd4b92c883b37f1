"""Keeps the limit of the model cache: before a model is fetched, room is made for it, or it is refused.

Room is made first, so that the limit holds at every moment: what comes is counted from then on by its record, which the
fetching process holds (model_records.py). Nothing is removed unless that is enough; then the model is refused, and the
sentence says what to do.
"""

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from server.embedded import model_records
from server.embedded.model_cache import Model, alone_in, carry_out, forget_gone, look, plan
from server.embedded.model_records import Record
from server.errors import StartError

GB = 10**9
# What databases and logs need to go on, when the models are on the same disk.
DISK_LEFT_BYTES_MIN = 256 * 2**20
LIMIT = "model_cache_bytes_max"
LOOK = "`wirthforge models prune --dry-run` says what is there and why it stays"


@contextmanager
def entering(
    path: Path,
    *,
    folder: Path,
    reference: str,
    size_bytes: int | None,
    bytes_max: int,
    named: Collection[Path],
    tell: Callable[[Model], None],
) -> Iterator[None]:
    """Make room for a model that is fetched to `path` in the block, and put down that it is ours.

    Args:
        folder: the models folder, which is made if need be.
        reference: as `hf:owner/repo:file.gguf`.
        size_bytes: as far as the hub tells; where it does not, room is made when the model is here.
        bytes_max: what the cache may hold.
        named: files that the settings name, which stay.
        tell: hears of each model that was removed.

    Raises:
        StartError: there is no room, another process fetches the same, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"The models folder {folder} cannot be made: {error.strerror}.") from None
    name = model_records.name_of(folder, path)
    if name is None:
        raise StartError(f"{reference!r} does not name a model: its file would be outside of {folder}.")
    with ExitStack() as stack:
        # Locked and forgotten only while alone, so that nobody removes a record that another has just opened.
        with alone_in(folder):
            entry = stack.enter_context(model_records.fetching(folder, name))
            # Somebody else may have fetched it since we looked; its record, if it has one, is right.
            is_here = path.exists()
            try:
                if not is_here:
                    entry.clear()
                    forget_gone(folder)
                    _make_room(folder, reference, size_bytes or 0, bytes_max, named, tell)
                    _write(entry, Record(reference, size_bytes), folder)
            except BaseException:
                model_records.forget(folder, name)
                raise
        try:
            yield
            if not is_here:
                found = path.stat()
                _write(entry, Record(reference, found.st_size, int(found.st_mtime)), folder)
        finally:
            if not path.exists():
                with suppress(StartError), alone_in(folder):
                    model_records.forget(folder, name)
    if size_bytes is None:
        with alone_in(folder):
            _make_room(folder, reference, 0, bytes_max, {*named, path}, tell)


def _make_room(
    folder: Path, reference: str, size: int, bytes_max: int, named: Collection[Path], tell: Callable[[Model], None]
) -> None:
    if size > bytes_max:
        raise StartError(
            f"{reference} has {size / GB:.1f} GB, and the model cache may hold {bytes_max / GB:.1f} GB ({LIMIT}). "
            f"Raise it, or copy the file into {folder} yourself: what you put there does not count."
        )
    while True:
        missing = size + DISK_LEFT_BYTES_MIN - shutil.disk_usage(folder).free if size else 0
        chosen = plan(look(folder, named), bytes_max - size, free_bytes=missing)
        if chosen.left_bytes > bytes_max - size:
            raise StartError(
                f"There is no room for {reference} ({size / GB:.1f} GB): the model cache may hold {bytes_max / GB:.1f} "
                f"GB ({LIMIT}), and {chosen.left_bytes / GB:.1f} GB in it stay. {LOOK}."
            )
        if chosen.freed_bytes < missing:
            raise StartError(
                f"There is no room for {reference} ({size / GB:.1f} GB): the disk of {folder} has "
                f"{(missing - chosen.freed_bytes) / GB:.1f} GB too little, also without what may be removed. {LOOK}."
            )
        if not chosen.going:
            return
        gone, kept = carry_out(folder, chosen)
        for model in gone:
            tell(model)
        if not gone:
            model, why = kept[0]
            raise StartError(f"There is no room for {reference}: {model.name} should go and {why}.")


def _write(entry: model_records.Entry, record: Record, folder: Path) -> None:
    try:
        entry.write(record)
    except OSError as error:
        raise StartError(f"The models folder {folder} cannot be written: {error.strerror}.") from None


def said(model: Model) -> str:
    """A line about a model that was removed to make room."""
    return f"Removed {model.name} ({model.size_bytes / GB:.1f} GB, last used {day(model.used)}) to make room."


def day(moment: datetime) -> str:
    """A moment for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
