"""What upkeep has done: when each job last ran, and which people it has removed."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class UpkeepRun(Base):
    """The last run of a job. Without an `ended_at` it runs, or was killed. `said`: its last line, or why it failed."""

    __tablename__ = "upkeep_runs"

    job: Mapped[str] = mapped_column(primary_key=True)
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    took_ms: Mapped[int | None]
    outcome: Mapped[str | None]
    said: Mapped[str]


class Departure(Base):
    """A person who is to be removed, or was: the receipt, as far as it has come (server/upkeep/departing.py).

    `person_id` is the id that the person had, and nothing else of them. `asked_by` is an admin's, or their own; NULL
    for the command line.
    """

    __tablename__ = "departures"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    person_id: Mapped[UUID] = mapped_column(unique=True)
    asked_by: Mapped[UUID | None]
    asked_at: Mapped[datetime]
    keeps_usage: Mapped[bool]
    done: Mapped[dict[str, Any]] = mapped_column(JSONB)
    done_at: Mapped[datetime | None]
