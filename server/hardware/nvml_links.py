"""How NVIDIA GPUs reach each other: NVLink first, then the nearest common ancestor in the PCIe tree.

Two GPUs that both have links to an NVSwitch reach each other through it: NVML names only the switch as the remote end.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import pynvml  # type: ignore[import-untyped]
from msgspec.structs import replace

from server.hardware.devices import Device, Link

Handle: TypeAlias = Any

ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, ValueError)
# nvml.h, nvmlGpuTopologyLevel_t: on one board, behind one switch, behind several switches, behind the host's bridge, in
# one NUMA node, across nodes.
LEVELS: dict[int, Link] = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "pcie_switch",
    pynvml.NVML_TOPOLOGY_SINGLE: "pcie_switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "pcie_switch",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "host_bridge",
    pynvml.NVML_TOPOLOGY_NODE: "numa",
    pynvml.NVML_TOPOLOGY_SYSTEM: "system",
}


def join(found: Sequence[Device], whole: Sequence[tuple[Device, Handle]]) -> list[Device]:
    """All devices, where whole GPUs know their links to each other."""
    by_address = {device.pci_address: device.uuid for device, _ in whole if device.pci_address}
    links: dict[str, dict[str, Link]] = {device.uuid: {} for device, _ in whole}
    switched: list[str] = []
    for place, (device, handle) in enumerate(whole):
        for other, its in whole[place + 1 :]:
            if (level := _level(handle, its)) is not None:
                links[device.uuid][other.uuid] = level
    for device, handle in whole:
        peers, is_switched = _nvlinks(handle)
        for address in peers:
            if (uuid := by_address.get(address)) is not None and uuid != device.uuid:
                links[device.uuid][uuid] = links[uuid][device.uuid] = "nvlink"
        if is_switched:
            for other_uuid in switched:
                links[device.uuid][other_uuid] = links[other_uuid][device.uuid] = "nvlink"
            switched.append(device.uuid)
    return [replace(device, links=links.get(device.uuid, {})) for device in found]


def _level(one: Handle, other: Handle) -> Link | None:
    try:
        return LEVELS.get(pynvml.nvmlDeviceGetTopologyCommonAncestor(one, other))
    except ERRORS:
        return None


def _nvlinks(handle: Handle) -> tuple[set[str], bool]:
    """PCI addresses at the other ends of links that are up, and whether one of them leads to a switch."""
    peers: set[str] = set()
    is_switched = False
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                is_switched = True
                continue
            pci = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)
            peers.add(f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0")
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_InvalidArgument):
            break  # no NVLink, or no more of them
        except ERRORS:
            continue
    return peers, is_switched
