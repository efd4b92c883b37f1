"""What stays of old rows: usage by day, devices by hour."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Integer, Numeric, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base

# Whose usage is that of people who left.
NOBODY = UUID(int=0)


class UsageDay(Base):
    """Requests of one day (UTC) that are not in `usage` any more, added up (server/upkeep/summing.py).

    `council` is its name, `unknown` where that was not known any more. The cost is settled at the prices that held
    then: `cost_micros` millionths of the admin's currency, and `energy_cost` / 3.6 billion on top of it.
    """

    __tablename__ = "usage_days"
    __table_args__ = (
        Index(
            "ix_usage_days_group",
            *("day", "user_id", "key_id", "model", "engine", "placement", "council", "outcome"),
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    day: Mapped[date]
    user_id: Mapped[UUID]
    key_id: Mapped[UUID | None]
    model: Mapped[str]
    engine: Mapped[str]
    placement: Mapped[str]
    council: Mapped[str | None]
    outcome: Mapped[str]
    requests: Mapped[int]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    run_ms: Mapped[int]
    gpu_us: Mapped[int]
    energy_mj: Mapped[int | None]
    cost_micros: Mapped[Decimal] = mapped_column(Numeric)
    energy_cost: Mapped[Decimal] = mapped_column(Numeric)
    unpriced_requests: Mapped[int]
    unmetered_requests: Mapped[int]


class HardwareHour(Base):
    """A device in one hour whose samples are not kept any more: averages of `periods` of them.

    `used_mib_max`, `temperature_c` and `xid` are the largest ones, `energy_mj` is their sum.
    """

    __tablename__ = "hardware_hours"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(
        Integer, ForeignKey("hardware_devices.id", ondelete="CASCADE"), primary_key=True
    )
    periods: Mapped[int] = mapped_column(Integer)
    energy_mj: Mapped[int | None]
    used_mib: Mapped[int | None] = mapped_column(Integer)
    used_mib_max: Mapped[int | None] = mapped_column(Integer)
    power_mw: Mapped[int | None] = mapped_column(Integer)
    utilisation_percent: Mapped[int | None] = mapped_column(SmallInteger)
    temperature_c: Mapped[int | None] = mapped_column(SmallInteger)
    throttled_percent: Mapped[int | None] = mapped_column(SmallInteger)
    xid: Mapped[int | None] = mapped_column(SmallInteger)
