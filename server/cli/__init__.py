"""The `wirthforge` command: one file per group of subcommands.

Faults end in one sentence on standard error and exit status 1.
"""

import sys
from importlib import import_module

import click

from server import VERSION
from server.errors import WirthforgeError

# Where each subcommand is, in the order in which people meet them.
ROOMS = {
    "up": "up",
    "serve": "serve",
    "migrate": "schema",
    "user": "users",
    "key": "keys",
    "quota": "quotas",
    "cloud": "cloud",
    "models": "models",
    "bench": "bench",
    "upkeep": "upkeep",
    "backup": "backup",
    "restore": "backup",
    "doctor": "doctor",
    "openapi": "schema",
}


class Subcommands(click.Group):
    """Imports a subcommand when it is asked for: all of them take more than a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """All names."""
        return list(ROOMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand of that name."""
        if cmd_name not in ROOMS:
            return None
        command: click.Command = getattr(import_module(f"server.cli.{ROOMS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="wirthforge")
def wirthforge() -> None:
    """One GPU box, a few people, nobody waits for anybody else."""


def main() -> None:
    """Run the command line."""
    # Assertions state what must hold; a server that skips them would go on with what must not be.
    if not __debug__:
        sys.exit("Run Python without -O: WIRTHFORGE relies on its assertions.")
    try:
        wirthforge.main(standalone_mode=True)
    except WirthforgeError as error:
        click.secho(f"wirthforge: {error.message}", fg="red", err=True)
        sys.exit(1)
