"""`wirthforge migrate` and `wirthforge openapi`: the shapes of the database and of the API."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec
from litestar import Litestar

from server.api.scope import RequestScopes
from server.app import create_app
from server.cli.options import owner_url, run, settings_from, settings_options
from server.clock import SystemClock
from server.db import migrate as migrations
from server.db.waiting import wait_for_newest
from server.settings import Settings

WAIT_S_MAX = 600


@click.command()
@click.option("--check", "only_checks", is_flag=True, help="Change nothing: exit status 1 unless it is the newest.")
@click.option(
    "--wait",
    "wait_s_max",
    metavar="[SECONDS]",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=WAIT_S_MAX,
    help=f"Change nothing: wait until somebody else has done it, {WAIT_S_MAX} seconds at the most.",
)
@settings_options
def migrate(config: Path | None, only_checks: bool, wait_s_max: int | None, **flags: Any) -> None:  # noqa: ANN401, FBT001
    """Bring the database schema up to date. Safe to run twice, and from several places at once."""
    settings = settings_from(config, **flags)
    if wait_s_max is not None:
        url = settings.database_url or owner_url(settings)
        waiting = wait_for_newest(url, SystemClock(), wait_ms_max=wait_s_max * 1000, tell=_tell)
        click.echo(f"The database is at revision {run(waiting)}.")
    elif only_checks:
        url = settings.database_url or owner_url(settings)
        click.echo(f"The database is at revision {run(migrations.require_newest(url))}.")
    else:
        before, after = run(migrations.migrate(owner_url(settings)))
        click.echo(f"The database is at revision {after}" + (" already." if before == after else "."))


def _tell(text: str) -> None:
    click.echo(text, err=True)


@click.command()
def openapi() -> None:
    """Print the API's OpenAPI schema, from which the web client's types are generated."""

    async def schema() -> dict[str, Any]:
        # The app is only described, so it needs no services.
        app = create_app(Settings(database_url="postgresql:///", redis_url="redis://"), engines=[])
        assert isinstance(app, RequestScopes)
        litestar = app.app
        assert isinstance(litestar, Litestar)
        return litestar.openapi_schema.to_schema()

    described = asyncio.run(schema())
    # Sorted, because Litestar keeps the paths of a handler in a set.
    click.echo(msgspec.json.format(msgspec.json.encode(described, order="sorted"), indent=2))
