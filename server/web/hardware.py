"""What the box is made of and how it does, for everybody who is logged in; which programs use it, for admins."""

from datetime import datetime
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import Parameter
from msgspec import Struct

from server.errors import Unavailable
from server.hardware.devices import Device, Link, Sample
from server.hardware.history import MINUTES_MAX, History, Point
from server.hardware.monitor import Monitor
from server.hardware.tiers import Tier, tier_of
from server.messages import Principal

MINUTES = 60


class ProcessView(Struct):
    """A program on a device; its pid is shown to admins only."""

    pid: int | None
    used_bytes: int | None


class DeviceView(Struct):
    """A device and what it was doing when it was last asked. Null: `absent` says why, by the reading's name."""

    index: int
    uuid: str
    kind: str
    provider: str
    vendor: str
    name: str
    memory_bytes: int | None
    memory_is_shared: bool
    driver: str | None
    pci_address: str | None
    numa_node: int | None
    compute_capability: str | None
    cores: int | None
    parent: str | None
    is_divided: bool
    sampled_at: datetime | None
    used_bytes: int | None
    reserved_bytes: int | None
    free_bytes: int | None
    utilisation_percent: int | None
    memory_utilisation_percent: int | None
    power_mw: int | None
    power_limit_mw: int | None
    energy_mj: int | None
    temperature_c: int | None
    throttle: list[str] | None
    processes: list[ProcessView] | None
    absent: dict[str, str]


class FaultView(Struct):
    """A fault that the NVIDIA driver reported (XID)."""

    uuid: str
    xid: int
    at: datetime


class HardwareView(Struct):
    """The box.

    Attributes:
        topology: the link between each two devices, by index: same, nvlink, pcie_switch, host_bridge, numa or system.
        absent: kinds of hardware that are not there, and why; normal.
        faults: what is in trouble, and how.
    """

    at: datetime
    tier: Tier
    devices: list[DeviceView]
    topology: list[list[Link]]
    absent: dict[str, str]
    faults: dict[str, str]
    events: list[FaultView]


class HistoryView(Struct):
    """Steps of a history, oldest first; a device that was not there has none."""

    minutes: int
    points: list[Point]


@get("/api/hardware", tags=["Hardware"])
async def hardware(principal: NamedDependency[Principal], hardware_monitor: NamedDependency[Monitor]) -> HardwareView:
    """What the box is made of, as it was seen a few seconds ago."""
    snapshot = hardware_monitor.snapshot
    if not snapshot.devices and not snapshot.absent and not snapshot.faults:
        raise Unavailable("The hardware has not been looked at yet. Try again in a few seconds.", retry_after_s=3)
    is_admin = principal.role == "admin"
    return HardwareView(
        at=snapshot.at,
        tier=tier_of(snapshot.devices),
        devices=[_view(device, snapshot.samples.get(device.uuid), is_admin=is_admin) for device in snapshot.devices],
        topology=[list(row) for row in snapshot.topology.links],
        absent=snapshot.absent,
        faults=snapshot.faults,
        events=[FaultView(event.uuid, event.xid, event.at) for event in snapshot.events],
    )


@get("/api/hardware/history", tags=["Hardware"])
async def hardware_history(
    principal: NamedDependency[Principal],  # noqa: ARG001 (asking for it is the check)
    hardware_records: NamedDependency[History],
    minutes: Annotated[int, Parameter(ge=1, le=MINUTES_MAX)] = MINUTES,
) -> HistoryView:
    """The last so many minutes of every device, in at most 240 steps."""
    return HistoryView(minutes, await hardware_records.read(minutes))


def _view(device: Device, sample: Sample | None, *, is_admin: bool) -> DeviceView:
    absent = dict(device.absent)
    if sample is None:
        absent["sample"] = "the device did not answer"
        sample_at, sample = None, Sample(uuid=device.uuid, at=datetime.min)  # noqa: DTZ901 (not shown)
    else:
        sample_at = sample.at
        absent |= sample.absent
    processes = None
    if sample.processes is not None:
        processes = [ProcessView(one.pid if is_admin else None, one.used_bytes) for one in sample.processes]
    return DeviceView(
        index=device.index,
        uuid=device.uuid,
        kind=device.kind,
        provider=device.provider,
        vendor=device.vendor,
        name=device.name,
        memory_bytes=device.memory_bytes,
        memory_is_shared=device.memory_is_shared,
        driver=device.driver,
        pci_address=device.pci_address,
        numa_node=device.numa_node,
        compute_capability=device.compute_capability,
        cores=device.cores,
        parent=device.parent,
        is_divided=device.is_divided,
        sampled_at=sample_at,
        used_bytes=sample.used_bytes,
        reserved_bytes=sample.reserved_bytes,
        free_bytes=0 if device.is_divided else sample.free_bytes,
        utilisation_percent=sample.utilisation_percent,
        memory_utilisation_percent=sample.memory_utilisation_percent,
        power_mw=sample.power_mw,
        power_limit_mw=sample.power_limit_mw,
        energy_mj=sample.energy_mj,
        temperature_c=sample.temperature_c,
        throttle=None if sample.throttle is None else list(sample.throttle),
        processes=processes,
        absent=absent,
    )
