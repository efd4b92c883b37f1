"""The jobs, and the archive, as a server and the command line have them."""

from collections.abc import Sequence
from functools import partial

from server.clock import Clock
from server.db.session import Database
from server.settings import Settings
from server.upkeep.archiving import archive
from server.upkeep.forgetting import forget_removed
from server.upkeep.jobs import Job
from server.upkeep.loop import Upkeep
from server.upkeep.owner import Owner
from server.upkeep.partitions import make_ahead
from server.upkeep.restoring import Archive
from server.upkeep.shelf import Shelf


def shelf_of(settings: Settings) -> Shelf:
    """Where the archive is."""
    return Shelf(settings.data_dir / "archive")


def jobs_of(settings: Settings) -> Sequence[Job]:
    """All of them, in the order in which they are run."""
    shelf = shelf_of(settings)
    return (
        Job("partitions", "make the partitions of the next months", make_ahead),
        Job("forget", "take out of the archive what was removed", partial(forget_removed, shelf=shelf)),
        Job("archive", "write old months into files", partial(archive, shelf=shelf, days=settings.archive_after_days)),
    )


def upkeep_of(settings: Settings, clock: Clock) -> Upkeep:
    """What looks after the tables as long as a server runs."""
    return Upkeep(Owner(settings.database_owner_url or settings.database_url), jobs_of(settings), clock)


def archive_of(settings: Settings, database: Database, clock: Clock) -> Archive:
    """What is in files, for the people it belongs to."""
    return Archive(database, shelf_of(settings), clock)
