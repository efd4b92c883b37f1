"""Makes a backup. See the package's docstring."""

import asyncio
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from server import VERSION
from server.backup import database
from server.backup.database import ArchivedFile
from server.backup.manifest import ARCHIVE, DUMP, Manifest, Model, Part, is_archive_name
from server.backup.programs import MAJOR, running
from server.backup.tape import CHUNK_BYTES, MODE, Progress, Writer
from server.clock import Clock
from server.errors import Conflict, StartError, Unavailable
from server.upkeep.jobs import DONE, FAILED, note_ended
from server.upkeep.manifests import manifest_name
from server.upkeep.owner import MIGRATING, Owner

# By this name the database knows when the last one was made.
TASK = "backup"
LEFT_OUT = ("login_sessions", "setup_tokens")
MB = 1_000_000
# How often a long step says how far it is.
PROGRESS_MS = 5_000
WORDS_BYTES_MAX = 1_000_000
UPKEEP_WAIT_MS_MAX = 600_000
UPKEEP_POLL_MS = 1_000
# Somebody who waits to change a table, and for whom our own transaction is in the way, would be waited for for ever.
LOCK_WAIT_MS_MAX = 30_000
_SNAPSHOT = text("SELECT pg_export_snapshot()")
_NO_MIGRATION = text(f"SELECT pg_advisory_lock_shared({MIGRATING})")

Tell = Callable[[str], None]


class Source(Struct, frozen=True):
    """What is backed up.

    Attributes:
        owner_url: where the tables' owner logs in.
        data_dir: whose `archive` goes into the backup, and whose `models` are named there.
    """

    owner_url: str
    data_dir: Path


class Reporter:
    """Says how far a long step is, now and then."""

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self._clock = clock
        self._tell = tell
        self._told_ms = clock.monotonic_ms()

    def on(self, what: str) -> Progress:
        """What hears of the bytes of `what`."""

        def progress(size_bytes: int) -> None:
            if self._clock.monotonic_ms() - self._told_ms >= PROGRESS_MS:
                self._told_ms = self._clock.monotonic_ms()
                self._tell(f"  {what}: {megabytes(size_bytes)} so far")

        return progress


async def make(path: Path, source: Source, clock: Clock, tell: Tell, *, overwrite: bool = False) -> Manifest:
    """Write a backup to `path`, which has its name only when it is complete.

    Args:
        tell: takes lines about how far it is.
        overwrite: put it in the place of a file that is there.

    Returns:
        What is in it.

    Raises:
        StartError: it could not be made; nothing of it is left.
        Unavailable: Postgres is away.
        Conflict: upkeep took too long.
    """
    owner, began_ms = Owner(source.owner_url), clock.monotonic_ms()
    with _written(path, overwrite=overwrite) as file:
        try:
            async with _standing_still(owner, clock, tell) as connection:
                manifest = await _write(Writer(file, int(clock.now().timestamp())), connection, source, clock, tell)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StartError(f"The backup failed: Postgres says {reason}.") from error
    try:
        async with owner.connection() as connection:
            took_ms, outcome = clock.monotonic_ms() - began_ms, FAILED if manifest.missing else DONE
            await note_ended(connection, TASK, clock, outcome=outcome, took_ms=took_ms)
    except (SQLAlchemyError, OSError, Unavailable):
        tell("  the database could not be told of it, so monitoring (docs/metrics.md) will think that there is none")
    return manifest


def megabytes(size_bytes: int) -> str:
    """For people."""
    return f"{size_bytes / MB:.1f} MB"


@contextmanager
def _written(path: Path, *, overwrite: bool) -> Iterator[int]:
    """A new file that gets its name at the end of the block; after an error it is gone."""
    _refuse_existing(path, overwrite=overwrite)
    part = path.with_name(f"{path.name}.part")
    try:
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise StartError(f"The backup {path} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"Another backup is being written to {path}.") from None
        try:
            # It may be what a backup that was killed has left.
            os.fchmod(file, MODE)
            os.ftruncate(file, 0)
            yield file
            _refuse_existing(path, overwrite=overwrite)
            part.rename(path)
            _sync_folder(path.parent)
        except BaseException as error:
            with suppress(OSError):
                part.unlink()
            if isinstance(error, OSError):
                raise StartError(f"The backup {path} cannot be written: {error.strerror or error}.") from error
            raise
    finally:
        os.close(file)


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise StartError(f"{path} is a folder: give the name of a file.")
    if not overwrite and os.path.lexists(path):
        raise StartError(f"There is a file {path} already: give another name, or --force to put the backup there.")


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@asynccontextmanager
async def _standing_still(owner: Owner, clock: Clock, tell: Tell) -> AsyncIterator[AsyncConnection]:
    """A connection beside which neither upkeep nor a migration works."""
    deadline_ms, waits = clock.monotonic_ms() + UPKEEP_WAIT_MS_MAX, False
    while True:
        async with owner.alone() as connection:
            if connection is not None:
                async with connection.begin():
                    await connection.execute(_NO_MIGRATION)
                # What ends the connection gives both locks back.
                yield connection
                return
        if clock.monotonic_ms() >= deadline_ms:
            raise Conflict("Upkeep, or another backup, is at work on this database for too long: try again later.")
        if not waits:
            tell("  upkeep, or another backup, is at work on this database; waiting for its end")
            waits = True
        await clock.sleep_ms(UPKEEP_POLL_MS)


async def _write(writer: Writer, connection: AsyncConnection, source: Source, clock: Clock, tell: Tell) -> Manifest:
    connection = await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    reporter = Reporter(clock, tell)
    async with connection.begin():
        made_at = clock.now()
        snapshot = str(await connection.scalar(_SNAPSHOT))
        major, postgres = await database.major_version(connection)
        if major > MAJOR:
            raise StartError(
                f"This is Postgres {postgres}, and the pg_dump of this WIRTHFORGE is of version {MAJOR}, which cannot "
                f"read newer ones: install a newer WIRTHFORGE, or use a pg_dump of version {major} (docs/backup.md)."
            )
        await database.require_all_rows(connection)
        revision = await database.revision(connection)
        if revision is None:
            raise StartError("The database has no schema yet: run `wirthforge migrate`.")
        counts = await database.count_all(connection, without=LEFT_OUT)
        isolated = await database.isolated(connection)
        files = await database.archived_files(connection)
        tell(f"  database at revision {revision}: {sum(counts.values())} rows in {len(counts)} tables")
        parts = [await _dump(writer, source.owner_url, snapshot, reporter)]
        tell(f"  {DUMP}: {megabytes(parts[0].bytes)}")
        archived, missing = await _archive(writer, source.data_dir / "archive", files, reporter)
        if files:
            size = megabytes(sum(part.bytes for part in archived))
            tell(f"  archive: {len(files) - len(missing)} of {len(files)} files, {size}")
    manifest = Manifest(
        server=VERSION,
        revision=revision,
        postgres=postgres,
        made_at=made_at,
        counts=counts,
        isolated=isolated,
        left_out=list(LEFT_OUT),
        missing=missing,
        parts=[*parts, *archived],
        models=_models(source.data_dir / "models"),
    )
    writer.end(manifest)
    return manifest


async def _dump(writer: Writer, owner_url: str, snapshot: str, reporter: Reporter) -> Part:
    words = [
        *["--format=custom", "--no-password", "--schema=public", f"--snapshot={snapshot}"],
        # The owner is bound by row-level security too, with a policy that shows it everything (require_all_rows).
        *["--enable-row-security", f"--lock-wait-timeout={LOCK_WAIT_MS_MAX}"],
        *[f"--exclude-table-data=public.{table}" for table in LEFT_OUT],
    ]
    async with running("pg_dump", words, owner_url) as dump:
        part = await writer.add(DUMP, dump.output(), reporter.on(DUMP))
        await dump.ended()
    return part


async def _archive(
    writer: Writer, folder: Path, files: Sequence[ArchivedFile], reporter: Reporter
) -> tuple[list[Part], list[str]]:
    """Write what the table `archives` names: the parts, and what is not there or is something else.

    Other files there are none of the database's, and what people removed may be in them; but for what is said in words
    beside a file, which nothing relies on.
    """
    parts, missing = [], list[str]()
    for file in files:
        name = f"{ARCHIVE}{file.path}"
        if not is_archive_name(name) or not await asyncio.to_thread(_is_whole, folder / file.path, file):
            missing.append(name)
            continue
        part = await writer.add(name, _chunks(folder / file.path), reporter.on(name))
        if (part.bytes, part.sha256) != (file.bytes, file.sha256):
            raise StartError(f"{name} changed while it was read: try again.")
        parts.append(part)
        words = manifest_name(file.path)
        if is_archive_name(f"{ARCHIVE}{words}") and _is_short(folder / words):
            parts.append(await writer.add(f"{ARCHIVE}{words}", _chunks(folder / words), reporter.on(words)))
    return parts, missing


def _is_short(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= WORDS_BYTES_MAX


def _is_whole(path: Path, file: ArchivedFile) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.bytes:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _models(folder: Path) -> list[Model]:
    """What lies in the models folder."""
    found = []
    for path in sorted(folder.rglob("*.gguf")):
        with suppress(OSError):  # it went away meanwhile
            found.append(Model(path.relative_to(folder).as_posix(), path.stat().st_size))
    return found
