"""The jobs, and the archive, as a server and the command line have them."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from quotas.ledger import Ledger
from server.clock import Clock
from server.db.session import Database
from server.settings import Settings
from server.upkeep.archiving import archive
from server.upkeep.departing import depart
from server.upkeep.expiring import Keeps, expire
from server.upkeep.forgetting import forget_removed
from server.upkeep.hours import roll_up
from server.upkeep.jobs import Job
from server.upkeep.leaving import DEPART, Departures
from server.upkeep.loop import Upkeep
from server.upkeep.owner import Owner
from server.upkeep.partitions import make_ahead
from server.upkeep.restoring import Archive
from server.upkeep.shelf import Shelf
from server.upkeep.summing import sum_usage
from server.upkeep.taking import AccountExport

log = structlog.get_logger(__name__)


def shelf_of(settings: Settings) -> Shelf:
    """Where the archive is."""
    return Shelf(settings.data_dir / "archive")


def jobs_of(settings: Settings, more: Sequence[Job] = ()) -> Sequence[Job]:
    """All of them, in the order in which they are run.

    Args:
        more: of rooms that this one knows nothing of.
    """
    shelf = shelf_of(settings)
    return (
        Job("partitions", "make the partitions of the next months", make_ahead),
        Job("usage", "add up old requests by day", partial(sum_usage, keep_days=settings.usage_keep_days)),
        Job(
            "hardware",
            "make hours of old samples of devices",
            partial(roll_up, keep_days=settings.hardware_keep_days, keep_hours_days=settings.hardware_hours_keep_days),
        ),
        Job(
            "expire", "remove what is older than it is to be kept", partial(expire, shelf=shelf, keeps=_keeps(settings))
        ),
        Job("forget", "take out of the archive what was removed", partial(forget_removed, shelf=shelf)),
        Job("archive", "write old months into files", partial(archive, shelf=shelf, days=settings.archive_after_days)),
        *more,
        # The last one, since people may ask for it while the others are at work.
        Job(DEPART, "remove people who leave", partial(depart, shelf=shelf)),
    )


class Elsewhere:
    """Upkeep that somebody else calls: a job of the cluster, or cron."""

    async def run(self) -> None:
        """Say so, and end."""
        log.info("no upkeep here", reason="the setting upkeeps is false; `wirthforge upkeep run` does it")


def upkeep_of(settings: Settings, clock: Clock, more: Sequence[Job] = ()) -> Upkeep | Elsewhere:
    """What looks after the tables as long as a server runs."""
    if not settings.upkeeps:
        return Elsewhere()
    return Upkeep(Owner(settings.database_owner_url or settings.database_url), jobs_of(settings, more), clock)


def archive_of(settings: Settings, database: Database, clock: Clock) -> Archive:
    """What is in files, for the people it belongs to."""
    return Archive(database, shelf_of(settings), clock)


def departures_of(
    settings: Settings, database: Database, ledger: Ledger, clock: Clock, announce: Callable[[], Awaitable[object]]
) -> Departures:
    """What removes people."""
    owner = Owner(settings.database_owner_url or settings.database_url)
    keeps_usage = settings.removed_people_usage == "sums"
    return Departures(owner, shelf_of(settings), database, ledger, clock, announce, keeps_usage=keeps_usage)


def account_export_of(settings: Settings, database: Database, clock: Clock) -> AccountExport:
    """What gives people all that is theirs."""
    return AccountExport(database, archive_of(settings, database, clock), clock)


def leaving_of(
    settings: Settings, database: Database, ledger: Ledger, clock: Clock, announce: Callable[[], Awaitable[object]]
) -> dict[str, object]:
    """What handlers ask for by name where people take their data along, or leave."""
    return {
        "account_export": account_export_of(settings, database, clock),
        "removals": departures_of(settings, database, ledger, clock, announce),
    }


def _keeps(settings: Settings) -> Keeps:
    return Keeps(
        council_runs=settings.council_runs_keep_days,
        audit=settings.audit_keep_days,
        logins=settings.logins_keep_days,
        conversations=settings.conversations_keep_days,
        member_answers=settings.member_answers_keep_days,
    )
