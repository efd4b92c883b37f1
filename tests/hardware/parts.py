"""A provider that does what a test says."""

import threading
from collections.abc import Callable, Sequence

from server.hardware.devices import Device, Sample
from tests.clocks import BEGINNING

GIB = 1 << 30


def gpu(uuid: str, provider: str = "made") -> Device:
    """A GPU with 80 GiB."""
    return Device(provider=provider, uuid=uuid, kind="gpu", vendor="nvidia", name=f"GPU {uuid}", memory_bytes=80 * GIB)


class Made:
    """A provider. `devices` and `sample` of it can be replaced at will.

    Attributes:
        gate: while it is closed (cleared), asking hangs.
        asked: how often devices were sampled.
    """

    def __init__(self, name: str = "made", uuids: Sequence[str] = ("a",)) -> None:
        self.name = name
        self.listed: Callable[[], Sequence[Device]] = lambda: [gpu(uuid, name) for uuid in uuids]
        self.sampled: Callable[[Device], Sample] = lambda device: Sample(uuid=device.uuid, at=BEGINNING, used_bytes=GIB)
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()
        self.asked = 0

    def devices(self) -> Sequence[Device]:
        """What `listed` says."""
        return self.listed()

    def sample(self, device: Device) -> Sample:
        """What `sampled` says, when the gate is open."""
        self.asked += 1
        assert self.gate.wait(timeout=30)
        return self.sampled(device)

    def close(self) -> None:
        """Note it."""
        self.closed.set()
