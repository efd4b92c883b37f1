import json
import struct
from pathlib import Path
from typing import Any

import pytest

from server.hardware.headers import read
from server.hardware.shapes import Layer, UnreadableModel
from tests.hardware_memory.files import write_folder, write_safetensors
from tests.hardware_memory.published import LLAMA_8B, MISTRAL_7B, QWEN3_NEXT_80B, Config

ONE = {"model.safetensors": {"a": ("BF16", 64), "b": ("F32", 32)}}
SMALL: Config = {**LLAMA_8B, "num_hidden_layers": 4}


def test_one_file(tmp_path: Path) -> None:
    """Bytes by dtype, from the offsets in the header."""
    shape = read(write_folder(tmp_path / "m", LLAMA_8B, ONE))
    assert shape.weight_bytes == {"BF16": 64, "F32": 32}
    assert shape.layers == (Layer(1024, 1024),) * 32
    assert read(tmp_path / "m" / "model.safetensors") == shape


def test_several_files(tmp_path: Path) -> None:
    """The index names them; each is read once."""
    files = {"a-1.safetensors": {"a": ("BF16", 64), "b": ("BF16", 8)}, "a-2.safetensors": {"c": ("F8_E4M3", 16)}}
    shape = read(write_folder(tmp_path / "m", LLAMA_8B, files))
    assert shape.weight_bytes == {"BF16": 72, "F8_E4M3": 16}
    assert shape.tensor_count == 3


def test_a_repository_in_the_cache(tmp_path: Path) -> None:
    """refs/main names the snapshot, whose files are links to blobs."""
    repository = tmp_path / "models--owner--name"
    write_folder(repository / "snapshots" / "abc123", LLAMA_8B, {})
    (repository / "blobs").mkdir()
    write_safetensors(repository / "blobs" / "0f", {"a": ("BF16", 64)})
    (repository / "snapshots" / "abc123" / "model.safetensors").symlink_to("../../blobs/0f")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123\n")
    assert read(repository).weights_bytes == 64
    (repository / "refs" / "main").write_text("../../elsewhere")
    with pytest.raises(UnreadableModel, match="does not name a snapshot"):
        read(repository)
    (repository / "refs" / "main").unlink()
    with pytest.raises(UnreadableModel, match="names no snapshot"):
        read(repository)


@pytest.mark.parametrize(
    ("config", "letters"),
    [
        (SMALL, "FFFF"),
        ({**SMALL, "sliding_window": 8}, "SSSS"),
        ({**SMALL, "sliding_window": 8, "use_sliding_window": False}, "FFFF"),
        ({**SMALL, "sliding_window": 8, "sliding_window_pattern": 2}, "SFSF"),
        ({**SMALL, "sliding_window": 8, "sliding_window_pattern": "LLLG"}, "SSSF"),
        ({**SMALL, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"] * 2}, "FSFS"),
        ({**SMALL, "sliding_window": None, "layer_types": ["sliding_attention"] * 4}, "FFFF"),
        ({**SMALL, "model_type": "gemma2", "sliding_window": 8}, "SFSF"),
        ({**SMALL, "attention_chunk_size": 8, "layer_types": ["chunked_attention"] * 4}, "SSSS"),
    ],
)
def test_which_layers_slide(tmp_path: Path, config: Config, letters: str) -> None:
    """By list, by period, by family, or all of them."""
    shape = read(write_folder(tmp_path / "m", config, ONE))
    assert "".join("S" if layer.window_tokens == 8 else "F" for layer in shape.layers) == letters


def test_hybrids(tmp_path: Path) -> None:
    """Qwen3-Next: 36 of 48 layers keep 3 x (4096 + 2 x 2048) numbers of history and 4096 x 128 of state, in f32."""
    shape = read(write_folder(tmp_path / "q", QWEN3_NEXT_80B, ONE))
    assert (shape.recurrent_layers, shape.attention_layers) == (36, 12)
    assert shape.layers[0] == Layer(state_bytes=4 * (3 * 8192 + 4096 * 128))
    jamba: Config = {
        **SMALL,
        "model_type": "jamba",
        "attn_layer_period": 4,
        "attn_layer_offset": 1,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
    }
    shape = read(write_folder(tmp_path / "j", jamba, ONE))
    # 4096 x 2 wide: three steps of it, and 16 numbers for each.
    state = Layer(state_bytes=4 * (3 * 8192 + 16 * 8192))
    assert shape.layers == (state, Layer(1024, 1024), state, state)
    letters = {**jamba, "model_type": "nemotron_h", "hybrid_override_pattern": "M-*M"}
    shape = read(write_folder(tmp_path / "n", letters, ONE))
    assert [layer.state_bytes > 0 for layer in shape.layers] == [True, False, False, True]
    assert shape.attention_layers == 1
    lfm2 = {**SMALL, "model_type": "lfm2", "conv_L_cache": 3, "layer_types": ["conv", "full_attention"] * 2}
    assert read(write_folder(tmp_path / "l", lfm2, ONE)).layers[0] == Layer(state_bytes=4 * 4096 * 3)


def test_layers_of_a_kind_that_is_not_known_are_a_doubt(tmp_path: Path) -> None:
    """They count as full attention, and the shape says so."""
    shape = read(write_folder(tmp_path / "m", {**SMALL, "layer_types": ["novelty"] * 4}, ONE))
    assert shape.attention_layers == 4
    assert shape.doubts == ("layers of type novelty are taken for full attention",)


def test_one_head_for_all(tmp_path: Path) -> None:
    """Falcon's multi_query; Mistral 7B slides in all layers."""
    assert read(write_folder(tmp_path / "m", {**SMALL, "multi_query": True}, ONE)).layers[0].key_size == 128
    assert read(write_folder(tmp_path / "w", MISTRAL_7B, ONE)).windowed_layers == 32


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "model_type"),
        ({"model_type": "llama"}, "num_hidden_layers"),
        ({**LLAMA_8B, "num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({**LLAMA_8B, "hidden_size": "many"}, "hidden_size"),
        ({**LLAMA_8B, "num_key_value_heads": -1}, "num_key_value_heads"),
        ({**LLAMA_8B, "layer_types": ["full_attention"]}, "1 of 32 layers"),
        ([], "not what it should be"),
    ],
)
def test_configs_that_say_too_little(tmp_path: Path, config: Any, reason: str) -> None:
    """The field is named."""
    with pytest.raises(UnreadableModel, match=reason):
        read(write_folder(tmp_path / "m", config, ONE))


def _file(header: object, data: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def _tensor(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "BF16", "shape": [1], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off"),
        (_file({}, length=1 << 62), "claims a header"),
        (_file(b"not json"), "not what it should be"),
        (_file(b"[" * 100_000), "not what it should be"),
        (_file({"a": 1}), "tensor a is not"),
        (_file({"a": _tensor(0, 8)}, data=4), "cut off"),
        (_file({"a": _tensor(8, 0)}, data=8), "wrong"),
        (_file({"a": _tensor(-8, 0)}, data=8), "offset"),
        (_file({}), "no tensors"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, reason: str) -> None:
    """Lengths and offsets are held against the file."""
    write_folder(tmp_path / "m", LLAMA_8B, {})
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    with pytest.raises(UnreadableModel, match=reason):
        read(tmp_path / "m")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/a.safetensors", "a.bin", ".."])
def test_an_index_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    """Only files of the same folder are opened."""
    write_folder(tmp_path / "m", LLAMA_8B, {})
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UnreadableModel, match="no file of this folder"):
        read(tmp_path / "m")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No config, no weights, a loop of links, a tensor in two files."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableModel, match=r"config\.json cannot be read"):
        read(tmp_path / "empty")
    with pytest.raises(UnreadableModel, match=r"no \.safetensors files"):
        read(write_folder(tmp_path / "m", LLAMA_8B, {}))
    (tmp_path / "m" / "a.safetensors").symlink_to(tmp_path / "m" / "a.safetensors")
    with pytest.raises(UnreadableModel, match="cannot be read"):
        read(tmp_path / "m")
    twice = write_folder(tmp_path / "t", LLAMA_8B, {})
    for number in (1, 2):
        write_safetensors(twice / f"m-{number}.safetensors", {"a": ("BF16", 8)})
    with pytest.raises(UnreadableModel, match="in two files"):
        read(twice)
