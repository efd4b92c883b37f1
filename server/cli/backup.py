"""`wirthforge backup` and `wirthforge restore`."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from server.backup import making, restoring
from server.backup.making import Source
from server.cli.options import owner_url, run, settings_from, settings_options
from server.cli.signals import on_signals
from server.clock import SystemClock
from server.embedded import cluster, lock
from server.embedded.postgres import Postgres
from server.errors import StartError, WirthforgeError
from server.settings import Settings

Result = TypeVar("Result")


class Interrupted(WirthforgeError):
    """Somebody asked us to end."""

    code = "interrupted"


def tell(line: str) -> None:
    """Show progress. It goes to standard error: standard output is for results."""
    click.echo(line, err=True)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Put the backup in the place of FILE, if there is one.")
@settings_options
def backup(file: Path | None, *, force: bool, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Write everything but the models to FILE, while the server runs or not. Prints the file's name.

    Without FILE: wirthforge-YYYYMMDD-HHMMSS.tar in this folder.
    """
    settings = settings_from(config, **flags)
    clock = SystemClock()
    path = file or Path(f"wirthforge-{clock.now():%Y%m%d-%H%M%S}.tar")

    async def work() -> None:
        async with _database(settings) as url:
            tell(f"Backing up to {path}")
            source = Source(url, settings.data_dir)
            manifest = await making.make(path, source, clock, tell, overwrite=force)
        if manifest.models:
            size = making.megabytes(sum(model.bytes for model in manifest.models))
            tell(f"  models are not in it: {len(manifest.models)} files, {size} (their names are)")
        click.echo(path)
        if manifest.missing:
            raise StartError(
                f"The backup is complete but for {len(manifest.missing)} files of the archive that are missing or "
                f"damaged, such as {settings.data_dir / manifest.missing[0]}."
            )

    run(_until_asked_to_end(work(), "Interrupted: no backup was made."))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@settings_options
def restore(file: Path, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Restore the backup FILE into an empty box: a data folder without a database, or an empty DATABASE_URL."""
    settings = settings_from(config, **flags)
    url = settings.database_owner_url or settings.database_url

    async def work() -> None:
        with lock.hold(settings.data_dir):
            tell(f"Restoring {file} into {'the database that is set' if url else settings.data_dir}")
            manifest = await restoring.restore(file, settings.data_dir, url, SystemClock(), tell)
        for model in manifest.models:
            tell(f"  a model that the old box had: {model.name} ({making.megabytes(model.bytes)})")
        if manifest.missing:
            tell(f"  not in the backup, since missing when it was made: {', '.join(manifest.missing)}")
        tell("Restored. Everybody must log in once more; keys work as they did.")

    run(_until_asked_to_end(work(), "Interrupted: nothing was restored that a server would start on."))


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[str]:
    """Where the owner logs in; the embedded Postgres is started where no server runs on it."""
    if settings.database_url or settings.database_owner_url or lock.holder(settings.data_dir) is not None:
        yield owner_url(settings)
        return
    if not (settings.data_dir / f"postgres-{cluster.MAJOR}").exists():
        raise StartError(f"There is no database in the data folder {settings.data_dir}, and no DATABASE_URL is set.")
    with lock.hold(settings.data_dir):
        postgres = Postgres(settings.data_dir, SystemClock())
        try:
            await postgres.start()
            yield postgres.owner_url
        finally:
            await postgres.stop()


async def _until_asked_to_end(work: Coroutine[Any, Any, Result], sentence: str) -> Result:
    """Run it; a signal undoes what it has done so far. Raises Interrupted."""
    task = asyncio.ensure_future(work)

    def end() -> None:
        task.cancel()

    with on_signals(end):
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted(sentence) from None
