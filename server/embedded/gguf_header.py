"""Reads as much of a GGUF file as must be known before llama.cpp reads it.

The gguf package can read all of it, and builds an object for each of 150,000 tokens on the way. Here values are stepped
over. The format: "GGUF", version (u32), tensors (u64), keys (u64), then per key its name, a type (u32) and a value; a
string is a length (u64) and bytes, an array a type, a length and values. All little-endian.
"""

import mmap
import os
import struct
from pathlib import Path

from server.errors import StartError

MAGIC = b"GGUF"
HEADER = struct.Struct("<4sIQQ")
LENGTH = struct.Struct("<Q")
TYPE = struct.Struct("<I")
ARRAY = struct.Struct("<IQ")
STRING_TYPE, ARRAY_TYPE = 8, 9
# By type number: u8, i8, u16, i16, u32, i32, f32, bool, string, array, u64, i64, f64.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def check(path: Path) -> None:
    """Find out cheaply that `path` is no model.

    Raises:
        StartError: it does not exist, cannot be read, or is no GGUF file.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except FileNotFoundError:
        raise StartError(f"The model file {path} does not exist.") from None
    except OSError as error:
        raise StartError(f"The model file {path} cannot be read: {error.strerror}.") from None
    if magic != MAGIC:
        raise StartError(f"The model file {path} is no GGUF file (it does not begin with GGUF).")


def declares(path: str | os.PathLike[str], suffix: str) -> bool:
    """Whether the model at `path` has a key that ends in `suffix`; False also for a header that cannot be followed."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            _, _, _, keys = HEADER.unpack_from(view)
            position = HEADER.size
            for _ in range(keys):
                end = _after_string(view, position)
                if view[position + LENGTH.size : end].endswith(suffix.encode()):
                    return True
                (kind,) = TYPE.unpack_from(view, end)
                position = _after_value(view, end + TYPE.size, kind)
        except (struct.error, KeyError):
            # llama.cpp will say what is wrong with it, and better.
            return False
    return False


def _after_string(view: mmap.mmap, position: int) -> int:
    (length,) = LENGTH.unpack_from(view, position)
    return position + LENGTH.size + int(length)


def _after_value(view: mmap.mmap, position: int, kind: int) -> int:
    if kind == STRING_TYPE:
        return _after_string(view, position)
    if kind != ARRAY_TYPE:
        return position + SIZES[kind]
    member, length = ARRAY.unpack_from(view, position)
    position += ARRAY.size
    if member in SIZES:
        return position + SIZES[member] * int(length)
    for _ in range(length):
        position = _after_value(view, position, member)
    return position
