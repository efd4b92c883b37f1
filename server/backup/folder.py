"""Where a restored box grows: a folder beside the data folder's own, which the next restore removes if it stays behind.

The archive's files move to their place one by one, and the rows' folder last. Whoever is killed in between has left
nothing that a server starts on, and files that the next restore of the same backup finds to be right already.
"""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from server.backup.manifest import ARCHIVE, Part
from server.backup.tape import MODE, Tape
from server.clock import Clock
from server.embedded import cluster
from server.embedded.paths import private_dir, socket_dir
from server.embedded.postgres import Postgres
from server.errors import StartError

NAME = "restore.part"
ATTEMPTS_MAX = 20
ATTEMPT_PAUSE_MS = 250


class Growing:
    """DATA/restore.part, whose data folder's lock the caller holds."""

    def __init__(self, data_dir: Path, clock: Clock) -> None:
        """Take the data folder; nothing is made yet."""
        self._data_dir = data_dir.resolve()
        self._folder = self._data_dir / NAME
        self._rows = f"postgres-{cluster.MAJOR}"
        self.postgres = Postgres(self._folder, clock)

    async def begin(self, clock: Clock) -> None:
        """Make it, empty. What a killed restore has left of it is removed, its Postgres ended. Raises StartError."""
        await cluster.end_orphan(self._folder / self._rows, clock)
        for _ in range(ATTEMPTS_MAX):
            # What was killed may have left a program that is about to end (server/embedded/leash.py).
            with suppress(StartError):
                self.remove()
                break
            await clock.sleep_ms(ATTEMPT_PAUSE_MS)
        self.remove()
        private_dir(self._folder)

    def remove(self) -> None:
        """Leave nothing of it. Raises StartError."""
        try:
            if self._folder.exists():
                sockets = socket_dir(self._folder)
                shutil.rmtree(self._folder)
                shutil.rmtree(sockets, ignore_errors=True)
        except OSError as error:
            raise StartError(f"The folder {self._folder} cannot be removed: {error.strerror}.") from None

    def refuse_rows(self) -> None:
        """Raise StartError where the data folder has a database."""
        place = self._data_dir / self._rows
        if os.path.lexists(place):
            raise StartError(
                f"The data folder has a database ({place}): move it away, or choose another folder with --data-dir. "
                "A backup is restored into an empty box."
            )

    def absent(self, tape: Tape) -> list[Part]:
        """The archive's files that are not in their place yet.

        Raises:
            StartError: files lie in the archive that are not in this backup, or not as they are there.
        """
        named = {part.name: part for part in tape.manifest.parts if part.name.startswith(ARCHIVE)}
        archive = self._data_dir / ARCHIVE
        for path in sorted(archive.rglob("*")) if archive.is_dir() else []:
            if path.is_dir() and not path.is_symlink():
                continue
            part = named.pop(f"{ARCHIVE}{path.relative_to(archive).as_posix()}", None)
            if part is None or path.is_symlink() or path.stat().st_size != part.bytes or _sum(path) != part.sha256:
                raise StartError(f"The archive holds {path}, which is not in this backup: move {archive} away.")
        return list(named.values())

    async def fill_archive(self, tape: Tape, parts: list[Part]) -> None:
        """Write files of the archive here; they are on the disk afterwards. Raises StartError."""
        try:
            for part in parts:
                path = self._folder / part.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
                    async for chunk in tape.chunks(part):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StartError(f"The archive cannot be written to {self._folder}: {error.strerror}.") from error

    def place_archive(self, parts: list[Part]) -> None:
        """Move these files to where the server looks for them. Raises StartError."""
        try:
            for part in parts:
                place = self._data_dir / part.name
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._folder / part.name).rename(place)
                _sync(place.parent)
        except OSError as error:
            raise StartError(f"The archive cannot be written to {self._data_dir}: {error.strerror}.") from error

    def place_rows(self) -> None:
        """Give the database its name; Postgres has ended. Raises StartError."""
        self.refuse_rows()
        try:
            (self._folder / self._rows).rename(self._data_dir / self._rows)
            _sync(self._data_dir)
        except OSError as error:
            raise StartError(f"The database cannot be put to {self._data_dir}: {error.strerror}.") from error


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(file)
    finally:
        os.close(file)
