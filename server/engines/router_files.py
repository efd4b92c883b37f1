"""Which file a model of llama-server's router comes from, and what it is started with.

The router tells of each model the arguments of its process, in `GET /models` under `status.args`, whether it runs or
not: the router's own options and those of the model's preset, rendered by their names (llama.cpp's
tools/server/server-models.cpp and common/preset.cpp, read at commit 00dd081, 2026).

Without `--ctx-size` llama.cpp takes as much context as fits into what is free, at least 4096 tokens (`--fit-ctx`).
Those are counted; the rest is learned when the model is loaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from server.messages import ModelMemory

FIT_CONTEXT_TOKENS_MIN = 4096
MODEL = ("--model", "-m")
CONTEXT = ("--ctx-size", "-c")
SLOTS = ("--parallel", "--n-parallel", "-np")
CACHE = ("--cache-type-k", "-ctk")
LAYERS = ("--n-gpu-layers", "--gpu-layers", "-ngl")
NUMBER_DIGITS_MAX = 9


class Sizer(Protocol):
    """Reads the header of a model's file; None where it cannot be followed. See server/hardware/room.py."""

    def __call__(
        self, path: Path, *, context_tokens: int, slots: int, cache_type: str, on_cpu: bool
    ) -> ModelMemory | None:
        """What it takes. Raises InvalidRequest for numbers and types that there are not."""
        ...


class RouterFile(Struct, frozen=True):
    """A model's file, and what of its arguments bears on memory; `context_tokens` is of each slot."""

    path: Path
    context_tokens: int
    slots: int
    cache_type: str
    on_cpu: bool


def file_of(arguments: object) -> RouterFile | None:
    """What a process with these arguments loads; None where they name no file, or are none."""
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        return None
    path = _value(arguments, MODEL)
    if not path or not Path(path).is_absolute():
        return None
    slots = max(_number(_value(arguments, SLOTS)), 1)
    context = _number(_value(arguments, CONTEXT)) or FIT_CONTEXT_TOKENS_MIN
    return RouterFile(
        path=Path(path),
        context_tokens=max(context // slots, 1),
        slots=slots,
        cache_type=_value(arguments, CACHE) or "f16",
        on_cpu=_value(arguments, LAYERS) == "0",
    )


def _value(arguments: Sequence[str], names: Sequence[str]) -> str:
    """The word after the last of these options: a later one replaces an earlier one."""
    places = [place for place, word in enumerate(arguments[:-1]) if word in names]
    return arguments[places[-1] + 1] if places else ""


def _number(word: str) -> int:
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= NUMBER_DIGITS_MAX else 0
