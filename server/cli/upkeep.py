"""`wirthforge upkeep`: the jobs that keep the data in bounds, by hand; and how things are."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from server.cli.options import owner_url, run, settings_from, settings_options
from server.clock import SystemClock
from server.cloud.jobs import CLOUD_JOBS
from server.errors import StartError
from server.settings import Settings
from server.upkeep.jobs import Job, run_jobs
from server.upkeep.joined import jobs_of, shelf_of
from server.upkeep.months import Month
from server.upkeep.owner import Owner
from server.upkeep.returning import bring_all_back
from server.upkeep.status import ROWS_COUNTED_MAX, ArchiveStatus, RunStatus, TableStatus, archived, runs, tables

MIB = 1024 * 1024


@click.group()
def upkeep() -> None:
    """Look after what is kept: partitions, sums, archive. The server does it by itself, once a day.

    Unless WIRTHFORGE_UPKEEPS is false: then something else has to call `upkeep run` every day.
    """


@upkeep.command("run")
@click.argument("job_names", metavar="[NAME]...", nargs=-1)
@click.option("--job", "names", multiple=True, help="Only this job; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@settings_options
def run_now(
    config: Path | None,
    job_names: tuple[str, ...],
    names: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001 (a flag of the command line)
    **flags: Any,  # noqa: ANN401
) -> None:
    """Run the jobs now, one after the other, or those that are named. Exit status 1 if one of them failed."""
    names = (*job_names, *names)
    settings = settings_from(config, **flags)
    jobs = {job.name: job for job in jobs_of(settings, CLOUD_JOBS)}
    if unknown := [name for name in names if name not in jobs]:
        raise StartError(f"There is no job {unknown[0]}: {', '.join(jobs)}.")
    if not run(_run(settings, [jobs[name] for name in names or jobs], is_dry=dry_run)):
        sys.exit(1)


async def _run(settings: Settings, jobs: Sequence[Job], *, is_dry: bool) -> bool:
    ended = are_fine = 0
    clock = SystemClock()
    async for result in run_jobs(
        Owner(owner_url(settings)), jobs, clock, lambda job, line: click.echo(f"{job}: {line}"), is_dry=is_dry
    ):
        ended += 1
        are_fine += result.outcome == "done"
        note = f": {result.note}" if result.note else f" in {result.took_ms / 1000:.1f} s"
        click.echo(f"{result.job}: {result.outcome}{note}", err=result.outcome != "done")
    if not ended:
        click.echo("Nothing is done: another server, or another command, is at it.", err=True)
    return ended == are_fine


@upkeep.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@settings_options
def unarchive(config: Path | None, dry_run: bool, **flags: Any) -> None:  # noqa: ANN401, FBT001
    """Bring all of the archive back into Postgres, as a step back to an older version needs it.

    The next daily run archives it again, unless WIRTHFORGE_ARCHIVE_AFTER_DAYS says otherwise.
    """
    settings = settings_from(config, **flags)
    job = Job("unarchive", "", partial(bring_all_back, shelf=shelf_of(settings)))
    if not run(_run(settings, [job], is_dry=dry_run)):
        sys.exit(1)


@upkeep.command()
@settings_options
def status(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Show tables and their months, when each job last ran, and what is missing. Exit status 1 if something is."""
    settings = settings_from(config, **flags)
    found, files, ran = run(_status(settings))
    width = max(len(table.name) for table in found) if found else 0
    click.echo(f"{'table':<{width}}  {'months':>6}  {'up to':<7}  {'MiB':>9}  {'in default':>10}")
    for table in found:
        click.echo(_line(table, width))
    click.echo(
        f"archive: {files.files} files, {files.rows} rows, {files.bytes / MIB:.1f} MiB;"
        f" {files.restored} conversations were opened again lately"
    )
    click.echo("")
    if not settings.upkeeps:
        click.echo("The server runs no job by itself (upkeeps is false): `wirthforge upkeep run` does, daily.")
    for job in jobs_of(settings, CLOUD_JOBS):
        click.echo(f"{job.name:<11}  {_ran(ran.get(job.name))}")
    missing = [f"{table.name}_{month}" for table in found for month in table.missing]
    if missing:
        click.echo(f"Missing: {', '.join(missing)}. Run `wirthforge upkeep run --job partitions`.", err=True)
        sys.exit(1)


async def _status(settings: Settings) -> tuple[list[TableStatus], ArchiveStatus, dict[str, RunStatus]]:
    async with Owner(owner_url(settings)).connection() as connection:
        return await tables(connection, SystemClock()), await archived(connection), await runs(connection)


def _ran(last: RunStatus | None) -> str:
    if last is None:
        return "never ran"
    when = f"{last.began_at:%Y-%m-%d %H:%M} UTC"
    if last.ended_at is None:
        return f"{when}  runs, or was killed"
    return f"{when}  {last.outcome} in {(last.took_ms or 0) / 1000:.1f} s{f': {last.said}' if last.said else ''}"


def _line(table: TableStatus, width: int) -> str:
    months = [partition for partition in table.partitions if not partition.is_default]
    ends = max((partition.ends for partition in months if partition.ends), default=None)
    last = Month.of(ends).plus(-1) if ends else ""
    more = "+" if table.in_default == ROWS_COUNTED_MAX else ""
    return (
        f"{table.name:<{width}}  {len(months):>6}  {last!s:<7}"
        f"  {sum(partition.bytes for partition in table.partitions) / MIB:>9.1f}  {table.in_default:>9}{more or ' '}"
    )
