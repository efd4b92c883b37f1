"""`wirthforge key …`"""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from server.cli.options import open_rooms, run, settings_from, settings_options
from server.errors import NotFound


@click.group()
def key() -> None:
    """API keys: create, list, revoke."""


@key.command()
@click.option("--user", "name", required=True, help="Whose key it is.")
@click.option("--label", default="command line", show_default=True, help="What it is for.")
@click.option("--days", type=int, help="How long it is good. Without: until revoked.")
@settings_options
def create(name: str, label: str, days: int | None, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Make a key, and print it alone."""

    async def work() -> str:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            person = await rooms.users.named(name)
            _, made = await rooms.keys.create(person.id, label, days)
            return made

    click.echo(run(work()))


@key.command("list")
@click.option("--user", "name", required=True, help="Whose keys.")
@settings_options
def list_(name: str, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """List a person's keys."""

    async def work() -> list[str]:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            person = await rooms.users.named(name)
            return [
                f"{row.prefix}…  {row.label:<24} expires {_day(row.expires_at)}  last used {_day(row.last_used_at)}"
                for row in await rooms.keys.of(person.id)
            ]

    click.echo("\n".join(run(work())))


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "never     "


@key.command()
@click.argument("prefix")
@click.option("--user", "name", required=True, help="Whose key.")
@settings_options
def revoke(prefix: str, name: str, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """End the key that begins with PREFIX (as `key list` shows it), at once."""

    async def work() -> None:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            person = await rooms.users.named(name)
            keys = rooms.keys
            found = [row for row in await keys.of(person.id) if row.prefix == prefix.rstrip("…")]
            if len(found) != 1:
                raise NotFound(f"{name} has {len(found)} keys that begin with {prefix!r}; `key list` shows them.")
            await keys.revoke(found[0].id, person.id)

    run(work())
    click.echo("The key is revoked.")
