"""What `wirthforge models estimate` shows."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from server.hardware.memory import GIB, MIB, MemoryEstimate, Part, estimate, headroom_bytes, seed_estimate, token_bytes
from server.hardware.shapes import ModelShape

MEMORY = Path("/proc/meminfo")
CONTEXT_TOKENS = 4096
# Without being told, no model is estimated at the million tokens that some claim.
CONTEXT_TOKENS_MAX = 32_768


class Found(NamedTuple):
    """An estimate, and what it is compared with."""

    shape: ModelShape
    estimate: MemoryEstimate
    free_bytes: int | None

    @property
    def verdict(self) -> str:
        """Whether it fits: the whole band, the value only, or neither; empty where nobody knows what is free."""
        if self.free_bytes is None:
            return ""
        usable = self.free_bytes - headroom_bytes(self.free_bytes)
        if self.estimate.high_bytes <= usable:
            return "fits"
        if self.estimate.expected_bytes <= usable:
            return "may fit"
        return "does not fit"

    def json(self) -> str:
        """One object, all sizes in bytes."""
        found = {
            "architecture": self.shape.architecture,
            "source": self.shape.source,
            "context_tokens": self.estimate.context_tokens,
            "slots": self.estimate.slots,
            "cache_type": self.estimate.cache_type,
            "parts": self.estimate.parts,
            "expected_bytes": self.estimate.expected_bytes,
            "low_bytes": self.estimate.low_bytes,
            "high_bytes": self.estimate.high_bytes,
            "token_bytes": token_bytes(self.shape, self.estimate.cache_type),
            "seed_bytes": seed_estimate(self.estimate.context_tokens),
            "free_bytes": self.free_bytes,
            "verdict": self.verdict,
            "doubts": self.estimate.doubts,
        }
        return msgspec.json.encode(found).decode()

    def table(self, name: str) -> str:
        """Lines for people."""
        shape, taken = self.shape, self.estimate
        kinds = [f"{shape.attention_layers} attention"]
        if shape.windowed_layers:
            kinds.append(f"{shape.windowed_layers} of them sliding")
        if shape.recurrent_layers:
            kinds.append(f"{shape.recurrent_layers} recurrent")
        layers = f"{len(shape.layers)} layers ({', '.join(kinds)})"
        token_kib = token_bytes(shape, taken.cache_type) / 1024
        lines = [
            f"{name}: {shape.architecture}, {layers}, {shape.tensor_count} tensors",
            f"{taken.slots} x {taken.context_tokens} tokens, cache {taken.cache_type}: {token_kib:.1f} KiB a token",
            "",
            f"{'':<20} {'MiB':>10} {'low':>10} {'high':>10}",
            *(_row(part.name, part) + f"  {part.reason}".rstrip() for part in taken.parts),
            _row("total", taken),
            f"{'seed document':<20} {seed_estimate(taken.context_tokens) / MIB:>10.1f}",
        ]
        lines += [f"Doubt: {doubt}." for doubt in taken.doubts]
        if self.free_bytes is not None:
            kept = headroom_bytes(self.free_bytes)
            lines += ["", f"{self.free_bytes / GIB:.1f} GiB free, {kept / GIB:.1f} GiB of it kept: {self.verdict}."]
        return "\n".join(lines)


def of(
    shape: ModelShape,
    *,
    context_tokens: int | None,
    slots: int,
    cache_type: str,
    accelerator: bool | None,
    free_bytes: int | None,
) -> Found:
    """Estimate, and look what is free where that is main memory and not told.

    Args:
        accelerator: on a GPU. None: safetensors are, as engines that read them need one, and GGUF files are not.
    """
    if accelerator is None:
        accelerator = shape.source == "safetensors"
    usual = min(shape.context_tokens or CONTEXT_TOKENS, CONTEXT_TOKENS_MAX)
    context = usual if context_tokens is None else context_tokens
    found = estimate(shape, context_tokens=context, slots=slots, cache_type=cache_type, accelerator=accelerator)
    if free_bytes is None and not accelerator:
        free_bytes = free_memory_bytes()
    return Found(shape, found, free_bytes)


def free_memory_bytes(path: Path = MEMORY) -> int | None:
    """What Linux says can be had without swapping; None where it says nothing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _row(name: str, band: Part | MemoryEstimate) -> str:
    sizes = (band.expected_bytes, band.low_bytes, band.high_bytes)
    return f"{name:<20}" + "".join(f" {size / MIB:>10.1f}" for size in sizes)
