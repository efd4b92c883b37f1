"""The shape of a model in safetensors: a folder with config.json, or a repository in the Hugging Face cache.

A safetensors file begins with a length (u64) and so many bytes of JSON: per tensor its dtype, its shape and where its
bytes begin and end. Models in several files have an index (`model.safetensors.index.json`) that maps tensors to files.
In the cache a repository is a folder `models--owner--name` with `refs/main` naming one of its `snapshots`.

Names in an index are somebody else's: only plain names of files in the same folder are opened, each once.
"""

import struct
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

import msgspec

from server.hardware.config_layers import shape_from_config
from server.hardware.shapes import WEIGHTS_BYTES_MAX, ModelShape, UnreadableModel, checked

LENGTH = struct.Struct("<Q")
# The bound of the safetensors library itself.
HEADER_BYTES_MAX = 100_000_000
CONFIG_BYTES_MAX = 16 << 20
INDEX_BYTES_MAX = 128 << 20
FILES_MAX = 2_000
CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
SUFFIX = ".safetensors"
METADATA = "__metadata__"
REVISION_LETTERS_MAX = 100


class _Tensor(msgspec.Struct):
    """An entry of a header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct):
    """The part of an index that is needed."""

    weight_map: dict[str, str]


def read_safetensors(folder: Path) -> ModelShape:
    """Read config.json and the headers of all files of the model in `folder`.

    Raises:
        UnreadableModel: something is missing, cut off, not what it should be, or claims what cannot be.
    """
    folder = _snapshot(folder)
    config = _json(folder / CONFIG, CONFIG_BYTES_MAX, dict[str, Any])
    weight_bytes: Counter[str] = Counter()
    names: set[str] = set()
    for path in _files(folder):
        for name, tensor in _header(path).items():
            if name in names:
                raise UnreadableModel(f"Tensor {name[:80]} is in two files of {folder.name}.")
            names.add(name)
            begin, end = tensor.data_offsets
            weight_bytes[tensor.dtype[:20]] += end - begin
    if not names:
        raise UnreadableModel(f"The files of {folder.name} hold no tensors.")
    return shape_from_config(config, weight_bytes=dict(sorted(weight_bytes.items())), tensor_count=len(names))


def _snapshot(folder: Path) -> Path:
    """The folder with config.json: `folder`, or the snapshot that its refs/main names."""
    if not folder.name.startswith("models--") or (folder / CONFIG).exists():
        return folder
    try:
        with (folder / "refs" / "main").open("rb") as file:
            revision = file.read(REVISION_LETTERS_MAX).decode(errors="replace").strip()
    except OSError as error:
        raise UnreadableModel(f"{folder} names no snapshot (refs/main): {error.strerror}.") from None
    if not revision.isalnum():
        raise UnreadableModel(f"{folder / 'refs' / 'main'} does not name a snapshot.")
    return folder / "snapshots" / revision


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).exists():
        listed = sorted(set(_json(folder / INDEX, INDEX_BYTES_MAX, _Index).weight_map.values()))
        for name in listed:
            if PurePath(name).name != name or not name.endswith(SUFFIX):
                raise UnreadableModel(f"{INDEX} names {name[:80]!r}, which is no file of this folder.")
        files = [folder / name for name in listed]
    elif (folder / SINGLE).exists():
        files = [folder / SINGLE]
    else:
        files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise UnreadableModel(f"There are no {SUFFIX} files in {folder}.")
    if len(files) > FILES_MAX:
        raise UnreadableModel(f"{folder.name} has {len(files)} files of weights; at most {FILES_MAX} are read.")
    return files


def _header(path: Path) -> dict[str, _Tensor]:
    try:
        with path.open("rb") as file:
            first = file.read(LENGTH.size)
            if len(first) < LENGTH.size:
                raise UnreadableModel(f"{path.name} is cut off: it has only {len(first)} bytes.")
            (length,) = LENGTH.unpack(first)
            size = path.stat().st_size
            if length > min(HEADER_BYTES_MAX, size - LENGTH.size):
                raise UnreadableModel(f"{path.name} claims a header of {length} bytes in a file of {size}.")
            text = file.read(length)
    except OSError as error:
        raise UnreadableModel(f"{path} cannot be read: {error.strerror}.") from None
    entries = _decode(text, dict[str, msgspec.Raw], path.name)
    entries.pop(METADATA, None)
    tensors = {name: _decode(entry, _Tensor, f"{path.name}, tensor {name[:80]}") for name, entry in entries.items()}
    for name, tensor in tensors.items():
        begin, end = (checked(f"an offset of {name[:80]}", at, most=WEIGHTS_BYTES_MAX) for at in tensor.data_offsets)
        if begin > end or LENGTH.size + length + end > size:
            raise UnreadableModel(f"{path.name} is cut off, or its header is wrong: {name[:80]} ends at byte {end}.")
    return tensors


def _json(path: Path, bytes_max: int, kind: Any) -> Any:  # noqa: ANN401 (what `kind` says)
    try:
        size = path.stat().st_size
        if size > bytes_max:
            raise UnreadableModel(f"{path.name} has {size} bytes; at most {bytes_max} are read.")
        text = path.read_bytes()
    except OSError as error:
        raise UnreadableModel(f"{path} cannot be read: {error.strerror}.") from None
    return _decode(text, kind, path.name)


def _decode(text: bytes | msgspec.Raw, kind: Any, name: str) -> Any:  # noqa: ANN401 (what `kind` says)
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableModel(f"{name} is not what it should be: {str(error)[:120]}.") from None
