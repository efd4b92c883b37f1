"""What devices did."""

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class HardwareDevice(Base):
    """A device that was seen at least once; samples point here, so that they stay small."""

    __tablename__ = "hardware_devices"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    uuid: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    name: Mapped[str]
    memory_bytes: Mapped[int | None]


class HardwareSample(Base):
    """A device in one period (30 s, longer with many devices); averages where not said otherwise.

    NULL: the device does not tell. The order of columns leaves no gaps in a row, since there will be many.
    `at` is the beginning of the period, `energy_mj` what was used in it, `throttled_percent` the part of its samples
    with clocks held down by heat or power, `xid` the last fault in it. Partitioned by month.
    """

    __tablename__ = "hardware_samples"
    __table_args__ = ({"postgresql_partition_by": "RANGE (at)"},)

    at: Mapped[datetime] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(
        Integer, ForeignKey("hardware_devices.id", ondelete="CASCADE"), primary_key=True
    )
    used_mib: Mapped[int | None] = mapped_column(Integer)
    used_mib_max: Mapped[int | None] = mapped_column(Integer)
    power_mw: Mapped[int | None] = mapped_column(Integer)
    energy_mj: Mapped[int | None] = mapped_column(Integer)
    utilisation_percent: Mapped[int | None] = mapped_column(SmallInteger)
    temperature_c: Mapped[int | None] = mapped_column(SmallInteger)
    throttled_percent: Mapped[int | None] = mapped_column(SmallInteger)
    xid: Mapped[int | None] = mapped_column(SmallInteger)
