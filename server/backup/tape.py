"""The tar of a backup: written from the beginning to the end without knowing how long a part will be, read by offsets.

A member's header, which holds its size, is written once with nothing in it and once more when the member has ended.
Headers are GNU's, whose sizes have no limit; names are short enough never to need a second one.
"""

import asyncio
import hashlib
import os
import tarfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from server.backup import manifest as manifests
from server.backup.manifest import Manifest, Part
from server.errors import StartError

BLOCK_BYTES = 512
CHUNK_BYTES = 1024 * 1024
SUM_BYTES_MAX = 200
MODE = 0o600
# The manifest, and its sum.
OWN_MEMBERS = 2

Progress = Callable[[int], None]


class Writer:
    """Writes members one after the other to a new file."""

    def __init__(self, file: int, at_s: int) -> None:
        """Take an empty file.

        Args:
            file: its descriptor.
            at_s: the members' time, in Unix seconds.
        """
        self._file = file
        self._at_s = at_s

    async def add(self, name: str, chunks: AsyncIterable[bytes], progress: Progress) -> Part:
        """Write a member; `progress` hears of its bytes. Raises OSError."""
        begins = os.lseek(self._file, 0, os.SEEK_CUR)
        _write(self._file, self._header(name, 0))
        digest, size = hashlib.sha256(), 0
        async for chunk in chunks:
            _write(self._file, chunk)
            digest.update(chunk)
            size += len(chunk)
            progress(size)
        _write(self._file, bytes(-size % BLOCK_BYTES))
        os.pwrite(self._file, self._header(name, size), begins)
        return Part(name, size, digest.hexdigest())

    def end(self, manifest: Manifest) -> None:
        """Write the manifest, its sum, and the end; all of it is on the disk afterwards. Raises OSError."""
        text = manifests.encode(manifest)
        line = f"{hashlib.sha256(text).hexdigest()}  {manifests.NAME}\n".encode()
        for name, content in ((manifests.NAME, text), (manifests.SUM_NAME, line)):
            _write(self._file, self._header(name, len(content)) + content + bytes(-len(content) % BLOCK_BYTES))
        _write(self._file, bytes(2 * BLOCK_BYTES))
        os.fsync(self._file)

    def _header(self, name: str, size: int) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, MODE, self._at_s
        header = member.tobuf(tarfile.GNU_FORMAT)
        if len(header) != BLOCK_BYTES:
            raise StartError(f"The name {name} is too long for a backup.")
        return header


def _write(file: int, content: bytes) -> None:
    """All of it: the kernel may take less."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


class _Place(Struct, frozen=True):
    offset: int
    bytes: int


class Tape:
    """A backup that is open, with its manifest; every part is where the manifest says, and as long."""

    def __init__(self, file: BinaryIO, manifest: Manifest, places: dict[str, _Place]) -> None:
        self._file = file
        self.manifest = manifest
        self._places = places

    async def chunks(self, part: Part) -> AsyncIterator[bytes]:
        """A part from its beginning; others have a turn between the pieces.

        Raises:
            StartError: it ends too early, or its sum is not what the manifest says; known at its end.
        """
        digest, left = hashlib.sha256(), part.bytes
        offset = self._places[part.name].offset
        while left:
            try:
                chunk = await asyncio.to_thread(os.pread, self._file.fileno(), min(left, CHUNK_BYTES), offset)
            except OSError as error:
                raise StartError(f"The backup cannot be read: {error.strerror} (in {part.name}).") from None
            if not chunk:
                raise StartError(f"The backup is damaged: {part.name} ends too early.")
            digest.update(chunk)
            offset, left = offset + len(chunk), left - len(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            raise StartError(f"The backup is damaged: {part.name} is not what it was when it was written (SHA-256).")

    async def verify(self, progress: Callable[[str, int], None]) -> None:
        """Read everything. Raises StartError where a sum is not what the manifest says."""
        for part in self.manifest.parts:
            size = 0
            async for chunk in self.chunks(part):
                size += len(chunk)
                progress(part.name, size)


@contextmanager
def opened(path: Path) -> Iterator[Tape]:
    """Open a backup and read its manifest.

    Raises:
        StartError: it cannot be read, is no backup, was cut off, or holds what its manifest does not name.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            places = _places(path, file)
            manifest = manifests.decode(_manifest(path, file, places))
        except OSError as error:
            raise StartError(f"The backup {path} cannot be read: {error.strerror}.") from None
        _compare(manifest, places)
        yield Tape(file, manifest, places)


def _places(path: Path, file: BinaryIO) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.name in places:
                    raise StartError(f"{path} is no backup: it holds a link, a folder, or something twice.")
                if len(places) >= manifests.PARTS_MAX + OWN_MEMBERS:
                    raise StartError(f"{path} is no backup: it holds too many files.")
                places[member.name] = _Place(member.offset_data, member.size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise StartError(f"{path} is no backup of WIRTHFORGE, or only the beginning of one: {error}.") from None
    return places


def _manifest(path: Path, file: BinaryIO, places: dict[str, _Place]) -> bytes:
    """Its text, which agrees with its sum."""
    cut = StartError(
        f"{path} is no backup of WIRTHFORGE, or only the beginning of one: {manifests.NAME} is not at its end."
    )
    text, line = places.get(manifests.NAME), places.get(manifests.SUM_NAME)
    if text is None or line is None or text.bytes > manifests.BYTES_MAX or line.bytes > SUM_BYTES_MAX:
        raise cut
    content = os.pread(file.fileno(), text.bytes, text.offset)
    told = os.pread(file.fileno(), line.bytes, line.offset)
    if len(told) < line.bytes:
        raise cut
    if told.split()[:1] != [hashlib.sha256(content).hexdigest().encode()]:
        raise StartError(f"The backup is damaged: {manifests.NAME} is not what it was when it was written (SHA-256).")
    return content


def _compare(manifest: Manifest, places: dict[str, _Place]) -> None:
    named = {part.name: part.bytes for part in manifest.parts}
    found = {name: place.bytes for name, place in places.items() if name not in (manifests.NAME, manifests.SUM_NAME)}
    for name in sorted(named.keys() | found.keys()):
        if name not in found:
            raise StartError(f"The backup is damaged: {name} is missing.")
        if name not in named:
            raise StartError(f"The backup holds {name[:80]!r}, of which its {manifests.NAME} says nothing.")
        if named[name] != found[name]:
            raise StartError(f"The backup is damaged: {name} has {found[name]} bytes in place of {named[name]}.")
