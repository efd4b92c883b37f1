"""What several subcommands share: settings from flags, and reaching the database of a server that may be running."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from quotas.ledger import Ledger
from server.accounts.access import FRESH_MS, Access
from server.accounts.keys import ApiKeys
from server.accounts.passwords import Passwords
from server.accounts.quotas import Quotas
from server.accounts.users import Users
from server.clock import SystemClock
from server.db.session import Database
from server.embedded import lock
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis as EmbeddedRedis
from server.errors import StartError
from server.privacy import version
from server.settings import Settings, load
from server.sharing.redis import connect_redis

REDIS_S_MAX = 2

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(command: Command) -> Command:
    """The flags that every subcommand takes."""
    config = click.option(
        "--config", type=click.Path(path_type=Path), envvar="WIRTHFORGE_CONFIG", help="A settings file (TOML)."
    )
    data_dir = click.option("--data-dir", type=click.Path(path_type=Path), help="Where data lives.")
    return config(data_dir(command))


def settings_from(config: Path | None, **flags: object) -> Settings:
    """Merge flags, environment and file."""
    return load(flags, os.environ, config)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end."""
    return uvloop.run(work)


def database_url(settings: Settings) -> str:
    """The configured Postgres, or that of the server which runs on the data folder.

    Raises:
        StartError: neither is there.
    """
    if settings.database_url:
        return settings.database_url
    if lock.holder(settings.data_dir) is None:
        raise StartError(
            f"No server is running on the data folder {settings.data_dir}. "
            "Start it with `wirthforge up`, or set DATABASE_URL."
        )
    return Postgres(settings.data_dir, SystemClock()).url


def owner_url(settings: Settings) -> str:
    """Where the tables' owner logs in: what is configured, else that of the running server. Raises StartError."""
    if url := settings.database_owner_url or settings.database_url:
        return url
    database_url(settings)
    return Postgres(settings.data_dir, SystemClock()).owner_url


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """A connection for one command."""
    database = Database(database_url(settings), connections_max=1)
    try:
        yield database
    finally:
        await database.close()


@dataclass(frozen=True)
class Rooms:
    """What commands change."""

    users: Users
    keys: ApiKeys
    quotas: Quotas
    access: Access
    ledger: Ledger


@asynccontextmanager
async def open_rooms(settings: Settings) -> AsyncIterator[Rooms]:
    """People, keys and quotas, for one command. Tells on standard error if the server could not be told of a change."""
    clock = SystemClock()
    redis = connect_redis(
        settings.redis_url or EmbeddedRedis(settings.data_dir, clock).url, connections_max=2, answer_s_max=REDIS_S_MAX
    )
    async with open_database(settings) as database, redis:
        ledger = Ledger(redis)
        access = Access(ledger, clock)
        yield Rooms(
            Users(database, access, Passwords(), clock),
            ApiKeys(database, access, clock),
            Quotas(database, access, clock, version.bump),
            access,
            ledger,
        )
    if access.has_missed_one:
        click.echo(f"Redis cannot be reached: the change holds within {FRESH_MS // 1000} seconds.", err=True)


def address_of(settings: Settings) -> str:
    """How the running server is reached: as it told, or else as it would be with these settings."""
    running = lock.holder(settings.data_dir)
    told = running.address if running else ""
    return settings.public_url.rstrip("/") or told or f"http://{settings.host}:{settings.port}"
