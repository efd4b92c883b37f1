"""The shape of a model in GGUF, from its header alone.

The format (gguf-py 0.19, `GGUFReader`): "GGUF", version (u32), tensors (u64), keys (u64); per key its name, a type
(u32) and a value; per tensor its name, a count of dimensions (u32), these (u64 each), a type (u32) and an offset (u64).
A string is a length (u64) and bytes, an array a type, a length and values. Little-endian. The vocabulary is in there
too, so arrays of strings are stepped over instead of becoming 150 000 objects.

Which keys decide what a layer remembers was read in llama.cpp (src/llama-hparams.cpp at 01b77b57, `load_hparams` of
src/llama-model.cpp at 00342301, src/llama-kv-cache-iswa.cpp at 02c28f53) and tried with real loads in xllamacpp 2026.10
(benchmarks/memory.py): explicit head sizes, one number or one per layer; MLA where both `_mla` sizes are given; windows
only for the families of `WINDOW_PATTERNS` (llama.cpp ignores the key for others, such as phi3); recurrent layers where
there are no key-value heads, or by interval.

A header is somebody else's file: every count is checked against what is left of the file before it is believed.
"""

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from server.hardware.gguf_layers import shape_from
from server.hardware.shapes import WEIGHTS_BYTES_MAX, ModelShape, UnreadableModel

MAGIC = b"GGUF"
HEADER = struct.Struct("<4sIQQ")
VERSIONS = frozenset({2, 3})
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# The largest header seen (Gemma's 262 144 tokens with scores and merges) has 16 MiB.
HEADER_BYTES_MAX = 256 << 20
KEYS_MAX = 65_536
TENSORS_MAX = 262_144
STRINGS_MAX = 4_000_000
NAME_BYTES_MAX = 65_535
TEXT_BYTES_MAX = 4_096
KEPT_MEMBERS_MAX = 4_096
DIMENSIONS_MAX = 4
PARTS_MAX = 1_000
PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
TOKENS = "tokenizer.ggml.tokens"
# Tables that are looked up, one row a token, and never multiplied with.
INPUT_TABLES = ("token_embd.weight", "per_layer_token_embd.weight")

Value = str | int | float | bool | list[int | float | bool]


@dataclass
class Header:
    """What was read: keys with short values, the lengths of arrays, tensors with their bytes."""

    keys: dict[str, Value] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    weight_bytes: Counter[str] = field(default_factory=Counter)
    tensor_bytes: dict[str, int] = field(default_factory=dict)


def read_gguf(path: Path) -> ModelShape:
    """Read the header of `path`; of all its parts, where it is the first of several.

    Raises:
        UnreadableModel: it is no GGUF, is cut off, claims what cannot be, or lacks what an estimate needs.
    """
    header = Header()
    for part in _parts(path):
        _read_into(header, part)
    if not header.tensor_bytes:
        raise UnreadableModel(f"{path.name} holds no tensors: it is a vocabulary, or the first part of a model.")
    tied = "output.weight" not in header.tensor_bytes
    kept = INPUT_TABLES[1:] if tied else INPUT_TABLES
    return shape_from(
        header.keys,
        vocabulary_size=header.lengths.get(TOKENS, 0),
        weight_bytes=dict(sorted(header.weight_bytes.items())),
        tensor_count=len(header.tensor_bytes),
        input_bytes=sum(header.tensor_bytes.get(name, 0) for name in kept),
    )


def _parts(path: Path) -> list[Path]:
    part = PART.match(path.name)
    if part is None:
        return [path]
    count = int(part["count"])
    if not 1 <= count <= PARTS_MAX:
        raise UnreadableModel(f"{path.name} claims to be one of {count} parts; at most {PARTS_MAX} are read.")
    return [path.with_name(f"{part['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _read_into(header: Header, path: Path) -> None:
    try:
        with path.open("rb") as file:
            size = min(path.stat().st_size, HEADER_BYTES_MAX)
            if size < HEADER.size:
                raise UnreadableModel(f"{path.name} is no GGUF file: it has only {size} bytes.")
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as view:
                _Cursor(path.name, view).read(header)
    except OSError as error:
        raise UnreadableModel(f"{path} cannot be read: {error.strerror}.") from None


class _Cursor:
    """A position in a header. Every read checks what is left first."""

    def __init__(self, name: str, view: mmap.mmap) -> None:
        self._name = name
        self._view = view
        self._at = 0
        self._strings = 0

    def read(self, header: Header) -> None:
        magic, version, tensors, keys = HEADER.unpack_from(self._view)
        self._at = HEADER.size
        if magic != MAGIC:
            raise self._fault("it does not begin with GGUF")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise self._fault("it is big-endian" if swapped else f"its version {version} is not read here, 2 and 3 are")
        if keys > KEYS_MAX or tensors > TENSORS_MAX:
            raise self._fault(f"it claims {keys} keys and {tensors} tensors (limits: {KEYS_MAX}, {TENSORS_MAX})")
        for _ in range(keys):
            name = self._string(NAME_BYTES_MAX)
            (kind,) = self._take("I")
            self._value(name, kind, header)
        for tensor, quantization, size in self._tensors(tensors):
            if tensor in header.tensor_bytes:
                raise self._fault(f"tensor {tensor[:80]} is there twice")
            header.tensor_bytes[tensor] = size
            header.weight_bytes[quantization] += size

    def _tensors(self, count: int) -> Iterator[tuple[str, str, int]]:
        for _ in range(count):
            name = self._string(NAME_BYTES_MAX)
            (dimensions,) = self._take("I")
            if dimensions > DIMENSIONS_MAX:
                raise self._fault(f"tensor {name[:80]} claims {dimensions} dimensions")
            extents = self._take("Q" * dimensions)
            kind, _ = self._take("IQ")
            numbers = 1
            for extent in extents:
                numbers *= extent
            try:
                quantization = GGMLQuantizationType(kind)
            except ValueError:
                raise self._fault(f"tensor {name[:80]} is of type {kind}, which gguf 0.19 does not know") from None
            block, block_bytes = GGML_QUANT_SIZES[quantization]
            size = numbers // block * block_bytes
            if size > WEIGHTS_BYTES_MAX:
                raise self._fault(f"tensor {name[:80]} claims {size} bytes")
            yield name, quantization.name, size

    def _value(self, name: str, kind: int, header: Header) -> None:
        if kind == STRING:
            header.keys[name] = self._string()
        elif kind == ARRAY:
            self._array(name, header)
        elif kind in CODES:
            (header.keys[name],) = self._take(CODES[kind])
        else:
            raise self._fault(f"key {name[:80]} is of type {kind}, which there is not")

    def _array(self, name: str, header: Header) -> None:
        kind, length = self._take("IQ")
        header.lengths[name] = length
        if kind in SIZES:
            size = SIZES[kind] * length
            self._require(size)
            if length <= KEPT_MEMBERS_MAX:
                header.keys[name] = list(struct.unpack_from(f"<{length}{CODES[kind]}", self._view, self._at))
            self._at += size
        elif kind == STRING:
            self._require(8 * length)
            self._strings += length
            if self._strings > STRINGS_MAX:
                raise self._fault(f"it holds more than {STRINGS_MAX} strings")
            for _ in range(length):
                (size,) = self._take("Q")
                self._require(size)
                self._at += size
        else:
            # llama.cpp knows no arrays of arrays either.
            raise self._fault(f"key {name[:80]} is an array of type {kind}")

    def _string(self, bytes_max: int | None = None) -> str:
        (size,) = self._take("Q")
        self._require(size)
        if bytes_max is not None and size > bytes_max:
            raise self._fault(f"a name has {size} bytes")
        begin, self._at = self._at, self._at + size
        return self._view[begin : begin + min(size, bytes_max or TEXT_BYTES_MAX)].decode(errors="replace")

    def _take(self, codes: str) -> tuple[int, ...]:
        layout = struct.Struct(f"<{codes}")
        self._require(layout.size)
        values: tuple[int, ...] = layout.unpack_from(self._view, self._at)
        self._at += layout.size
        return values

    def _require(self, size: int) -> None:
        if size > len(self._view) - self._at:
            limit = " (or is longer than any real one)" if len(self._view) == HEADER_BYTES_MAX else ""
            raise self._fault(f"its header is cut off at byte {len(self._view)}{limit}")

    def _fault(self, reason: str) -> UnreadableModel:
        return UnreadableModel(f"{self._name} cannot be followed: {reason}.")
