"""Restores a backup. See the package's docstring."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from server.backup import database, programs
from server.backup.folder import Growing
from server.backup.making import Reporter, Tell, megabytes
from server.backup.manifest import DUMP, Manifest, Part
from server.backup.programs import running
from server.backup.tape import Tape, opened
from server.clock import Clock
from server.db.address import open_engine
from server.db.migrate import migrate, require_known
from server.db.session import CONNECT_S_MAX
from server.errors import StartError, Unavailable

# What is made anew, or is there already: the schema `public` and what is said about it, the owner's policies, and the
# revision, which comes last.
_OWN = re.compile(
    r"\d+; \d+ \d+ (SCHEMA - |COMMENT - SCHEMA |ACL - SCHEMA |EXTENSION - |COMMENT - EXTENSION "
    rf"|POLICY public \S+ {database.OWNERS_POLICY} |TABLE DATA public {database.VERSIONS} )"
)
_POLICY = re.compile(rf"\d+; \d+ \d+ POLICY public (?P<table>\S+) {database.OWNERS_POLICY} ")


async def restore(path: Path, data_dir: Path, owner_url: str, clock: Clock, tell: Tell) -> Manifest:
    """Restore a backup into an empty box. The caller holds the data folder's lock.

    Args:
        data_dir: gets the archive, and the database where no other one is named.
        owner_url: of an empty database, where its owner logs in; empty: the embedded one.
        tell: takes lines about how far it is.

    Raises:
        StartError: it could not be restored; the data folder is as it was. In a database that was named, tables may
            be there, but no server starts on them.
        Unavailable: Postgres is away.
    """
    with opened(path) as tape:
        manifest = tape.manifest
        require_known(manifest.revision)
        _tell_contents(manifest, tell)
        growing = Growing(data_dir, clock)
        if not owner_url:
            growing.refuse_rows()
        parts = growing.absent(tape)
        await _verify(tape, clock, tell)
        await growing.begin(clock)
        try:
            await growing.fill_archive(tape, parts)
            if owner_url:
                await _into(owner_url, tape, lambda: growing.place_archive(parts), clock, tell)
            else:
                try:
                    await growing.postgres.start()
                    await _into(growing.postgres.owner_url, tape, lambda: None, clock, tell)
                finally:
                    await growing.postgres.stop()
                growing.place_archive(parts)
                growing.place_rows()
        finally:
            growing.remove()
    return manifest


def _tell_contents(manifest: Manifest, tell: Tell) -> None:
    tell(
        f"  made {manifest.made_at:%Y-%m-%d %H:%M} UTC by WIRTHFORGE {manifest.server} at revision {manifest.revision}:"
        f" {sum(manifest.counts.values())} rows in {len(manifest.counts)} tables"
    )


async def _verify(tape: Tape, clock: Clock, tell: Tell) -> None:
    reporter = Reporter(clock, tell)

    def progress(name: str, size_bytes: int) -> None:
        reporter.on(f"checking {name}")(size_bytes)

    await tape.verify(progress)
    size = sum(part.bytes for part in tape.manifest.parts)
    tell(f"  checked: {len(tape.manifest.parts)} parts, {megabytes(size)}")


async def _into(url: str, tape: Tape, before_it_opens: Callable[[], None], clock: Clock, tell: Tell) -> None:
    """Fill an empty database. Nobody can take it for a complete one before that is so."""
    manifest = tape.manifest
    (dump,) = (part for part in manifest.parts if part.name == DUMP)
    async with _told():
        async with _owner(url) as connection, connection.begin():
            await _require_version(connection)
            await database.require_empty(connection)
            await database.make_role(connection)
        contents, tables = _chosen(await _contents(tape, dump))
        await _fill(url, tape, dump, contents, clock, tell)
        async with _owner(url) as connection, connection.begin():
            await database.open_to_owner(connection, tables)
            await database.require_same(connection, manifest.counts, manifest.isolated)
            before_it_opens()
            await database.set_revision(connection, manifest.revision)
    tell("  restored: all counts are those of the backup, and row-level security holds")
    before, after = await migrate(url)
    if before != after:
        tell(f"  migrated from revision {before} to {after}")


async def _require_version(connection: AsyncConnection) -> None:
    major, version = await database.major_version(connection)
    if not programs.RESTORED_MAJOR_MIN <= major <= programs.MAJOR:
        raise StartError(
            f"This is Postgres {version}: a backup can be restored into versions {programs.RESTORED_MAJOR_MIN} to "
            f"{programs.MAJOR}."
        )


async def _contents(tape: Tape, dump: Part) -> list[str]:
    """The lines of pg_restore's table of contents."""
    async with running("pg_restore", ["--list"], None, feeds=True) as listing:

        async def read() -> bytes:
            return b"".join([chunk async for chunk in listing.output()])

        reading = asyncio.create_task(read())
        try:
            async for chunk in tape.chunks(dump):
                if not await listing.feed(chunk):
                    break
            await listing.ended()
            return (await reading).decode(errors="replace").splitlines()
        finally:
            reading.cancel()


def _chosen(contents: Sequence[str]) -> tuple[list[str], list[str]]:
    """What pg_restore shall restore, and the tables that need a policy of the owner."""
    policies = (_POLICY.match(line) for line in contents)
    return [line for line in contents if not _OWN.match(line)], [found["table"] for found in policies if found]


async def _fill(url: str, tape: Tape, dump: Part, contents: Sequence[str], clock: Clock, tell: Tell) -> None:
    """Run pg_restore, in one transaction."""
    progress = Reporter(clock, tell).on(f"restoring {megabytes(dump.bytes)} of {DUMP}")
    with tempfile.NamedTemporaryFile("w", prefix="wirthforge-", suffix=".list") as chosen:
        chosen.write("\n".join(contents) + "\n")
        chosen.flush()
        words = [
            *["--no-owner", "--no-password", "--exit-on-error", "--single-transaction"],
            *[f"--use-list={chosen.name}", f"--dbname={programs.dbname(url)}"],
        ]
        async with running("pg_restore", words, url, feeds=True) as filling:
            size = 0
            async for chunk in tape.chunks(dump):
                if not await filling.feed(chunk):
                    break
                size += len(chunk)
                progress(size)
            await filling.ended()


@asynccontextmanager
async def _owner(url: str) -> AsyncIterator[AsyncConnection]:
    engine = open_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": CONNECT_S_MAX, "server_settings": {"timezone": "UTC"}},
    )
    try:
        connection = await _connected(engine)
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def _connected(engine: AsyncEngine) -> AsyncConnection:
    try:
        return await engine.connect()
    except OSError as error:
        raise Unavailable(f"Postgres cannot be reached: {error}. Is DATABASE_URL right?") from error


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Turn what Postgres says into a sentence."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StartError(f"The backup could not be restored: Postgres says {reason}.") from error
