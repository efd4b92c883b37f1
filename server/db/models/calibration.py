"""How fast engines are."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class CalibrationRow(Base):
    """What the last calibration of a model on an engine found, on this hardware, with this version of the engine.

    `figures` is a server/engines/calibration.py Calibration; NULL where it failed, and `failure` says why.
    `engine_version` is empty where the engine does not tell. No foreign key: engines of the settings have no row.
    """

    __tablename__ = "calibrations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    engine: Mapped[str]
    model: Mapped[str]
    hardware: Mapped[str]
    engine_version: Mapped[str]
    server_version: Mapped[str]
    measured_at: Mapped[datetime]
    figures: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    failure: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("engine", "model", "hardware", "engine_version"),
        CheckConstraint("(figures IS NULL) <> (failure IS NULL)", name="result"),
    )
