"""What Prometheus is told of upkeep and backups: when each was last done.

It is read from Postgres, since any server, a job of the cluster or the command line may have done it.
"""

from collections.abc import Iterable

from prometheus_client import Gauge

from server.db.session import Database
from server.telemetry import REGISTRY
from server.upkeep.jobs import DONE, FAILED
from server.upkeep.status import RunStatus, last_runs

# Nobody expects them to be done again.
BY_HAND = frozenset({"unarchive"})

# Not "job": Prometheus calls what it scrapes that.
LAST_SUCCESS = Gauge(
    "wirthforge_upkeep_last_success_timestamp_seconds",
    "When a task of upkeep, or a backup, last ended well.",
    ("task",),
    registry=REGISTRY,
)
HAS_FAILED = Gauge("wirthforge_upkeep_failed", "1 where the last run of a task failed.", ("task",), registry=REGISTRY)


async def look(database: Database) -> None:
    """Read and tell. Raises Unavailable."""
    show(await last_runs(database))


def show(runs: Iterable[RunStatus]) -> None:
    """Replace what was told. A run that failed, or goes on, leaves what is known of the one before."""
    for run in runs:
        if run.job in BY_HAND:
            continue
        if run.ended_at is not None and run.outcome == DONE:
            LAST_SUCCESS.labels(run.job).set(run.ended_at.timestamp())
        if run.ended_at is not None:
            HAS_FAILED.labels(run.job).set(run.outcome == FAILED)
