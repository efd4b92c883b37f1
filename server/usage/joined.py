"""Everything about reports of usage, joined: for the composition root (server/app.py)."""

from server.clock import Clock
from server.db.session import Database
from server.usage.exports import Files
from server.usage.prices import Prices
from server.usage.report import UsageReport
from server.usage.reports import Reports


def reports_of(database: Database, clock: Clock) -> dict[str, object]:
    """What handlers ask for by name."""
    reports = Reports(database, clock)
    return {
        "prices": Prices(database, clock),
        "report_files": Files(reports),
        "reports": reports,
        "usage_report": UsageReport(database),
    }
