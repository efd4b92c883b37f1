"""The folder of the archive, DATA/archive: files that are there with all their bytes, or not at all.

A file is written beside its place as `.part`, and renamed when it has been checked. Nobody but the server's user may
read it, as nobody else may read the database.
"""

import asyncio
import builtins
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import Unavailable

PART = ".part"


class Shelf:
    """One folder; it is made when something is put there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Itself; it need not be there."""
        return self._folder

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / name

    def part(self, name: str) -> Path:
        """Where it is while it is written."""
        return self._folder / f"{name}{PART}"

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Its `.part`, which is on the disk after the block, and gone if the block fails. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        part = self.part(name)
        part.unlink(missing_ok=True)
        try:
            with builtins.open(part, "xb", opener=_private) as file:
                yield file
                settle(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def keep(self, name: str) -> None:
        """Put the `.part` in its place."""
        self.part(name).replace(self.path(name))
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def names(self, beginning: str = "") -> list[str]:
        """Files whose names begin like this."""
        if not self._folder.is_dir():
            return []
        return sorted(file.name for file in self._folder.iterdir() if file.name.startswith(beginning))

    def open(self, name: str, sha256: bytes) -> BinaryIO:
        """The file, if its bytes are those that were written. Reads all of it.

        Raises:
            Unavailable: it is not there, cannot be read, or was changed.
        """
        try:
            file = self.path(name).open("rb")
        except OSError as error:
            raise Unavailable(
                f"The archive's file {name} cannot be read: {error.strerror}.", code="archive_missing"
            ) from error
        if hashlib.file_digest(file, "sha256").digest() != sha256:
            file.close()
            raise Unavailable(
                f"The archive's file {name} is not the one that was written: its SHA-256 differs.",
                code="archive_changed",
            )
        file.seek(0)
        return file

    @asynccontextmanager
    async def trusted(self, name: str, sha256: bytes) -> AsyncIterator[BinaryIO]:
        """The same for those who must not wait for a disk. Raises Unavailable."""
        with await asyncio.to_thread(self.open, name, sha256) as file:
            yield file

    def sha256(self, path: Path) -> bytes:
        """Of a file."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


def settle(file: BinaryIO) -> None:
    """Have what was written on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
