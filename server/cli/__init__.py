"""The `wirthforge` command: one file per group of subcommands.

Faults end in one sentence on standard error and exit status 1.
"""

import sys

import click

from server import VERSION
from server.cli.doctor import doctor
from server.cli.keys import key
from server.cli.models import models
from server.cli.schema import migrate, openapi
from server.cli.serve import serve
from server.cli.up import up
from server.cli.users import user
from server.errors import WirthforgeError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="wirthforge")
def wirthforge() -> None:
    """One GPU box, a few people, nobody waits for anybody else."""


for command in (up, serve, migrate, user, key, models, doctor, openapi):
    wirthforge.add_command(command)


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
