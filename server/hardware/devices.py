"""Devices, what they tell, and how they are joined.

Theory. A box has devices: GPUs, slices of GPUs (MIG), NPUs and the host itself (kind `cpu`: its cores and its memory).
A provider knows one family of them. It is asked from a worker thread, since drivers block, and it never invents: what a
device cannot give is None, and `absent` says why, in words that an admin can act on ("Not Supported", "needs amdsmi").
Zero means that zero was read.

`uuid` names a device for good, across restarts; `index` is its place in one list of devices, and what `Topology` counts
by. Bytes are bytes, power is in milliwatts, energy in millijoules since the driver was loaded, temperature in Celsius.

Memory of three kinds adds up for NVIDIA (NVML's nvmlMemory_v2): total = reserved + used + free, where the driver and
its firmware hold what is reserved. What can be given to a model is `free_bytes`, never total - used.

A GPU that is divided into MIG slices is listed for its power and temperature; nothing can be placed on it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Protocol, runtime_checkable

from msgspec import Meta, Struct, field

Kind = Literal["gpu", "mig", "npu", "cpu"]
# From best to worst; `same` is a device and itself.
Link = Literal["same", "nvlink", "pcie_switch", "host_bridge", "numa", "system"]
LINKS: tuple[Link, ...] = ("same", "nvlink", "pcie_switch", "host_bridge", "numa", "system")

# What a plugin tells is checked against these (monitor.py).
Amount = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Celsius = Annotated[int, Meta(ge=-273, le=10_000)]

DEVICES_MAX = 256
PROCESSES_MAX = 256


class Absent(Exception):
    """A provider has nothing to tell here, which is normal: no driver, no such bus. The message says why."""


class Device(Struct, frozen=True, kw_only=True):
    """One device, and what does not change while the box runs.

    Attributes:
        vendor: nvidia, amd, intel or whatever the device says.
        memory_bytes: all that it has, reserved memory included.
        memory_is_shared: it is the host's memory, not the device's own.
        pci_address: as Linux writes it (0000:65:00.0).
        compute_capability: of an NVIDIA GPU, as "9.0".
        parent: the uuid of the GPU that a MIG slice is cut from.
        is_divided: a GPU in MIG mode.
        cores: of a host, as many as this server may use.
        links: how it reaches other devices, by their uuid, where the provider knows.
    """

    provider: str
    uuid: str
    kind: Kind
    vendor: str
    name: str
    index: int = 0
    memory_bytes: Amount | None = None
    memory_is_shared: bool = False
    driver: str | None = None
    pci_address: str | None = None
    numa_node: Amount | None = None
    compute_capability: str | None = None
    parent: str | None = None
    is_divided: bool = False
    cores: Amount | None = None
    links: dict[str, Link] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


class DeviceProcess(Struct, frozen=True, kw_only=True):
    """A program that uses a device; `used_bytes` is None where the driver does not say (containers, WSL)."""

    pid: Amount
    used_bytes: Amount | None = None


class XidEvent(Struct, frozen=True, kw_only=True):
    """A fault that the NVIDIA driver reported; NVIDIA's "XID Errors" lists what the numbers mean."""

    uuid: str
    xid: int
    at: datetime


class Sample(Struct, frozen=True, kw_only=True):
    """What a device was doing at a moment.

    Attributes:
        utilisation_percent: of the last moment, in which any kernel ran (GPU) or cores were busy (host).
        memory_utilisation_percent: part of the time in which memory was read or written.
        power_limit_mw: what the device is held to just now.
        energy_mj: a counter; only differences mean something.
        throttle: what keeps its clocks down, by name; empty: nothing.
        xids: faults since the last sample.
        absent: why a reading is None, by its name.
    """

    uuid: str
    at: datetime
    used_bytes: Amount | None = None
    reserved_bytes: Amount | None = None
    free_bytes: Amount | None = None
    utilisation_percent: Percent | None = None
    memory_utilisation_percent: Percent | None = None
    power_mw: Amount | None = None
    power_limit_mw: Amount | None = None
    energy_mj: Amount | None = None
    temperature_c: Celsius | None = None
    throttle: tuple[str, ...] | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    xids: tuple[Amount, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """A family of devices. Also what a plugin implements: see providers.py.

    All calls come from one thread of the provider's own, one at a time. A call may block for seconds; one that blocks
    longer is waited for in the background, and its devices are left out meanwhile.
    """

    @property
    def name(self) -> str:
        """Short, and the same for ever: it names the provider in logs and answers."""
        ...

    def devices(self) -> Sequence[Device]:
        """All devices, looked up anew. Raises Absent where there is nothing to look at."""
        ...

    def sample(self, device: Device) -> Sample:
        """What one of those devices is doing. A reading that fails is None with a reason; the others stand."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class Topology(Struct, frozen=True):
    """The link between each two devices: `links[a][b]`, by index. It is symmetric, with `same` on the diagonal.

    `nvlink`: NVLink, also through a switch. `pcie_switch`: PCIe without the host. `host_bridge`: through the CPU's PCIe
    bridge. `numa`: within one NUMA node. `system`: across nodes; also where nobody can tell, the worst being assumed,
    and between MIG slices, which have no peer-to-peer at all (NVIDIA's MIG user guide, "Application Considerations").
    """

    links: tuple[tuple[Link, ...], ...] = ()

    def between(self, one: int, other: int) -> Link:
        """The link between two devices, by index."""
        return self.links[one][other]


class Snapshot(Struct, frozen=True, kw_only=True):
    """The box at a moment.

    Attributes:
        devices: in the order of their indices.
        samples: the newest of each device, by uuid; none from a device that did not answer this time.
        absent: providers that have nothing to tell, by name, and why: a normal state.
        faults: providers in trouble, by name, and what it is.
        events: the newest faults, oldest first.
    """

    at: datetime
    devices: tuple[Device, ...] = ()
    samples: dict[str, Sample] = field(default_factory=dict)
    topology: Topology = Topology()
    absent: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    events: tuple[XidEvent, ...] = ()


def free_bytes(snapshot: Snapshot, device: Device) -> int | None:
    """Memory of a device that can be given to a model now; None where nobody knows; 0 for a divided GPU."""
    if device.is_divided:
        return 0
    sample = snapshot.samples.get(device.uuid)
    return None if sample is None else sample.free_bytes


def topology_of(devices: Sequence[Device]) -> Topology:
    """The matrix of devices, in their order: from what providers say, else from their NUMA nodes.

    Where two devices say different things of each other, the worse one holds.
    """
    return Topology(tuple(tuple(_link(one, other) for other in devices) for one in devices))


def _link(one: Device, other: Device) -> Link:
    if one.uuid == other.uuid:
        return "same"
    told = [link for link in (one.links.get(other.uuid), other.links.get(one.uuid)) if link is not None]
    if told:
        return max(told, key=LINKS.index)
    if "mig" in (one.kind, other.kind) or one.numa_node is None or one.numa_node != other.numa_node:
        return "system"
    return "numa"
