"""How many bytes a model takes on a device, before it is loaded.

    weights    as many bytes as its tensors have
    cache      keys and values: for each layer and token the row of its key and of its value, in the cache's type
    state      what recurrent layers keep, for each slot
    compute    the intermediate results of one batch
    overhead   the process itself: on a GPU its context and kernels, and the vocabulary

The first three follow from the shape, byte for byte; real loads agree exactly (docs/memory.md). llama.cpp gives every
slot a stream of its own, of as many cells as its context rounded up to 256; a sliding layer gets only window + batch
cells, rounded up likewise, because the tokens of a batch are written before the oldest are forgotten. Quantised caches
keep 32 numbers in a block with a scale (q8_0: 34 bytes, q4_0: 18).

Compute follows from the widest moment of a layer. Measured (llama.cpp on a CPU, flash attention, f32 activations):
inside the feed-forward part `3 ff + 5 d` numbers are alive for each token of the batch (gate, up and their product; the
residual, its norm and what is added to it), inside attention `4 d + 3 q + k`, with MLA `h (k + 2 r)` (queries as wide
as the latent vector), inside a recurrent layer `3 d + 2 i + 4 m` and a copy of the states; then the mask, two bytes for
each cell and token of a batch, and the logits of one token for each slot. What differs between back ends is in the
band, which says why it is as wide as it is.

An estimate is a value and a band. Admit by the high end, and by what was seen when the model was last loaded where that
is known: `MemoryEstimate.at_least`.
"""

import math
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from server.errors import InvalidRequest
from server.hardware.shapes import Layer, ModelShape, UnreadableModel

# Bytes of a block of 32 numbers (ggml's types as in gguf-py 0.19; fp8 as in vLLM).
BLOCK = 32
CACHE_BLOCK_BYTES = {
    "f32": 128,
    "f16": 64,
    "bf16": 64,
    "fp8": 32,
    "q8_0": 34,
    "q5_1": 24,
    "q5_0": 22,
    "q4_1": 20,
    "q4_0": 18,
    "iq4_nl": 18,
}
MIB = 1 << 20
GIB = 1 << 30
# llama.cpp rounds the cells of a slot and of a window up to this (n_ctx_seq; llama-kv-cache-iswa.cpp).
CELLS = 256
# Blocks of vLLM's and TGI's paged caches.
PAGE_TOKENS = 16
BATCH_TOKENS = {"gguf": 512, "safetensors": 2048}
CONTEXT_TOKENS_MAX = 1 << 27
SLOTS_MAX = 4_096
ESTIMATE_BYTES_MAX = 1 << 60
FLOAT_BYTES, MASK_BYTES = 4, 2
# A process of llama.cpp without a model, and what it keeps for each token of the vocabulary (measured).
PROCESS_BYTES = 32 * MIB
TOKEN_BYTES = 256
# The context of CUDA with kernels loaded: council.md, section 3.3.
GPU_CONTEXT_BYTES = (300 * MIB, 450 * MIB, 600 * MIB)
# vLLM and TGI: context, CUDA graphs and the allocator's slack; GPUStack adds 2 GiB.
PAGED_ENGINE_BYTES = (GIB // 2, GIB, 2 * GIB)
# Types that llama.cpp on a CPU lays out anew for its kernels: those seen (xllamacpp 2026.10 on AVX2, 17 types tried),
# and those that other CPUs may add.
REPACKED = frozenset({"IQ4_NL", "MXFP4", "Q4_0", "Q4_K"})
REPACKED_ELSEWHERE = REPACKED | {"Q2_K", "Q5_K", "Q6_K", "Q8_0"}
HEADROOM_BYTES = GIB
HEADROOM_PERCENT = 8


class Part(Struct, frozen=True):
    """One part of an estimate, in bytes; `reason` says why low and high are apart (empty where they are not)."""

    name: str
    expected_bytes: int
    low_bytes: int
    high_bytes: int
    reason: str = ""


class MemoryEstimate(Struct, frozen=True):
    """What a model takes with a context and slots.

    Attributes:
        context_tokens: of each slot, as asked.
        doubts: what the file did not say.
    """

    parts: tuple[Part, ...]
    context_tokens: int
    slots: int
    cache_type: str
    doubts: tuple[str, ...] = ()

    @property
    def expected_bytes(self) -> int:
        """The value."""
        return sum(part.expected_bytes for part in self.parts)

    @property
    def low_bytes(self) -> int:
        """The lower end of the band."""
        return sum(part.low_bytes for part in self.parts)

    @property
    def high_bytes(self) -> int:
        """The upper end: admit by this."""
        return sum(part.high_bytes for part in self.parts)

    def part(self, name: str) -> Part:
        """The part of that name. Raises KeyError."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def at_least(self, seen_bytes: int) -> "MemoryEstimate":
        """The same, but not below what was seen when it was loaded with the same context, slots and cache."""
        missing = seen_bytes - self.expected_bytes
        if missing <= 0:
            return self
        seen = Part("seen above estimate", missing, missing, missing)
        return replace(self, parts=(*self.parts, seen))


def estimate(
    shape: ModelShape,
    *,
    context_tokens: int,
    slots: int = 1,
    cache_type: str = "f16",
    batch_tokens: int | None = None,
    accelerator: bool = True,
) -> MemoryEstimate:
    """How much memory `shape` takes.

    Args:
        shape: the model (headers.read).
        context_tokens: of each slot, prompt and answer together.
        slots: answers that grow at the same time, each with a context of its own.
        cache_type: of keys and values; see CACHE_BLOCK_BYTES.
        batch_tokens: prompt tokens computed in one go; by default what the embedded llama.cpp is given (512), and
            vLLM's 2048 for safetensors.
        accelerator: on a GPU. Otherwise main memory.

    Raises:
        InvalidRequest: a type, context or number of slots that there is not.
        UnreadableModel: sizes that are each possible, but not together.
    """
    _check(context_tokens, slots, cache_type)
    batch = BATCH_TOKENS[shape.source] if batch_tokens is None else batch_tokens
    parts = (
        _weights(shape, accelerator=accelerator),
        _cache(shape, context_tokens, slots, cache_type, batch),
        _exact("state", slots * sum(layer.state_bytes for layer in shape.layers)),
        _compute(shape, context_tokens, slots, batch),
        _overhead(shape, accelerator=accelerator),
    )
    found = MemoryEstimate(parts, context_tokens, slots, cache_type, shape.doubts)
    if found.high_bytes > ESTIMATE_BYTES_MAX:
        raise UnreadableModel(f"The header claims sizes that would take {found.high_bytes >> 40} TiB.")
    return found


def seed_estimate(context_tokens: int) -> int:
    """Bytes by the seed's formula (WF-TECH-010, context window scaling): 100 MB + 10 MB x (tokens / 1000) ^ 1.5.

    It knows nothing of the model; kept to be compared with. Its MB is read as 2^20, which is kinder to it.
    """
    return int((100 + math.pow(context_tokens / 1000, 1.5) * 10) * MIB)


def headroom_bytes(capacity_bytes: int) -> int:
    """What is left free of a device: 8 %, and at least 1 GiB."""
    return max(HEADROOM_BYTES, capacity_bytes * HEADROOM_PERCENT // 100)


def token_bytes(shape: ModelShape, cache_type: str = "f16") -> int:
    """Bytes of cache that one more token takes, windows aside."""
    return sum(_row_bytes(layer, cache_type) for layer in shape.layers)


def cache_bytes(
    shape: ModelShape, *, context_tokens: int, slots: int = 1, cache_type: str = "f16", batch_tokens: int = 0
) -> int:
    """Bytes of keys and values. A batch of 0 tokens is the theory: no sliding layer holds more than its window."""
    return slots * sum(
        _row_bytes(layer, cache_type) * _cells(shape, layer, context_tokens, batch_tokens) for layer in shape.layers
    )


def _check(context_tokens: int, slots: int, cache_type: str) -> None:
    if cache_type not in CACHE_BLOCK_BYTES:
        raise InvalidRequest(f"There is no cache type {cache_type}: choose among {', '.join(CACHE_BLOCK_BYTES)}.")
    if not 1 <= context_tokens <= CONTEXT_TOKENS_MAX:
        raise InvalidRequest(f"A context has 1 to {CONTEXT_TOKENS_MAX} tokens, not {context_tokens}.")
    if not 1 <= slots <= SLOTS_MAX:
        raise InvalidRequest(f"There can be 1 to {SLOTS_MAX} slots, not {slots}.")


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _row_bytes(layer: Layer, cache_type: str) -> int:
    block = CACHE_BLOCK_BYTES[cache_type]
    return -(-layer.key_size * block // BLOCK) + -(-layer.value_size * block // BLOCK)


def _cells(shape: ModelShape, layer: Layer, context_tokens: int, batch_tokens: int) -> int:
    grain = CELLS if shape.source == "gguf" else PAGE_TOKENS
    whole = _round_up(context_tokens, grain)
    return _round_up(min(whole, layer.window_tokens + batch_tokens), grain) if layer.window_tokens else whole


def _exact(name: str, size: int) -> Part:
    return Part(name, size, size, size)


def _weights(shape: ModelShape, *, accelerator: bool) -> Part:
    size = shape.weights_bytes
    if shape.source != "gguf":
        return _exact("weights", size)
    if accelerator:
        reason = "llama.cpp keeps tables that are only looked up in main memory" if shape.input_bytes else ""
        return Part("weights", size, size - shape.input_bytes, size, reason)
    multiplied = size - shape.input_bytes
    copy, largest = (
        min(multiplied, sum(count for kind, count in shape.weight_bytes.items() if kind in kinds))
        for kinds in (REPACKED, REPACKED_ELSEWHERE)
    )
    reason = "kernels of the CPU may want a second copy of some types; the mapped file can then be dropped"
    return Part("weights", size + copy, size, size + largest, reason if largest else "")


def _cache(shape: ModelShape, context_tokens: int, slots: int, cache_type: str, batch_tokens: int) -> Part:
    def total(cells: Callable[[Layer], int]) -> int:
        return slots * sum(_row_bytes(layer, cache_type) * cells(layer) for layer in shape.layers)

    expected = total(lambda layer: _cells(shape, layer, context_tokens, batch_tokens))
    whole = total(lambda layer: _cells(shape, Layer(layer.key_size), context_tokens, batch_tokens))
    if shape.source == "gguf" and not shape.doubts:
        return _exact("cache", expected)
    if shape.doubts:
        return Part("cache", expected, expected // 2, max(whole, expected), "the header leaves doubts")
    reason = "an engine may keep the whole context for sliding layers too" if whole > expected else ""
    return Part("cache", expected, expected, whole, reason)


def _compute(shape: ModelShape, context_tokens: int, slots: int, batch_tokens: int) -> Part:
    width = shape.embedding_size
    key = max((layer.key_size for layer in shape.layers), default=0)
    state = max((layer.state_bytes for layer in shape.layers), default=0)
    feed_forward = 3 * shape.feed_forward_size + 5 * width
    attention = 4 * width + 3 * shape.attention_width + key
    if shape.latent_size:
        attention = shape.heads * (key + 2 * shape.latent_size)
    recurrent = 3 * width + 2 * shape.recurrent_inner + 4 * shape.recurrent_mixed if state else 0
    kinds = {layer.window_tokens: layer for layer in shape.layers if layer.key_size}
    masks = sum(_cells(shape, layer, context_tokens, batch_tokens) for layer in kinds.values())
    logits = FLOAT_BYTES * shape.vocabulary_size
    recurrent_bytes = FLOAT_BYTES * batch_tokens * recurrent + slots * state
    passing = max(FLOAT_BYTES * batch_tokens * max(feed_forward, attention), recurrent_bytes)
    expected = passing + MASK_BYTES * batch_tokens * masks + slots * logits
    # Back ends that reserve the logits of a whole batch, or two graphs at once.
    high = max(2 * expected, expected + batch_tokens * logits)
    return Part(
        "compute", expected, expected // 2, high, "back ends reuse buffers differently; some hold a batch's logits"
    )


def _overhead(shape: ModelShape, *, accelerator: bool) -> Part:
    if shape.source != "gguf":
        low, expected, high = PAGED_ENGINE_BYTES
        return Part("overhead", expected, low, high, "CUDA graphs and the allocator's slack depend on the engine")
    own = PROCESS_BYTES + TOKEN_BYTES * shape.vocabulary_size
    if accelerator:
        low, expected, high = GPU_CONTEXT_BYTES
        return Part("overhead", expected, low, high, "the context of the GPU depends on driver and model")
    return Part("overhead", own, own // 2, 2 * own, "threads and the tokenizer, by the size of the vocabulary")
