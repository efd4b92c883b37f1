"""`wirthforge doctor egress`: whether the record of what left this box is as it was written."""

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from server.cli.options import open_database, run, settings_from, settings_options
from server.clock import SystemClock
from server.privacy.egress_verdict import Noted, Verdict, verify
from server.settings import Settings

_NOTED = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)


def _noted(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[Noted, ...]:
    found = [_NOTED.fullmatch(each.strip().lower()) for each in given]
    if None in found:
        raise click.BadParameter("as `doctor egress` printed it: a number, a colon, and 64 hexadecimal digits")
    return tuple(Noted(int(each[1]), bytes.fromhex(each[2])) for each in found if each is not None)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--noted", multiple=True, callback=_noted, help="A head of before, which must still be in the ledger.")
@settings_options
@click.pass_obj
def egress(
    given: dict[str, Any] | None,
    /,
    *,
    as_json: bool,
    noted: tuple[Noted, ...],
    config: Path | None,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Verify the chain of what left this box, from its first entry to its head. Exit status 1 if it does not hold.

    It changes nothing, and may be asked while people are served. Write the head down somewhere else: with --noted it
    shows later that nobody wrote the ledger anew.
    """
    before = given or {}
    flags = {name: before.get(name) if value is None else value for name, value in flags.items()}
    settings = settings_from(config or before.get("config"), **flags)
    verdict = run(_verdict(settings, noted))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(verdict)))
    else:
        click.echo("\n".join(_told(verdict)))
    if not verdict.is_well:
        sys.exit(1)


async def _verdict(settings: Settings, noted: tuple[Noted, ...]) -> Verdict:
    async with open_database(settings) as database, database.transaction(everybody=True) as session:
        return await verify(session, SystemClock().now(), noted)


def _told(verdict: Verdict) -> list[str]:
    entries = f"{verdict.entries} entr{'y' if verdict.entries == 1 else 'ies'}"
    lines = [f"{entries}; {verdict.open} of what left has no end yet" if verdict.entries else "Nothing has left yet."]
    if verdict.head:
        lines.append(f"head    {verdict.head}")
    lines += [
        *(f"note    {note}" for note in verdict.notes),
        *(f"{click.style('broken', fg='red')}  {breach.sentence}" for breach in verdict.broken),
    ]
    if verdict.is_well:
        lines.append(f"{click.style('ok', fg='green')}      every entry is as it was written, and none is missing")
    return lines
