# ruff: noqa: INP001 (a package of its own)
"""An accelerator whose driver keeps a folder for each device, named by EXAMPLE_ACCELERATORS.

A folder holds memory_total and memory_used, in bytes. Everything else is absent, and says so.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from server.clock import Clock
from server.hardware.devices import Absent, Device, Sample


class ExampleAccelerators:
    """The provider."""

    name = "example"

    def __init__(self, clock: Clock, folder: str) -> None:
        self._clock = clock
        self._folder = folder
        self._root = Path(folder)

    def devices(self) -> Sequence[Device]:
        """One for each folder."""
        if not self._folder or not self._root.is_dir():
            raise Absent("EXAMPLE_ACCELERATORS names no folder")
        return [
            Device(
                provider=self.name,
                uuid=f"EXAMPLE-{folder.name}",
                kind="npu",
                vendor="example",
                name=f"Example accelerator {folder.name}",
                memory_bytes=int((folder / "memory_total").read_text()),
            )
            for folder in sorted(self._root.iterdir())
        ]

    def sample(self, device: Device) -> Sample:
        """What one is doing."""
        used = int((self._root / device.uuid.removeprefix("EXAMPLE-") / "memory_used").read_text())
        free = None if device.memory_bytes is None else device.memory_bytes - used
        untold = ("utilisation_percent", "power_mw", "temperature_c", "processes")
        return Sample(
            uuid=device.uuid,
            at=self._clock.now(),
            used_bytes=used,
            free_bytes=free,
            absent=dict.fromkeys(untold, "this driver does not tell"),
        )

    def close(self) -> None:
        """Nothing is held."""


def open_provider(clock: Clock) -> ExampleAccelerators:
    """What the entry point names."""
    return ExampleAccelerators(clock, os.environ.get("EXAMPLE_ACCELERATORS", ""))
