import struct
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import tiny_model
from server.hardware import gguf_layers
from server.hardware.gguf_shapes import HEADER, KEYS_MAX, TENSORS_MAX, read_gguf
from server.hardware.headers import read
from server.hardware.shapes import Layer, ModelShape, UnreadableModel
from tests.hardware_memory.files import LLAMA, Keys, write_gguf

HIDDEN = {key: value for key, value in LLAMA.items() if not key.startswith("attention")}
MAMBA: Keys = {
    **HIDDEN,
    "attention.head_count": 0,
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 1024,
    "ssm.state_size": 16,
    "ssm.group_count": 1,
}


def shape_of(tmp_path: Path, keys: Keys, architecture: str = "llama") -> ModelShape:
    """What is read of a file with these keys."""
    return read(write_gguf(tmp_path / "model.gguf", keys, architecture=architecture))


def test_heads_are_shared(tmp_path: Path) -> None:
    """Eight heads of 512 / 8 = 64, two of them with keys and values: 2 x 64 numbers each."""
    assert shape_of(tmp_path, LLAMA).layers == (Layer(128, 128),) * 4


def test_without_groups_every_head_has_its_own(tmp_path: Path) -> None:
    """head_count_kv may be missing: 8 x 64."""
    keys = {key: value for key, value in LLAMA.items() if key != "attention.head_count_kv"}
    assert shape_of(tmp_path, keys).layers == (Layer(512, 512),) * 4


def test_head_sizes_that_are_given_win(tmp_path: Path) -> None:
    """Qwen3, Gemma and gpt-oss have heads of another size than width / heads; key and value may differ."""
    shape = shape_of(tmp_path, {**LLAMA, "attention.key_length": 96, "attention.value_length": 80}, "qwen3")
    assert shape.layers == (Layer(192, 160),) * 4
    assert shape.attention_width == 8 * 96


def test_heads_by_layer(tmp_path: Path) -> None:
    """One number per layer, as in OpenELM: 64 x (1, 2, 4, 8)."""
    shape = shape_of(tmp_path, {**LLAMA, "attention.head_count_kv": [1, 2, 4, 8]})
    assert [layer.key_size for layer in shape.layers] == [64, 128, 256, 512]
    pruned = {**LLAMA, "attention.head_count": [8, 4, 0, 4], "attention.head_count_kv": [2, 2, 0, 1]}
    assert [layer.key_size for layer in shape_of(tmp_path, pruned, "deci").layers] == [128, 128, 0, 64]


@pytest.mark.parametrize(
    ("architecture", "sliding"),
    [
        ("gemma2", "SFSFSF"),
        ("gemma3", "SSSSSF"),
        ("gpt-oss", "SFSFSF"),
        ("cohere2", "SSSFSS"),
        ("smallthinker", "FSSSFS"),
        # llama.cpp ignores the window in these.
        ("phi3", "FFFFFF"),
        ("llama", "FFFFFF"),
    ],
)
def test_which_layers_slide_is_known_by_family(tmp_path: Path, architecture: str, sliding: str) -> None:
    """S slides, F sees everything; as llama.cpp has it."""
    shape = shape_of(tmp_path, {**LLAMA, "block_count": 6, "attention.sliding_window": 128}, architecture)
    assert "".join("S" if layer.window_tokens == 128 else "F" for layer in shape.layers) == sliding
    assert shape.doubts == ()


def test_the_header_may_say_which_layers_slide(tmp_path: Path) -> None:
    """As a list (Gemma 4, with its own head size there) or as a period."""
    keys: Keys = {
        **LLAMA,
        "attention.sliding_window": 64,
        "attention.sliding_window_pattern": [True, False, True, True],
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.key_length_swa": 32,
        "attention.value_length_swa": 32,
        "attention.shared_kv_layers": 1,
    }
    assert shape_of(tmp_path, keys, "gemma4").layers == (Layer(64, 64, 64), Layer(256, 256), Layer(64, 64, 64), Layer())
    period = {**LLAMA, "attention.sliding_window": 64, "attention.sliding_window_pattern": 2}
    assert [layer.window_tokens for layer in shape_of(tmp_path, period, "gemma3").layers] == [64, 0, 64, 0]


def test_a_window_of_a_family_that_is_not_known_is_a_doubt(tmp_path: Path) -> None:
    """Nothing is supposed silently."""
    shape = shape_of(tmp_path, {**LLAMA, "attention.sliding_window": 64}, "novelty")
    assert shape.windowed_layers == 0
    assert shape.doubts == ("a window of 64 tokens is given, but not for which layers of novelty",)


def test_compressed_keys_and_values(tmp_path: Path) -> None:
    """MLA: one vector of 512 + 64 where both _mla sizes are given, else full heads as llama.cpp would store them."""
    compressed: Keys = {
        **LLAMA,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.kv_lora_rank": 512,
    }
    shape = shape_of(tmp_path, compressed, "deepseek2")
    assert shape.layers == (Layer(576, 0),) * 4
    assert shape.latent_size == 512
    old = {**LLAMA, "attention.key_length": 192, "attention.value_length": 128, "attention.kv_lora_rank": 512}
    assert shape_of(tmp_path, {**old, "attention.head_count_kv": 8}, "deepseek2").layers == (Layer(1536, 1024),) * 4


def test_states(tmp_path: Path) -> None:
    """Mamba: f32, three steps of the convolution's 1024 + 2 x 16 numbers, and 16 x 1024: 77 920 bytes a layer."""
    assert shape_of(tmp_path, MAMBA, "mamba2").layers == (Layer(state_bytes=4 * (3 * 1056 + 16 * 1024)),) * 4


def test_hybrids(tmp_path: Path) -> None:
    """By interval (Qwen3-Next), by missing heads (Jamba), both at once (Falcon-H1), a history only (LFM2)."""
    hybrid = {**MAMBA, **LLAMA}
    state = 4 * (3 * 1056 + 16 * 1024)
    recurrent, full = Layer(state_bytes=state), Layer(128, 128)
    assert shape_of(tmp_path, hybrid, "qwen3next").layers == (recurrent, recurrent, recurrent, full)
    by_heads = {**hybrid, "attention.head_count_kv": [0, 2, 0, 2]}
    assert shape_of(tmp_path, by_heads, "jamba").layers == (recurrent, full, recurrent, full)
    assert shape_of(tmp_path, hybrid, "falcon-h1").layers == (Layer(128, 128, 0, state),) * 4
    short = {**LLAMA, "attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3}
    assert shape_of(tmp_path, short, "lfm2").layers == (Layer(state_bytes=4 * 512 * 2), full) * 2
    rwkv = {**HIDDEN, "attention.head_count": 0, "wkv.head_size": 64}
    assert shape_of(tmp_path, rwkv, "rwkv7").layers == (Layer(state_bytes=4 * 512 * (2 + 64)),) * 4


def test_layers_that_store_nothing(tmp_path: Path) -> None:
    """Gemma 3n shares after 20 layers; layers that only draft (GLM's last) have no cache either."""
    shape = shape_of(tmp_path, {**LLAMA, "block_count": 30, "attention.sliding_window": 512}, "gemma3n")
    assert shape.attention_layers == 20
    assert shape_of(tmp_path, {**LLAMA, "nextn_predict_layers": 1}, "glm4moe").attention_layers == 3


def test_models_that_read_a_text_at_once(tmp_path: Path) -> None:
    """BERT and its like remember nothing from one token to the next."""
    assert shape_of(tmp_path, LLAMA, "nomic-bert").layers == (Layer(),) * 4


def test_families_have_the_names_that_gguf_gives_them() -> None:
    """A name that is misspelt here would never match."""
    named = [
        *gguf_layers.WINDOW_PATTERNS,
        *gguf_layers.RECURRENT,
        *gguf_layers.RECURRENT_AND_ATTENTION,
        *gguf_layers.RECURRENT_BY_INTERVAL,
        *gguf_layers.RECURRENT_WITHOUT_HEADS,
        *gguf_layers.CACHELESS,
    ]
    assert len(named) > 40
    assert set(named) - set(gguf.constants.MODEL_ARCH_NAMES.values()) == set()


def test_weights_by_type(tmp_path: Path) -> None:
    """Q4_K keeps 256 numbers in 144 bytes: 512 x 1024 are 294 912."""
    path = write_gguf(
        tmp_path / "m.gguf",
        LLAMA,
        tensors={"token_embd.weight": (512, 1024), "blk.0.attn_q.weight": (512, 512)},
        kind=gguf.GGMLQuantizationType.Q4_K,
    )
    shape = read(path)
    assert shape.weight_bytes == {"Q4_K": 294_912 + 147_456}
    assert (shape.tensor_count, shape.input_bytes, shape.vocabulary_size) == (2, 0, 100)


def test_tables_that_are_only_looked_up(tmp_path: Path) -> None:
    """With an output of its own the token table is one of them; without, it is the output as well."""
    assert shape_of(tmp_path, LLAMA).input_bytes == 2 * 512 * 100


def test_parts_are_read_together(tmp_path: Path) -> None:
    """A model in several files is as large as all of them; a missing one is named."""
    for number, name in ((1, "token_embd.weight"), (2, "output.weight")):
        write_gguf(tmp_path / f"m-0000{number}-of-00002.gguf", LLAMA, tensors={name: (512, 100)})
    first = tmp_path / "m-00001-of-00002.gguf"
    assert read(first).weights_bytes == 2 * 2 * 512 * 100
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(UnreadableModel, match=r"m-00002-of-00002\.gguf cannot be read"):
        read(first)


def test_the_demonstration_model(tmp_path: Path) -> None:
    """A whole file, as llama.cpp loads it: all tensors F32 and no larger than the file."""
    tiny_model.build(tmp_path / "tiny.gguf", layers=3)
    shape = read(tmp_path / "tiny.gguf")
    assert len(shape.layers) == 3
    assert shape.vocabulary_size == shape.embedding_size
    assert 0.95 < shape.weights_bytes / (tmp_path / "tiny.gguf").stat().st_size < 1


@pytest.mark.parametrize(
    ("missing", "named"), [("block_count", "block_count"), ("embedding_length", "embedding_length")]
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, named: str) -> None:
    """A header that lacks a size ends in a sentence."""
    with pytest.raises(UnreadableModel, match=named):
        shape_of(tmp_path, {key: value for key, value in LLAMA.items() if key != missing})


@pytest.mark.parametrize(
    "keys",
    [
        {**LLAMA, "block_count": 1_000_000},
        {**LLAMA, "embedding_length": (1 << 32) - 1},
        {**LLAMA, "attention.head_count_kv": [1, 2]},
        {**LLAMA, "attention.head_count_kv": "two"},
        {**LLAMA, "block_count": 4.5},
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, keys: Keys) -> None:
    """Neither a million layers, nor heads for half of them, nor words."""
    with pytest.raises(UnreadableModel):
        shape_of(tmp_path, keys)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (b"nonsense" * 8, "does not begin with GGUF"),
        (HEADER.pack(b"GGUF", 1, 0, 0), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
        (HEADER.pack(b"GGUF", 3, 0, KEYS_MAX + 1), "limits"),
        (HEADER.pack(b"GGUF", 3, TENSORS_MAX + 1, 0), "limits"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 62), "cut off"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 1 << 60), "cut off"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 1 << 60), "cut off"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 9, 1), "array of type 9"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sI", 1, b"a", 77), "type 77"),
        (HEADER.pack(b"GGUF", 3, 1, 0) + struct.pack("<Q1sI", 1, b"a", 99), "99 dimensions"),
        (HEADER.pack(b"GGUF", 3, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"a", 1, 8, 250, 0), "type 250"),
        (HEADER.pack(b"GGUF", 3, 1, 0) + struct.pack("<Q1sIQQIQ", 1, b"a", 2, 1 << 60, 1 << 60, 1, 0), "claims"),
        (HEADER.pack(b"GGUF", 3, 0, 0), "no tensors"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: bytes, reason: str) -> None:
    """Counts are not believed before the bytes for them are there."""
    (tmp_path / "bad.gguf").write_bytes(header)
    with pytest.raises(UnreadableModel, match=reason):
        read(tmp_path / "bad.gguf")


def test_what_is_no_file(tmp_path: Path) -> None:
    """A path that is not there, a loop of links, and something that is no file."""
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    for path in (tmp_path / "nowhere.gguf", tmp_path / "loop.gguf", Path("/dev/null")):
        with pytest.raises(UnreadableModel):
            read(path)


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 2_000), at=st.integers(0, 2_000), octet=st.integers(0, 255))
def test_every_damage_ends_in_a_shape_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, octet: int
) -> None:
    """Cut off anywhere, and with any byte changed, a header is either still one or refused; nothing else happens."""
    path = write_gguf(tmp_path_factory.mktemp("damage") / "m.gguf", LLAMA, tokens=20)
    damaged = bytearray(path.read_bytes()[: cut + 1])
    damaged[min(at, len(damaged) - 1)] = octet
    path.write_bytes(damaged)
    with suppress(UnreadableModel):
        assert read_gguf(path).layers
