"""The history of devices, in Postgres: written in periods (periods.py), read in steps.

What is old is kept by the hour (server/upkeep/hours.py), and is in one of the two tables, never in both.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from sqlalchemy import BigInteger, cast, func, select, union_all
from sqlalchemy.dialects.postgresql import insert

from server.clock import Clock
from server.db.models import HardwareDevice, HardwareHour, HardwareSample
from server.db.session import Database
from server.hardware.devices import Device
from server.hardware.periods import MIB, PERIOD_S_MIN, Row

MINUTES_MAX = 60 * 24 * 1_095
POINTS_MAX = 240
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Point(Struct, frozen=True, kw_only=True):
    """One device in one step of a history; averages where not said otherwise, None where nothing is known.

    Attributes:
        energy_mj: what was used in the step.
        throttled_percent: part of the time with clocks held down by heat or power.
        xid: the highest fault number in the step.
    """

    uuid: str
    at: datetime
    used_bytes: int | None
    used_bytes_max: int | None
    power_mw: int | None
    energy_mj: int | None
    utilisation_percent: int | None
    temperature_c_max: int | None
    throttled_percent: int | None
    xid: int | None


class History:
    """Writes and reads it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ids: dict[str, int] = {}

    async def write(self, rows: Sequence[Row]) -> None:
        """Add rows. One that is there already stays: another replica on the same host was first.

        Raises:
            Unavailable: Postgres is away.
        """
        if not rows:
            return
        try:
            async with self._database.transaction() as session:
                for device in {row.device.uuid: row.device for row in rows}.values():
                    if device.uuid not in self._ids:
                        self._ids[device.uuid] = (await session.execute(_known(device))).scalar_one()
                values = [
                    {"device_id": self._ids[row.device.uuid], **{name: getattr(row, name) for name in _MEASURED}}
                    for row in rows
                ]
                await session.execute(insert(HardwareSample).on_conflict_do_nothing(), values)
        except Exception:
            # What was learned in a transaction that failed may not be so; nor in a database that was restored.
            self._ids.clear()
            raise

    async def read(self, minutes: int) -> list[Point]:
        """The last so many minutes, oldest first, in at most POINTS_MAX steps for each device.

        Raises:
            Unavailable: Postgres is away.
        """
        step = timedelta(seconds=max(PERIOD_S_MIN, -(-minutes * 60 // POINTS_MAX)))
        since = self._clock.now() - timedelta(minutes=minutes)
        told = union_all(
            select(
                HardwareSample.at, HardwareSample.device_id, cast(HardwareSample.energy_mj, BigInteger),
                *(getattr(HardwareSample, name) for name in _TOLD),
            ).where(HardwareSample.at > since),
            select(
                HardwareHour.at, HardwareHour.device_id, HardwareHour.energy_mj,
                *(getattr(HardwareHour, name) for name in _TOLD),
            ).where(HardwareHour.at > since),
        ).subquery("told").c  # fmt: skip
        at = func.date_bin(step, told.at, EPOCH).label("step")
        query = (
            select(
                HardwareDevice.uuid,
                at,
                func.avg(told.used_mib),
                func.max(told.used_mib_max),
                func.avg(told.power_mw),
                func.sum(told.energy_mj),
                func.avg(told.utilisation_percent),
                func.max(told.temperature_c),
                func.avg(told.throttled_percent),
                func.max(told.xid),
            )
            .join(HardwareDevice, HardwareDevice.id == told.device_id)
            .group_by(HardwareDevice.uuid, at)
            .order_by(at, HardwareDevice.uuid)
        )
        async with self._database.transaction() as session:
            rows = (await session.execute(query)).all()
        return [
            Point(
                uuid=uuid,
                at=begins,
                used_bytes=None if used is None else round(used * MIB),
                used_bytes_max=None if used_max is None else used_max * MIB,
                power_mw=_whole(power),
                energy_mj=_whole(energy),
                utilisation_percent=_whole(utilisation),
                temperature_c_max=temperature,
                throttled_percent=_whole(throttled),
                xid=xid,
            )
            for uuid, begins, used, used_max, power, energy, utilisation, temperature, throttled, xid in rows
        ]


_TOLD = ["used_mib", "used_mib_max", "power_mw", "utilisation_percent", "temperature_c", "throttled_percent", "xid"]
_MEASURED = tuple(name for name in Row.__struct_fields__ if name != "device")


def _known(device: Device):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """The device's number, given to it when it is first seen."""
    told = {"kind": device.kind, "name": device.name, "memory_bytes": device.memory_bytes}
    return (
        insert(HardwareDevice)
        .values(uuid=device.uuid, **told)
        .on_conflict_do_update(index_elements=[HardwareDevice.uuid], set_=told)
        .returning(HardwareDevice.id)
    )


def _whole(value: object) -> int | None:
    return None if value is None else round(float(str(value)))
