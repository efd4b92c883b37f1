"""`wirthforge cloud rekey`: the keys of providers, sealed with another encryption key."""

from pathlib import Path
from typing import Any

import click

from server.cli.options import open_database, run, settings_from, settings_options
from server.clock import SystemClock
from server.cloud.registry import CloudRegistry
from server.embedded import key_file
from server.errors import StartError
from server.privacy.sealed import Seal, seal_from
from server.privacy.version import Version
from server.settings import Settings


def seal_of(settings: Settings) -> Seal:
    """As the server on these settings has it. Raises StartError where it has none."""
    source = f"The file {key_file.path_of(settings.data_dir)}"
    seal = seal_from(settings.encryption_key) or seal_from(key_file.read(settings.data_dir), source)
    if seal is None:
        raise StartError("There is no encryption key: set WIRTHFORGE_ENCRYPTION_KEY, or start `wirthforge up` once.")
    return seal


@click.command()
@settings_options
def rekey(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Seal all keys of providers with the first of the encryption keys, so that the others are needed no more."""
    settings = settings_from(config, **flags)
    seal = seal_of(settings)

    async def work() -> tuple[int, list[str]]:
        clock = SystemClock()
        async with open_database(settings) as database:
            return await CloudRegistry(database, clock, seal, Version(database, clock)).reseal()

    count, broken = run(work())
    click.echo(f"Sealed anew: {count}.")
    if broken:
        raise StartError(f"No encryption key opens the keys of {', '.join(broken)}: enter them again.")
