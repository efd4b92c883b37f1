"""Averages samples over periods, for a history that stays small whatever the box is.

The seed allows about 100 kB of metrics an hour. A row of `hardware_samples` with its place in the index was measured to
take 110 to 112 bytes, so 892 rows fit into an hour: with periods of 30 s (120 an hour) that is enough for seven
devices (92 kB), and with more the periods grow: 8 to 14 devices have 60 s, 64 have 270 s (96 kB). A test writes hours
into a real Postgres and asks for its size.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct, field

from server.hardware.devices import Device, Sample, Snapshot

PERIOD_S_MIN = 30
BYTES_PER_HOUR_MAX = 100_000
ROW_BYTES = 112
ROWS_PER_HOUR_MAX = BYTES_PER_HOUR_MAX // ROW_BYTES
MIB = 1 << 20
INT4_MAX = (1 << 31) - 1
INT2_MAX = (1 << 15) - 1
# What holds clocks down because the device can take no more; the other reasons are somebody's wish, or idleness.
SLOWDOWNS = frozenset(
    {"sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)


class Row(Struct, frozen=True, kw_only=True):
    """One device in one period; the columns are those of `hardware_samples`."""

    device: Device
    at: datetime
    used_mib: int | None
    used_mib_max: int | None
    power_mw: int | None
    energy_mj: int | None
    utilisation_percent: int | None
    temperature_c: int | None
    throttled_percent: int | None
    xid: int | None


class _Period(Struct):
    """The samples of one device in the present period, and its energy at the end of the one before."""

    samples: list[Sample] = field(default_factory=list)
    energy_mj: int | None = None


def period_s(devices: int) -> int:
    """How long a period is for so many devices, in seconds."""
    return PERIOD_S_MIN * max(1, math.ceil(devices * 3600 / PERIOD_S_MIN / ROWS_PER_HOUR_MAX))


class Periods:
    """Collects the samples of the present period, and gives its rows when the next one begins.

    Periods are those of the wall clock, so that replicas on one host speak of the same ones.
    """

    def __init__(self) -> None:
        self._begins: datetime | None = None
        self._devices: dict[str, Device] = {}
        self._periods: dict[str, _Period] = {}

    def add(self, snapshot: Snapshot) -> list[Row]:
        """Take a snapshot; gives the rows of the period that it ended, if it did."""
        begins = _beginning(snapshot.at, period_s(len(snapshot.devices)))
        rows: list[Row] = []
        if self._begins is not None and begins > self._begins:
            told = {uuid: period for uuid, period in self._periods.items() if period.samples}
            rows = [_row(self._devices[uuid], self._begins, period) for uuid, period in told.items()]
            self._periods = {uuid: _Period(energy_mj=_last_energy(period)) for uuid, period in told.items()}
        if self._begins is None or begins > self._begins:
            self._begins = begins
        self._devices = {device.uuid: device for device in snapshot.devices}
        self._periods = {uuid: period for uuid, period in self._periods.items() if uuid in self._devices}
        for uuid, sample in snapshot.samples.items():
            if uuid in self._devices:
                self._periods.setdefault(uuid, _Period()).samples.append(sample)
        return rows


def _beginning(at: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)


def _last_energy(period: _Period) -> int | None:
    return next((one.energy_mj for one in reversed(period.samples) if one.energy_mj is not None), None)


def _row(device: Device, begins: datetime, period: _Period) -> Row:
    samples = period.samples
    used = [one.used_bytes // MIB for one in samples if one.used_bytes is not None]
    throttle = [bool(SLOWDOWNS.intersection(one.throttle)) for one in samples if one.throttle is not None]
    return Row(
        device=device,
        at=begins,
        used_mib=_mean(used, INT4_MAX),
        used_mib_max=_fitting(max(used, default=None), INT4_MAX),
        power_mw=_mean([one.power_mw for one in samples], INT4_MAX),
        energy_mj=_fitting(_energy(period), INT4_MAX),
        utilisation_percent=_mean([one.utilisation_percent for one in samples], INT2_MAX),
        temperature_c=_mean([one.temperature_c for one in samples], INT2_MAX),
        throttled_percent=100 * sum(throttle) // len(throttle) if throttle else None,
        xid=_fitting(next((xid for one in reversed(samples) for xid in reversed(one.xids)), None), INT2_MAX),
    )


def _energy(period: _Period) -> int | None:
    """What was used since the period before; None where the counter began anew, or has no beginning yet."""
    read = [one.energy_mj for one in period.samples if one.energy_mj is not None]
    first = period.energy_mj if period.energy_mj is not None else (read[0] if len(read) > 1 else None)
    return read[-1] - first if read and first is not None and read[-1] >= first else None


def _mean(values: Sequence[int | None], most: int) -> int | None:
    known = [value for value in values if value is not None]
    return _fitting(round(sum(known) / len(known)), most) if known else None


def _fitting(value: int | None, most: int) -> int | None:
    """What a column holds; a driver's nonsense is nothing rather than an error that loses the other rows."""
    return value if value is not None and 0 <= value <= most else None
