"""On which devices the models go.

Each model gets one device, or a group of devices that it is spread over evenly. A device or group is a box with a
window of its own, so groups that share a device would not be independent: a device is alone or in one group, never both
and never in two. Models may share a box.

This is bin packing, which has no fast exact answer, so the order decides: the largest first (best-fit decreasing; for
plain packing it needs at most 11/9 of the best number of bins; Johnson 1973), each to

1. the single device with the least room to spare that holds it: small gaps are filled, large ones kept for what is
   still to come;
2. else, if it may be split, the smallest group of devices that nobody uses yet, and among these the best linked: a
   group is as fast as its worst link, because every layer (or every token, in tensor parallelism) crosses all of them;
   then the one with the least room to spare. A group that is there already is taken before a new one is made;
3. else nowhere, and it is told how many bytes are missing.

Where models can be loaded when they are wanted, "nowhere" is too hard: `place_in_turns` gives a model that found no
room a box that holds it alone, as if nobody else were there; on that box they take turns (server/engines/residency.py).

Every device keeps headroom (memory.headroom_bytes of its free bytes). Pure and deterministic: the answer depends on the
set of models and devices, not on their order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from server.hardware.memory import headroom_bytes

# From best to worst, as server/hardware/devices.py names them.
LINKS = ("nvlink", "pcie_switch", "host_bridge", "numa", "system")
# All groups of 16 devices are 65 519; a larger box is searched among its first 16 free devices.
DEVICES_MAX = 16
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Demand:
    """A model that wants a place.

    Attributes:
        needed_bytes: the high end of its estimate.
        part_overhead_bytes: what every device of a group takes besides its share (context, a copy of the buffers).
        splittable: whether its engine can spread it over devices.
    """

    model: str
    needed_bytes: int
    splittable: bool = False
    part_overhead_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A device, or a group of them, and the models on it. Each box has a window of its own."""

    devices: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model goes.

    Attributes:
        devices: empty where it fits nowhere.
        why: a sentence.
        missing_bytes: 0 where it has a place, else what the best place lacks.
        in_turns: it does not fit beside all others that are there.
    """

    model: str
    devices: tuple[str, ...]
    why: str
    missing_bytes: int = 0
    in_turns: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All places, by model, and the boxes that come of them, by device."""

    places: tuple[Place, ...]
    boxes: tuple[Box, ...]

    def place(self, model: str) -> Place:
        """That of `model`. Raises KeyError."""
        for place in self.places:
            if place.model == model:
                return place
        raise KeyError(model)


def place(
    free_bytes: Mapping[str, int], demands: Iterable[Demand], links: Mapping[frozenset[str], str] | None = None
) -> Plan:
    """Give every model a place, or say why it has none.

    Args:
        free_bytes: of each device, before any of these models is loaded.
        demands: the models; their names differ.
        links: the class (LINKS) of each pair of devices; a pair that is not there is "system".

    Raises:
        ValueError: two models of one name, a negative size, or a link class that there is not.
    """
    wanted = _ordered(demands)
    _check(free_bytes, wanted, links or {})
    room = _Room(free_bytes, links or {})
    return _plan([room.take(demand) for demand in wanted], room)


def place_in_turns(
    free_bytes: Mapping[str, int], demands: Iterable[Demand], links: Mapping[frozenset[str], str] | None = None
) -> Plan:
    """Like `place`, but a model that fits only alone shares a box with others, where they take turns.

    Raises:
        ValueError: as `place`.
    """
    wanted = _ordered(demands)
    plan = place(free_bytes, wanted, links)
    room = _Room(free_bytes, links or {})
    room.boxes = {box.devices: list(box.models) for box in plan.boxes}
    places = [found if (found := plan.place(demand.model)).devices else room.share(demand) for demand in wanted]
    return _plan(places, room)


def _ordered(demands: Iterable[Demand]) -> list[Demand]:
    return sorted(demands, key=lambda demand: (-demand.needed_bytes, demand.model))


def _plan(places: Iterable[Place], room: "_Room") -> Plan:
    models = {devices: tuple(sorted(names)) for devices, names in room.boxes.items()}
    return Plan(
        tuple(sorted(places, key=lambda found: found.model)),
        tuple(Box(devices, models[devices]) for devices in sorted(models)),
    )


def _check(free_bytes: Mapping[str, int], wanted: Sequence[Demand], links: Mapping[frozenset[str], str]) -> None:
    if len({demand.model for demand in wanted}) != len(wanted):
        raise ValueError("Two models have the same name.")
    if any(demand.needed_bytes < 0 or demand.part_overhead_bytes < 0 for demand in wanted) or any(
        size < 0 for size in free_bytes.values()
    ):
        raise ValueError("A size is negative.")
    if unknown := set(links.values()) - set(LINKS):
        raise ValueError(f"There is no link class {min(unknown)}.")


class _Room:
    """What is left on each device while models are placed."""

    def __init__(self, free_bytes: Mapping[str, int], links: Mapping[frozenset[str], str]) -> None:
        self._left = {device: max(0, size - headroom_bytes(size)) for device, size in sorted(free_bytes.items())}
        self._links = links
        self.boxes: dict[tuple[str, ...], list[str]] = {}

    def take(self, demand: Demand) -> Place:
        """The place of the next model."""
        for candidates in (self._single(), self._groups(demand)):
            fitting = [devices for devices in candidates if self._missing(demand, devices) == 0]
            if fitting:
                best = min(fitting, key=lambda devices: self._rank(demand, devices))
                return self._settle(demand, best)
        return self._refuse(demand)

    def share(self, demand: Demand) -> Place:
        """The place of a model that was refused, in a room that nobody has filled yet; nothing is taken for it."""
        fitting = [found for found in self._single() + self._groups(demand) if self._missing(demand, found) == 0]
        if not fitting:
            return self._refuse(demand)
        best = min(fitting, key=lambda found: (len(found), len(self.boxes.get(found, ())), self._rank(demand, found)))
        others = self.boxes.setdefault(best, [])
        why = f"{', '.join(best)} holds it, though not beside all of {', '.join(others)}: they take turns."
        others.append(demand.model)
        return Place(demand.model, best, why, in_turns=True)

    def _single(self) -> list[tuple[str, ...]]:
        grouped = {device for devices in self.boxes if len(devices) > 1 for device in devices}
        return [(device,) for device in self._left if device not in grouped]

    def _groups(self, demand: Demand) -> list[tuple[str, ...]]:
        """Groups that there are, and those that unused devices could make."""
        if not demand.splittable:
            return []
        used = {device for devices in self.boxes for device in devices}
        unused = [device for device in self._left if device not in used][:DEVICES_MAX]
        new = [group for size in range(2, len(unused) + 1) for group in combinations(unused, size)]
        return [devices for devices in self.boxes if len(devices) > 1] + new

    def _share(self, demand: Demand, devices: tuple[str, ...]) -> int:
        if len(devices) == 1:
            return demand.needed_bytes
        return -(-demand.needed_bytes // len(devices)) + demand.part_overhead_bytes

    def _missing(self, demand: Demand, devices: tuple[str, ...]) -> int:
        share = self._share(demand, devices)
        return sum(max(0, share - self._left[device]) for device in devices)

    def _worst_link(self, devices: tuple[str, ...]) -> int:
        pairs = map(frozenset, combinations(devices, 2))
        return max((LINKS.index(self._links.get(pair, LINKS[-1])) for pair in pairs), default=0)

    def _rank(self, demand: Demand, devices: tuple[str, ...]) -> tuple[bool, int, int, int, tuple[str, ...]]:
        spare = sum(self._left[device] for device in devices) - len(devices) * self._share(demand, devices)
        exists = len(devices) == 1 or devices in self.boxes
        return not exists, len(devices), self._worst_link(devices), spare, devices

    def _settle(self, demand: Demand, devices: tuple[str, ...]) -> Place:
        share = self._share(demand, devices)
        for device in devices:
            self._left[device] -= share
        self.boxes.setdefault(devices, []).append(demand.model)
        left = _gib(min(self._left[device] for device in devices))
        if len(devices) == 1:
            why = f"{devices[0]} holds it whole, with the least room to spare ({left} left beside the headroom)."
        else:
            link = LINKS[self._worst_link(devices)]
            why = (
                f"No single device has {_gib(demand.needed_bytes)} free; {', '.join(devices)} together have, "
                f"as the smallest and best linked group ({link}; {left} left on each)."
            )
        return Place(demand.model, devices, why)

    def _refuse(self, demand: Demand) -> Place:
        candidates = self._single() + self._groups(demand)
        if not candidates:
            why = (
                "There is no device." if not self._left else "Every device belongs to a group, and it cannot be split."
            )
            return Place(demand.model, (), why, demand.needed_bytes)
        missing, devices = min((self._missing(demand, devices), devices) for devices in candidates)
        where = devices[0] if len(devices) == 1 else f"the group {', '.join(devices)}"
        why = (
            f"It needs {_gib(demand.needed_bytes)}; {where} comes nearest and lacks {_gib(missing)} ({missing} bytes)."
        )
        return Place(demand.model, (), why, missing)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
