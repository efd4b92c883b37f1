"""Models that a newcomer could take, and whether they fit here, without asking any network.

Repositories of the models' makers, else ggml-org's; only for Llama somebody else's (bartowski), because Meta's own asks
for a token and holds no GGUF. None of these asks for one. Looked up on 2026-11-23, in stored copies of public pages and
repositories, not on the hub itself:

- file names and bytes: as several public programs pin them with the hub's checksums (the hub's header `x-linked-size`);
- sizes of the models: their config.json; licences: their model cards;
- the bytes of each type: the tensors of such a model, typed as llama.cpp's Q8_0 and Q4_K_M do (src/llama-quant.cpp,
  `use_more_bits`; rows that are no multiple of 256 fall back to Q5_0 and Q8_0), gpt-oss as its header lists them
  (72 MXFP4, 98 Q8_0, 289 F32). What is left to the file's size is its header with the vocabulary, which comes out the
  same in all files of a family (Qwen3: 5 951 136 bytes in two of them), so names, bytes and sizes confirm each other.

A shape is made of these as it is of a GGUF header (gguf_layers.shape_from), and estimated as any other (memory.py).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from server.cli.estimates import Found, free_memory_bytes
from server.embedded import llama_devices
from server.embedded.llama_devices import Seen
from server.hardware.devices import Snapshot, free_bytes
from server.hardware.gguf_layers import shape_from
from server.hardware.memory import GIB, estimate, headroom_bytes
from server.hardware.room import accelerators_of
from server.hardware.shapes import ModelShape
from server.settings import Settings

HUB = "hf:"
GB = 10**9
LICENCES = {
    "Apache": "Apache License 2.0",
    "Gemma": "Gemma Terms of Use",
    "Llama": "Llama 3.2 Community License",
}
MAIN_MEMORY = "main memory"
DOES_NOT_FIT = "does not fit"
UNKNOWN = "?"


class Sizes(Struct, frozen=True, kw_only=True):
    """A model's sizes, counts of numbers; `head` is the size of one head, `forward` the width of one expert."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    forward: int
    vocabulary: int
    window_tokens: int = 0
    experts: int = 0
    experts_used: int = 0


class Entry(Struct, frozen=True):
    """A model of the list.

    Attributes:
        licence: a key of LICENCES.
        architecture: what its GGUF header says.
        weight_bytes: by type of tensor.
        input_bytes: of a table that is only looked up; 0 where it is the output too.
    """

    name: str
    repository: str
    file: str
    licence: str
    file_bytes: int
    architecture: str
    sizes: Sizes
    weight_bytes: Mapping[str, int]
    input_bytes: int = 0

    @property
    def reference(self) -> str:
        """What `wirthforge models pull` takes."""
        return f"{HUB}{self.repository}:{self.file}"

    def shape(self) -> ModelShape:
        """What an estimate needs, read as from the header that the file has."""
        sizes = self.sizes
        keys = {
            "block_count": sizes.layers,
            "embedding_length": sizes.width,
            "feed_forward_length": sizes.forward,
            "attention.head_count": sizes.heads,
            "attention.head_count_kv": sizes.kv_heads,
            "attention.key_length": sizes.head,
            "attention.value_length": sizes.head,
            "attention.sliding_window": sizes.window_tokens,
            "expert_count": sizes.experts,
            "expert_used_count": sizes.experts_used,
            "expert_feed_forward_length": sizes.forward,
        }
        return shape_from(
            {"general.architecture": self.architecture}
            | {f"{self.architecture}.{key}": size for key, size in keys.items()},
            vocabulary_size=sizes.vocabulary,
            weight_bytes=self.weight_bytes,
            tensor_count=0,
            input_bytes=self.input_bytes,
        )


ENTRIES = (
    Entry(
        "smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf", "Apache",
        386_404_992, "llama",
        Sizes(layers=32, width=960, heads=15, kv_heads=5, head=64, forward=2560, vocabulary=49_152),
        {"Q8_0": 384_368_640, "F32": 249_600},
    ),
    Entry(
        "qwen3-0.6b", "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", "Apache", 639_446_688, "qwen3",
        Sizes(layers=28, width=1024, heads=16, kv_heads=8, head=128, forward=3072, vocabulary=151_936),
        {"Q8_0": 633_233_408, "F32": 262_144},
    ),
    Entry(
        "gemma-3-1b", "ggml-org/gemma-3-1b-it-GGUF", "gemma-3-1b-it-Q4_K_M.gguf", "Gemma", 806_058_240, "gemma3",
        Sizes(
            layers=26, width=1152, heads=4, kv_heads=1, head=256, forward=6912, vocabulary=262_144, window_tokens=512
        ),
        {"Q4_K": 75_479_040, "Q5_0": 313_657_344, "Q6_K": 84_913_920, "Q8_0": 324_937_728, "F32": 537_088},
    ),
    Entry(
        "smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf", "Apache",
        1_055_609_536, "llama",
        Sizes(layers=24, width=2048, heads=32, kv_heads=32, head=64, forward=8192, vocabulary=49_152),
        {"Q4_K": 764_411_904, "Q6_K": 289_013_760, "F32": 401_408},
    ),
    Entry(
        "qwen3-1.7b", "Qwen/Qwen3-1.7B-GGUF", "Qwen3-1.7B-Q8_0.gguf", "Apache", 1_834_426_016, "qwen3",
        Sizes(layers=28, width=2048, heads=16, kv_heads=8, head=128, forward=6144, vocabulary=151_936),
        {"Q8_0": 1_827_979_264, "F32": 495_616},
    ),
    Entry(
        "llama-3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Llama",
        2_019_377_696, "llama",
        Sizes(layers=28, width=3072, heads=24, kv_heads=8, head=128, forward=8192, vocabulary=128_256),
        {"Q4_K": 1_362_493_440, "Q6_K": 648_345_600, "F32": 700_672},
    ),
    # The config has 262 208 tokens, the file, by its size, those of the tokenizer.
    Entry(
        "gemma-3-4b", "ggml-org/gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q4_K_M.gguf", "Gemma", 2_489_757_856, "gemma3",
        Sizes(
            layers=34, width=2560, heads=8, kv_heads=4, head=256, forward=10_240, vocabulary=262_144,
            window_tokens=1024,
        ),
        {"Q4_K": 1_529_118_720, "Q6_K": 952_627_200, "F32": 1_472_512},
    ),
    Entry(
        "qwen3-4b", "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf", "Apache", 2_497_280_256, "qwen3",
        Sizes(layers=36, width=2560, heads=32, kv_heads=8, head=128, forward=9728, vocabulary=151_936),
        {"Q4_K": 1_765_048_320, "Q6_K": 725_491_200, "F32": 784_384},
    ),
    Entry(
        "qwen3-8b", "Qwen/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", "Apache", 5_027_783_488, "qwen3",
        Sizes(layers=36, width=4096, heads=32, kv_heads=8, head=128, forward=12_288, vocabulary=151_936),
        {"Q4_K": 3_704_979_456, "Q6_K": 1_315_614_720, "F32": 1_232_896},
        350_060_544,
    ),
    Entry(
        "gpt-oss-20b", "ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b-mxfp4.gguf", "Apache", 12_109_566_560, "gpt-oss",
        Sizes(
            layers=24, width=2880, heads=64, kv_heads=8, head=64, forward=2880, vocabulary=201_088, window_tokens=128,
            experts=32, experts_used=4,
        ),
        {"MXFP4": 10_152_345_600, "Q8_0": 1_907_481_600, "F32": 36_728_064},
        615_329_280,
    ),
)  # fmt: skip


class Box(Struct, frozen=True):
    """Memory that a model would go into; free_bytes is None where nobody knows."""

    name: str
    free_bytes: int | None
    is_gpu: bool = False


class Fit(Struct, frozen=True):
    """How a model fits: `fits`, `may fit` or `does not fit` (with RAM behind it: not on the GPU), and the estimate."""

    verdict: str
    high_bytes: int
    box: Box


def named(model: str) -> Entry | None:
    """The entry with that name or reference."""
    return next((entry for entry in ENTRIES if model in (entry.name, entry.reference)), None)


def boxes(snapshot: Snapshot, seen: Sequence[Seen]) -> list[Box]:
    """Where `up` would try a model: the GPU with the most free memory that llama.cpp can use, then main memory."""
    gpus = accelerators_of(snapshot)
    usable = llama_devices.usable(seen, {gpu.uuid: gpu.pci_address or "" for gpu in gpus})
    known = [(free, gpu.name) for gpu in gpus if gpu.uuid in usable and (free := free_bytes(snapshot, gpu)) is not None]
    best = [Box(name, free, is_gpu=True) for free, name in sorted(known)[-1:]]
    return [*best, Box(MAIN_MEMORY, free_memory_bytes())]


def fit(entry: Entry, found: Sequence[Box], settings: Settings) -> Fit:
    """Estimate with the settings' context and slots, and compare with the first box in which it has a chance."""
    fits = [_fit(entry.shape(), box, settings) for box in found]
    if fits[0].verdict == DOES_NOT_FIT:
        for later in fits[1:]:
            if later.verdict not in (DOES_NOT_FIT, UNKNOWN):
                return Fit(f"{later.verdict} RAM", later.high_bytes, later.box)
    return fits[0]


def table(found: Sequence[Box], settings: Settings) -> str:
    """Lines for people, at most 120 characters wide."""
    lines = [f"{'name':<12} {'terms':<6} {'file':>4} {'need':>4} {'here':<12} reference"]
    for entry in ENTRIES:
        how = fit(entry, found, settings)
        lines.append(
            f"{entry.name:<12} {entry.licence:<6} {entry.file_bytes / GB:>4.1f} {how.high_bytes / GIB:>4.1f} "
            f"{how.verdict:<12} {entry.reference}"
        )
    lines += [
        "",
        f"file: GB to fetch; need: GiB of memory at most, {_load(settings)}.",
        f"here: {_free(found[0], settings)}.",
        f"terms: {'; '.join(LICENCES.values())}.",
        f"Take one: `wirthforge models pull {ENTRIES[1].name}`; the next `wirthforge up` serves it.",
        f"Any other GGUF file of Hugging Face: `wirthforge models pull {HUB}owner/repo:file.gguf`.",
    ]
    return "\n".join(lines)


def announcement(model: str, size: int | None, found: Sequence[Box], settings: Settings) -> str:
    """What is said before `model` is fetched.

    Args:
        size: its bytes, as the hub says; None where it says nothing.
    """
    entry = named(model)
    if entry is not None:
        how = fit(entry, found, settings)
        return (
            f"{entry.name} ({LICENCES[entry.licence]}): {(size or entry.file_bytes) / GB:.1f} GB to fetch. It needs "
            f"{how.high_bytes / GIB:.1f} GiB at most, {_load(settings)}: {how.verdict} ({_free(how.box, settings)})."
        )
    if size is None:
        return f"{model}: the hub does not say how large it is."
    box = max(found, key=lambda box: box.free_bytes or 0)
    verdict = DOES_NOT_FIT if size > _usable_bytes(box, settings, size) else "fits"
    return (
        f"{model}: {size / GB:.1f} GB to fetch. That alone {verdict} ({_free(box, settings)}); "
        "what it needs besides, `wirthforge models estimate PATH` says when it is here."
    )


def _fit(shape: ModelShape, box: Box, settings: Settings) -> Fit:
    taken = estimate(
        shape,
        context_tokens=settings.model_context_tokens,
        slots=settings.model_slots,
        accelerator=box.is_gpu,
    )
    verdict = Found(shape, taken, box.free_bytes).verdict or UNKNOWN
    if 0 < settings.models_memory_bytes < taken.high_bytes:
        # `up` refuses these, however much is free.
        verdict = DOES_NOT_FIT
    return Fit(verdict, taken.high_bytes, box)


def _usable_bytes(box: Box, settings: Settings, otherwise: int) -> int:
    free = otherwise if box.free_bytes is None else box.free_bytes - headroom_bytes(box.free_bytes)
    return min(free, settings.models_memory_bytes) if settings.models_memory_bytes else free


def _load(settings: Settings) -> str:
    return f"with model_slots = {settings.model_slots} and model_context_tokens = {settings.model_context_tokens}"


def _free(box: Box, settings: Settings) -> str:
    where = box.name if box.name == MAIN_MEMORY else f"GPU memory ({box.name})"
    if box.free_bytes is None:
        said = f"nobody says how much {where} is free"
    else:
        kept = headroom_bytes(box.free_bytes)
        said = f"{box.free_bytes / GIB:.1f} GiB of {where} are free, {kept / GIB:.1f} GiB of it stay so"
    if settings.models_memory_bytes:
        said += f", models_memory_bytes allows {settings.models_memory_bytes / GIB:.1f} GiB"
    return said
