"""What the box is, in one line that stays the same as long as the box does."""

from collections import Counter

from server.hardware.devices import Snapshot

NAME_CHARACTERS_MAX = 500


def box_of(snapshot: Snapshot) -> str:
    """Its accelerators, such as `2 x NVIDIA H100 80GB HBM3`; the processor where there are none; empty until known.

    Slices of a GPU count, the GPU that they are cut from does not.
    """
    accelerators = [device.name for device in snapshot.devices if device.kind != "cpu" and not device.is_divided]
    counted = Counter(accelerators or [device.name for device in snapshot.devices if device.kind == "cpu"])
    names = [name if count == 1 else f"{count} x {name}" for name, count in sorted(counted.items())]
    return ", ".join(names)[:NAME_CHARACTERS_MAX]
