"""Classes of boxes, and how devices are joined, as pure rules."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.hardware.devices import LINKS, Device, Kind, Sample, Snapshot, free_bytes, topology_of
from server.hardware.tiers import tier_of
from tests.clocks import BEGINNING

GIB = 1 << 30
ORDER = ["low", "mid", "high"]


def device(uuid: str, gib: float | None = None, kind: Kind = "gpu", vendor: str = "nvidia", **more: object) -> Device:
    """A device of some size."""
    size = None if gib is None else int(gib * GIB)
    plain = Device(provider="test", uuid=uuid, kind=kind, vendor=vendor, name=uuid, memory_bytes=size)
    return replace(plain, **more)


@pytest.mark.parametrize(
    ("devices", "name", "why"),
    [
        ([], "low", "No GPU with memory was found, so models run on the CPU: low."),
        (
            [device("c", 128, "cpu")],
            "low",
            "No GPU with memory was found (the host has 128.0 GiB of RAM), so models run on the CPU: low.",
        ),
        ([device("g", 8)], "low", "One model can span g (8.0 GiB), and mid begins at 16 GB less a tenth: low."),
        ([device("T4", 15)], "mid", "One model can span T4 (15.0 GiB); mid begins at 16 GB less a tenth."),
        ([device("g", 23.99)], "mid", "One model can span g (24.0 GiB); mid begins at 16 GB less a tenth."),
        ([device("g", 31.84)], "high", "One model can span g (31.8 GiB); high begins at 32 GB less a tenth."),
        (
            [device("a", 16), device("b", 16)],
            "high",
            "One model can span a (16.0 GiB) and b (16.0 GiB), 32.0 GiB together; high begins at 32 GB less a tenth.",
        ),
        (
            [device("g", 80, is_divided=True), device("s", 20, "mig"), device("t", 20, "mig")],
            "mid",
            "One model can span the MIG slice s (20.0 GiB); mid begins at 16 GB less a tenth.",
        ),
        (
            [device("n", 12), device("r", 12, vendor="amd"), device("x", None), device("u", 64, "npu")],
            "low",
            "One model can span r (12.0 GiB), and mid begins at 16 GB less a tenth: low.",
        ),
    ],
)  # fmt: skip
def test_tiers(devices: list[Device], name: str, why: str) -> None:
    """By the memory that one model can span, with the numbers in a sentence."""
    tier = tier_of(devices)
    if "MIG slice" in why or "span r" in why:  # two of one size: either may be named
        assert tier.why.replace(" t ", " s ").replace(" n ", " r ") == why
    else:
        assert tier.why == why
    assert tier.name == name


@given(st.lists(st.floats(0.1, 200), max_size=6), st.floats(0.1, 200))
def test_another_gpu_never_lowers_a_tier(sizes: list[float], more: float) -> None:
    """More memory is never a smaller box, and its context grows with it."""
    boxes = [[device(str(place), size) for place, size in enumerate([*sizes, more])][:count] for count in range(8)]
    for smaller, larger in pairwise(map(tier_of, boxes)):
        assert ORDER.index(smaller.name) <= ORDER.index(larger.name)
        assert smaller.context_tokens <= larger.context_tokens


MAYBE_LINK = st.none() | st.sampled_from(LINKS[1:])


@given(st.lists(st.tuples(st.none() | st.integers(0, 1), st.lists(MAYBE_LINK, min_size=5, max_size=5)), max_size=5))
def test_a_topology_is_symmetric(told: list[tuple[int | None, list[object]]]) -> None:
    """Whatever devices say of each other, both directions are one link, and only a device is the same as itself."""
    devices = [
        device(
            str(place),
            numa_node=node,
            links={str(other): link for other, link in enumerate(links) if link is not None and other != place},
        )
        for place, (node, links) in enumerate(told)
    ]
    topology = topology_of(devices)
    for one in devices:
        for other in devices:
            link = topology.between(int(one.uuid), int(other.uuid))
            assert link == topology.between(int(other.uuid), int(one.uuid))
            assert (link == "same") == (one is other)


def test_nodes_join_what_nobody_tells_of() -> None:
    """Within a node, across nodes, and where the node is not known."""
    devices = [device(name, numa_node=node) for name, node in (("a", 0), ("b", 0), ("c", 1), ("d", None))]
    assert topology_of(devices).links[0] == ("same", "numa", "system", "system")
    slices = [device("a", kind="mig", numa_node=0), device("b", kind="mig", numa_node=0)]
    assert topology_of(slices).between(0, 1) == "system"


def test_free_memory() -> None:
    """What was sampled; none on a divided GPU; unknown without a sample."""
    whole, divided, silent = device("w", 80), device("d", 80, is_divided=True), device("s", 80)
    samples = {uuid: Sample(uuid=uuid, at=BEGINNING, free_bytes=30 * GIB) for uuid in ("w", "d")}
    snapshot = Snapshot(at=BEGINNING, devices=(whole, divided, silent), samples=samples)
    assert [free_bytes(snapshot, one) for one in snapshot.devices] == [30 * GIB, 0, None]
