"""How large a network is, for those who do not compute with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """How large a network is. All widths are multiples of 32, the block of llama.cpp's quantised types."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
