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
from server.db import migrate as migrations
from server.settings import Settings


@click.command()
@settings_options
def migrate(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Bring the database schema up to date. Safe to run twice."""
    before, after = run(migrations.migrate(owner_url(settings_from(config, **flags))))
    click.echo(f"The database is at revision {after}" + (" already." if before == after else "."))


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
