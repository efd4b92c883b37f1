"""Which class of box this is: low, mid or high, as the seed document (WF-TECH-010) has them.

The seed asks for 8, 16 and 32 GB of memory for the three ("Memory Scaling Projections") and holds contexts of 4096,
16384 and 65536 tokens for feasible on them ("Context Window Scaling"), at 30, 80 and 200 tokens/s ("Throughput Scaling
Projections"). The last is a projection: what a box really does is measured by calibration. The tier says what fits.

Counted is the memory that one model can span: that of all whole GPUs of one vendor together, or that of the largest MIG
slice, since slices cannot be joined. A box without a GPU is low, whatever its RAM: a CPU reads memory too slowly for
the models that would fit. Sizes are what is printed on the box; drivers report up to a tenth less (a 16 GB T4 has
15 GiB with error correction on), so a tenth is allowed for.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from server.hardware.devices import Device

GIB = 1 << 30
# Tenths of a nominal size that must be there.
PRESENT_TENTHS = 9

Name = Literal["low", "mid", "high"]
CONTEXT_TOKENS: dict[Name, int] = {"low": 4_096, "mid": 16_384, "high": 65_536}
NOMINAL_GIB: tuple[tuple[Name, int], ...] = (("high", 32), ("mid", 16))
SEED_TOKENS_PER_S: dict[Name, int] = {"low": 30, "mid": 80, "high": 200}


class Tier(Struct, frozen=True, kw_only=True):
    """The class of a box.

    Attributes:
        memory_bytes: what it was judged by; 0 without a GPU.
        context_tokens: the context that the seed holds for feasible.
        seed_tokens_per_s: what the seed projects, not what was measured.
        why: a sentence with the numbers.
    """

    name: Name
    memory_bytes: int
    context_tokens: int
    seed_tokens_per_s: int
    why: str


def tier_of(devices: Sequence[Device]) -> Tier:
    """Judge a box by its devices."""
    memory_bytes, what = _largest(devices)
    if not memory_bytes:
        return _tier("low", 0, f"No GPU with memory was found{_host(devices)}, so models run on the CPU: low.")
    counted = f"{what}, {memory_bytes / GIB:.1f} GiB together" if " and " in what else what
    for name, nominal_gib in NOMINAL_GIB:
        if memory_bytes * 10 >= nominal_gib * GIB * PRESENT_TENTHS:
            why = f"One model can span {counted}; {name} begins at {nominal_gib} GB less a tenth."
            return _tier(name, memory_bytes, why)
    why = f"One model can span {counted}, and mid begins at {NOMINAL_GIB[-1][1]} GB less a tenth: low."
    return _tier("low", memory_bytes, why)


def _largest(devices: Sequence[Device]) -> tuple[int, str]:
    """The most memory that one model can span, and on what."""
    whole: dict[str, list[Device]] = defaultdict(list)
    found: list[tuple[int, str]] = [(0, "")]
    for device in devices:
        if device.kind == "gpu" and not device.is_divided and device.memory_bytes:
            whole[device.vendor].append(device)
        elif device.kind == "mig" and device.memory_bytes:
            found.append((device.memory_bytes, f"the MIG slice {_sized(device)}"))
    found += [
        (sum(one.memory_bytes or 0 for one in group), " and ".join(map(_sized, group))) for group in whole.values()
    ]
    return max(found)


def _sized(device: Device) -> str:
    return f"{device.name} ({(device.memory_bytes or 0) / GIB:.1f} GiB)"


def _host(devices: Sequence[Device]) -> str:
    hosts = [device for device in devices if device.kind == "cpu" and device.memory_bytes]
    return f" (the host has {(hosts[0].memory_bytes or 0) / GIB:.1f} GiB of RAM)" if hosts else ""


def _tier(name: Name, memory_bytes: int, why: str) -> Tier:
    return Tier(
        name=name,
        memory_bytes=memory_bytes,
        context_tokens=CONTEXT_TOKENS[name],
        seed_tokens_per_s=SEED_TOKENS_PER_S[name],
        why=why,
    )
