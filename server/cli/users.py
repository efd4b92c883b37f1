"""`wirthforge user …`"""

import os
import sys
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from server.cli.options import address_of, open_database, open_rooms, owner_url, run, settings_from, settings_options
from server.clock import SystemClock
from server.errors import InvalidRequest, StartError
from server.messages import Role
from server.settings import Settings
from server.telemetry import configure_logging
from server.upkeep.joined import account_export_of, departures_of
from server.upkeep.leaving import Receipt
from server.upkeep.taking import written


@click.group()
def user() -> None:
    """People: add, list, disable, enable, reset-password, export, remove."""


def _read_password(from_stdin: bool) -> str | None:  # noqa: FBT001 (a flag of the command line)
    if not from_stdin:
        return None
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidRequest("The password on standard input is not UTF-8.", param="password") from None


def _setup_link(settings: Settings, token: str) -> str:
    return f"{address_of(settings)}/setup#{token}"


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "member"]), default="member", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@settings_options
def add(name: str, role: str, password_stdin: bool, config: Path | None, **flags: Any) -> None:  # noqa: FBT001, ANN401
    """Add a person. Without a password, print a set-up link for them."""
    settings = settings_from(config, **flags)
    password = _read_password(password_stdin)

    async def work() -> str:
        async with open_rooms(settings) as rooms:
            added = await rooms.users.add(name, cast("Role", role), password)
            return "" if password is not None else await rooms.users.invite(added.id)

    token = run(work())
    click.echo(f"{name} was added." if not token else _setup_link(settings, token))


@user.command("list")
@settings_options
def list_(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """List everybody."""

    async def work() -> list[str]:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            return [
                f"{person.name:<24} {person.role:<7} "
                f"{'disabled' if person.disabled_at else 'active' if person.password_hash else 'invited':<9} "
                f"{person.created_at:%Y-%m-%d}"
                for person in await rooms.users.all()
            ]

    click.echo("\n".join(run(work())))


def _switch(name: str, *, is_disabled: bool, config: Path | None, flags: dict[str, Any]) -> None:
    async def work() -> None:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            await rooms.users.change((await rooms.users.named(name)).id, is_disabled=is_disabled)

    run(work())
    click.echo(f"{name} is {'disabled' if is_disabled else 'enabled'}.")


@user.command()
@click.argument("name")
@settings_options
def disable(name: str, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Lock a person out, and their keys with them. Usage and keys stay."""
    _switch(name, is_disabled=True, config=config, flags=flags)


@user.command()
@click.argument("name")
@settings_options
def enable(name: str, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Let a disabled person in again."""
    _switch(name, is_disabled=False, config=config, flags=flags)


@user.command("reset-password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the new password from standard input.")
@settings_options
def reset_password(name: str, password_stdin: bool, config: Path | None, **flags: Any) -> None:  # noqa: FBT001, ANN401
    """Set a new password, or print a set-up link for choosing one."""
    settings = settings_from(config, **flags)
    password = _read_password(password_stdin)

    async def work() -> str:
        async with open_rooms(settings) as rooms:
            person = await rooms.users.named(name)
            if password is None:
                return await rooms.users.invite(person.id)
            await rooms.users.set_password(person.id, password)
            return ""

    token = run(work())
    click.echo(f"{name} has a new password." if not token else _setup_link(settings, token))


@user.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@settings_options
def export(name: str, file: Path, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Write everything that is stored of a person into FILE, a zip file with JSON in it."""
    settings = settings_from(config, **flags)

    async def work() -> None:
        async with open_rooms(settings) as rooms:
            person = await rooms.users.named(name)
        async with open_database(settings) as database:
            parts = written(account_export_of(settings, database, SystemClock()).start(person.id))
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                async for each in parts:
                    out.write(each)
                out.flush()
                os.fsync(out.fileno())

    if file.exists():
        raise StartError(f"{file} is there already.")
    part = file.with_name(f"{file.name}.part")
    try:
        run(work())
        part.replace(file)
    except OSError as error:
        raise StartError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    click.echo(file)


@user.command()
@click.argument("name")
@click.option("--everything", is_flag=True, help="Yes: all of their conversations, keys, and archived months.")
@click.option("--usage", type=click.Choice(["sums", "nothing"]), help="What stays of their usage, under no name.")
@settings_options
def remove(name: str, everything: bool, usage: str | None, config: Path | None, **flags: Any) -> None:  # noqa: FBT001, ANN401
    """Remove a person and everything of theirs, for good. Prints the receipt, as JSON.

    Exit status 1 if not all of it could be done now: upkeep goes on with it.
    """
    settings = settings_from(config, **flags)
    if not everything:
        raise StartError(
            f"This removes everything that {name} has, for good: say --everything. `user disable` only locks out."
        )
    configure_logging(settings)  # to standard error; the receipt is what it prints

    async def work() -> Receipt:
        async with open_rooms(settings) as rooms, open_database(settings) as database:
            person = await rooms.users.named(name)
            own = msgspec.structs.replace(settings, database_owner_url=owner_url(settings))
            departures = departures_of(own, database, rooms.ledger, SystemClock(), rooms.access.announce)
            keeps = None if usage is None else usage == "sums"
            return await departures.remove(person.id, asked_by=None, keeps_usage=keeps)

    receipt = run(work())
    click.echo(msgspec.json.format(msgspec.json.encode(receipt), indent=2).decode())
    if receipt.done_at is None:
        raise StartError("Not all of it could be removed now. The next run of upkeep goes on with it.")
