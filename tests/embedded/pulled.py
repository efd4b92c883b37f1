"""Models folders with files that were pulled, without a hub: what `wirthforge models pull` leaves there."""

import os
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.embedded import model_records
from server.embedded.model_cache import Model, Plan, alone_in, carry_out, forget_gone, look, plan
from server.embedded.model_records import Record

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
MB = 10**6


def day(number: int) -> datetime:
    """A moment, so many days after the first of these tests."""
    return BEGIN + timedelta(days=number)


def put(path: Path, size: int = 100 * MB, *, since: int = 0) -> Path:
    """A file of somebody's own, as long as it should be; it takes nothing on the disk. Modified on day `since`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (day(since).timestamp(),) * 2)
    return path


def pull(folder: Path, name: str, size: int = 100 * MB, *, used: int = 0) -> Path:
    """A file that was pulled, and used last on day `used`."""
    path = put(folder / name, size, since=-1)
    with model_records.fetching(folder, Path(name)) as entry:
        entry.write(Record(f"hf:{name}", size, int(path.stat().st_mtime)))
    model_records.mark_used(folder, path, day(used))
    return path


def prune(
    folder: Path, to_bytes: int = 0, *, named: Collection[Path] = (), also_theirs: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Names of what is gone, and of what stays with the reason."""
    with alone_in(folder):
        chosen = plan(look(folder, named, also_theirs=also_theirs), to_bytes)
        gone, kept = carry_out(folder, chosen)
        forget_gone(folder)
    return [model.name for model in gone], reasons(chosen, kept)


def reasons(chosen: Plan, kept: Collection[tuple[Model, str]] = ()) -> dict[str, str]:
    """Why each model stays."""
    return {model.name: model.stays for model in chosen.staying} | {model.name: why for model, why in kept}


def left(folder: Path) -> set[str]:
    """All that is in the folder, without folders."""
    found = set()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_symlink() or path.is_file():
                found.add(str(path.relative_to(folder)))
    return found
