"""The history of devices, in Postgres: written in periods (periods.py), read in steps, kept for ninety days."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from server.clock import Clock
from server.db.models import HardwareDevice, HardwareSample
from server.db.session import Database
from server.hardware.devices import Device
from server.hardware.periods import MIB, PERIOD_S_MIN, Row

KEEP_DAYS = 90
TRIM_EVERY_MS = 3_600_000
MINUTES_MAX = 60 * 24 * KEEP_DAYS
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
        self._trimmed_ms: int | None = None

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
        await self._trim()

    async def read(self, minutes: int) -> list[Point]:
        """The last so many minutes, oldest first, in at most POINTS_MAX steps for each device.

        Raises:
            Unavailable: Postgres is away.
        """
        step = timedelta(seconds=max(PERIOD_S_MIN, -(-minutes * 60 // POINTS_MAX)))
        at = func.date_bin(step, HardwareSample.at, EPOCH).label("step")
        query = (
            select(
                HardwareDevice.uuid,
                at,
                func.avg(HardwareSample.used_mib),
                func.max(HardwareSample.used_mib_max),
                func.avg(HardwareSample.power_mw),
                func.sum(HardwareSample.energy_mj),
                func.avg(HardwareSample.utilisation_percent),
                func.max(HardwareSample.temperature_c),
                func.avg(HardwareSample.throttled_percent),
                func.max(HardwareSample.xid),
            )
            .join(HardwareDevice, HardwareDevice.id == HardwareSample.device_id)
            .where(HardwareSample.at > self._clock.now() - timedelta(minutes=minutes))
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

    async def _trim(self) -> None:
        """Now and then, drop what is older than KEEP_DAYS."""
        now_ms = self._clock.monotonic_ms()
        if self._trimmed_ms is not None and now_ms - self._trimmed_ms < TRIM_EVERY_MS:
            return
        async with self._database.transaction() as session:
            old = self._clock.now() - timedelta(days=KEEP_DAYS)
            await session.execute(delete(HardwareSample).where(HardwareSample.at < old))
        self._trimmed_ms = now_ms


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
