from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tiny_model
from benchmarks.hollow import Trial, deepseek, gpt_oss, qwen3_next, write_hollow
from benchmarks.memory import load
from server.errors import InvalidRequest
from server.hardware.config_layers import shape_from_config
from server.hardware.headers import read
from server.hardware.memory import (
    CACHE_BLOCK_BYTES,
    GIB,
    MIB,
    cache_bytes,
    estimate,
    headroom_bytes,
    seed_estimate,
    token_bytes,
)
from server.hardware.shapes import Layer, ModelShape, UnreadableModel
from tests.hardware_memory import published
from tests.hardware_memory.published import Config

KIB = 1024
# The type with the smallest weights that no CPU lays out anew: they only cost time here.
SMALL = Kind.IQ2_XS


def shape_of(config: Config) -> ModelShape:
    """The published sizes, without weights."""
    return shape_from_config(config, weight_bytes={}, tensor_count=0)


def a_shape(*layers: Layer, source: str = "gguf") -> ModelShape:
    """A model of 100 words with these layers."""
    return ModelShape(
        source=source,
        architecture="llama",
        layers=layers,
        embedding_size=64,
        attention_width=64,
        heads=2,
        feed_forward_size=128,
        vocabulary_size=100,
        context_tokens=4096,
        weight_bytes={"F16": 1000},
    )


@pytest.mark.parametrize(
    ("config", "kib"),
    [
        # layers x 2 x key-value heads x head size x 2 bytes
        (published.LLAMA_8B, 128.0),
        (published.QWEN3_8B, 144.0),
        (published.LLAMA_70B, 320.0),
        (published.QWEN3_30B, 96.0),
        # 61 x (512 + 64) x 2 bytes: keys and values in one
        (published.DEEPSEEK_V3, 68.625),
        # 12 of 48 layers have a cache: 12 x 2 x 2 x 256 x 2 bytes
        (published.QWEN3_NEXT_80B, 24.0),
    ],
    ids=lambda value: str(value["model_type"]) if isinstance(value, dict) else "",
)
def test_a_token_takes_as_much_as_published(config: Config, kib: float) -> None:
    """Known figures at f16, to the byte."""
    assert token_bytes(shape_of(config)) == kib * KIB


@pytest.mark.parametrize(("config", "gib"), [(published.GPT_OSS_20B, 0.19), (published.GEMMA3_12B, 0.81)])
def test_windows_take_as_much_as_published(config: Config, gib: float) -> None:
    """8k tokens: gpt-oss 12 x 8192 + 12 x 128 tokens of 2 KiB, Gemma 3 8 x 8192 + 40 x 1024 of 8 KiB."""
    assert round(cache_bytes(shape_of(config), context_tokens=8192) / GIB, 2) == gib


def test_cells_as_llama_cpp_counts_them() -> None:
    """1000 tokens are 1024 cells; a window of 100 with a batch of 512 is 768; each slot has its own."""
    shape = a_shape(Layer(32, 32), Layer(32, 32, window_tokens=100))
    row = 2 * 64
    assert cache_bytes(shape, context_tokens=1000, batch_tokens=512) == row * (1024 + 768)
    assert cache_bytes(shape, context_tokens=1000, slots=3, batch_tokens=512) == 3 * row * (1024 + 768)
    # A window larger than the context is no larger than the context.
    assert cache_bytes(shape, context_tokens=200, batch_tokens=512) == row * (256 + 256)


def test_pages_of_other_engines() -> None:
    """Pages of vLLM and TGI have 16 tokens; they may keep the whole context where a layer slides."""
    shape = a_shape(Layer(32, 32, window_tokens=100), source="safetensors")
    assert cache_bytes(shape, context_tokens=1000) == 2 * 64 * 112
    cache = estimate(shape, context_tokens=1000, batch_tokens=0).part("cache")
    assert (cache.expected_bytes, cache.high_bytes) == (128 * 112, 128 * 1008)
    assert "sliding" in cache.reason


@pytest.mark.parametrize(
    ("cache_type", "row_bytes"), [("f32", 128), ("f16", 64), ("fp8", 32), ("q8_0", 34), ("q4_0", 18), ("q5_1", 24)]
)
def test_quantised_caches(cache_type: str, row_bytes: int) -> None:
    """32 numbers in a block with its scale."""
    assert token_bytes(a_shape(Layer(32, 0)), cache_type) == row_bytes


def test_states_by_slot() -> None:
    """A state does not grow with the context, only with the slots."""
    shape = a_shape(Layer(state_bytes=1000), Layer(state_bytes=1000))
    for context in (256, 4096):
        assert estimate(shape, context_tokens=context, slots=3).part("state").expected_bytes == 6000
        assert estimate(shape, context_tokens=context, slots=3).part("cache").expected_bytes == 0


def test_compute_by_hand() -> None:
    """512 x 4 bytes x (3 x 128 + 5 x 64), a mask of 1024 cells x 512 x 2, and 2 slots x 100 words x 4."""
    compute = estimate(a_shape(Layer(32, 32)), context_tokens=1024, slots=2).part("compute")
    assert compute.expected_bytes == 512 * 4 * 704 + 1024 * 512 * 2 + 2 * 100 * 4


def test_a_second_copy_on_a_cpu() -> None:
    """Q4_0 is laid out anew on AVX2, Q8_0 elsewhere, F16 nowhere; tables that are looked up never are; nor on a GPU."""
    kinds = {"F16": 1000, "Q4_0": 200, "Q8_0": 50}
    shape = replace(a_shape(Layer(32, 32)), weight_bytes=kinds)
    part = estimate(shape, context_tokens=256, accelerator=False).part("weights")
    assert (part.low_bytes, part.expected_bytes, part.high_bytes) == (1250, 1450, 1500)
    table = replace(shape, weight_bytes={"Q4_0": 300}, input_bytes=100)
    part = estimate(table, context_tokens=256, accelerator=False).part("weights")
    assert (part.low_bytes, part.expected_bytes, part.high_bytes) == (300, 500, 500)
    part = estimate(table, context_tokens=256, accelerator=True).part("weights")
    assert (part.low_bytes, part.expected_bytes, part.high_bytes) == (200, 300, 300)


def test_what_was_seen_counts() -> None:
    """A model that took more when it was loaded is not estimated lower again; one that took less stays."""
    found = estimate(a_shape(Layer(32, 32)), context_tokens=256)
    assert found.at_least(found.expected_bytes + 5).expected_bytes == found.expected_bytes + 5
    assert found.at_least(found.expected_bytes + 5).high_bytes == found.high_bytes + 5
    assert found.at_least(10) == found


def test_the_seeds_formula() -> None:
    """100 MB + 10 MB x (tokens / 1000) ^ 1.5: 4000 tokens are 180 MB, 64 000 are 5220 MB, for whichever model."""
    assert seed_estimate(4_000) == 180 * MIB
    assert seed_estimate(64_000) == 5220 * MIB


def test_headroom() -> None:
    """8 %, and at least 1 GiB."""
    assert headroom_bytes(4 * GIB) == GIB
    assert headroom_bytes(100 * GIB) == 8 * GIB


@pytest.mark.parametrize(
    "choices", [{"context_tokens": 0}, {"context_tokens": 1 << 40}, {"slots": 0}, {"cache_type": "f12"}]
)
def test_choices_that_there_are_not(choices: dict[str, object]) -> None:
    """They are refused with a sentence."""
    asked: dict[str, object] = {"context_tokens": 256, **choices}
    with pytest.raises(InvalidRequest):
        estimate(a_shape(Layer(32, 32)), **asked)  # type: ignore[arg-type]


def test_sizes_that_are_possible_only_alone() -> None:
    """A header can claim that all of its sizes are as large as any."""
    with pytest.raises(UnreadableModel, match="TiB"):
        estimate(a_shape(*(Layer(1 << 40, 1 << 40),) * 100), context_tokens=1 << 20)


layers = st.builds(
    Layer,
    st.integers(0, 4096),
    st.integers(0, 4096),
    st.one_of(st.just(0), st.integers(1, 8192)),
    st.one_of(st.just(0), st.integers(1, 1 << 20)),
)


@given(
    kept=st.lists(layers, min_size=1, max_size=8),
    source=st.sampled_from(["gguf", "safetensors"]),
    context=st.integers(1, 200_000),
    slots=st.integers(1, 16),
    cache_type=st.sampled_from(sorted(CACHE_BLOCK_BYTES)),
    accelerator=st.booleans(),
)
def test_a_band_holds_its_value_and_grows_with_what_is_asked(
    kept: list[Layer], source: str, context: int, slots: int, cache_type: str, *, accelerator: bool
) -> None:
    """For any model: low <= value <= high in each part, and more context or slots never take less."""
    shape = a_shape(*kept, source=source)

    def ask(context: int, slots: int) -> tuple[int, int]:
        found = estimate(shape, context_tokens=context, slots=slots, cache_type=cache_type, accelerator=accelerator)
        for part in found.parts:
            assert 0 <= part.low_bytes <= part.expected_bytes <= part.high_bytes
            assert (part.low_bytes == part.high_bytes) or part.reason
        return found.expected_bytes, found.high_bytes

    here = ask(context, slots)
    for there in (ask(context + 300, slots), ask(context, slots + 1)):
        assert there[0] >= here[0]
        assert there[1] >= here[1]


@pytest.mark.parametrize(
    "trial",
    [
        Trial("demonstration", "", {}, {}, 0, slots=2, context=1000),
        gpt_oss(slots=2, context=3000, kind=SMALL),
        deepseek(cache="q8_0", context=2048, kind=Kind.Q8_0),
        qwen3_next(slots=3, context=512, kind=SMALL),
    ],
    ids=lambda trial: trial.name,
)
def test_llama_cpp_takes_what_was_estimated(tmp_path: Path, trial: Trial) -> None:
    """Loaded for real: cache and state agree to 1 % of a MiB, compute is within its band, all of it within the band."""
    path = tmp_path / "model.gguf"
    if trial.tensors:
        write_hollow(path, trial)
    else:
        tiny_model.build(path)
    found = estimate(
        read(path),
        context_tokens=trial.context,
        slots=trial.slots,
        cache_type=trial.cache,
        batch_tokens=trial.batch,
        accelerator=False,
    )
    seen = load(path, trial)
    for part in ("cache", "state"):
        assert found.part(part).expected_bytes / MIB == pytest.approx(seen.buffers[part], abs=0.01)
    compute = found.part("compute")
    assert compute.low_bytes <= seen.buffers["compute"] * MIB <= compute.high_bytes
    assert found.low_bytes * 0.9 <= seen.resident * MIB <= found.high_bytes
