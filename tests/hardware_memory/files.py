"""Small model files: GGUF by the gguf package's own writer, safetensors by hand."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Keys = Mapping[str, int | float | str | list[int] | list[bool]]
LLAMA: Keys = {
    "block_count": 4,
    "embedding_length": 512,
    "feed_forward_length": 1024,
    "context_length": 2048,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
}


def write_gguf(
    path: Path,
    keys: Keys,
    *,
    architecture: str = "llama",
    tokens: int = 100,
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
) -> Path:
    """A GGUF file whose tensors (extents as ggml counts them, rows first) are there by name only."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        name = f"{architecture}.{key}"
        match value:
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case list():
                writer.add_array(name, value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"word{number}" for number in range(tokens)])
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    for name, extents in (tensors or {"token_embd.weight": (512, 100), "output.weight": (512, 100)}).items():
        size = int(np.prod(extents)) // block * block_bytes
        rows = [*reversed(extents)]
        rows[-1] = rows[-1] // block * block_bytes
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, int]]) -> Path:
    """A safetensors file: by name a dtype and how many bytes of it there are."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [size // 2], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return path


def write_folder(folder: Path, config: object, files: Mapping[str, Mapping[str, tuple[str, int]]]) -> Path:
    """A model's folder: config.json, the files, and an index where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, tensors in files.items():
        write_safetensors(folder / name, tensors)
    if len(files) > 1:
        listed = {tensor: name for name, tensors in files.items() for tensor in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return folder
