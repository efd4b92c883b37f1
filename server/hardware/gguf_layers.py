"""From the keys of a GGUF header to layers: what llama.cpp would allocate for them (sources in gguf_shapes.py)."""

from collections.abc import Callable, Mapping, Sequence

from server.hardware.shapes import LAYERS_MAX, Layer, ModelShape, UnreadableModel, checked

FLOAT_BYTES = 4
# Which layers slide, where the header does not say: a period of n means n - 1 sliding layers and then a full one.
WINDOW_PATTERNS = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": 4,
    "gemma4": 0,
    "mimo2": 0,
    "step35": 0,
}
# In these the full layer is the first of each period.
FULL_LAYER_FIRST = frozenset({"smallthinker"})
# Where the window itself is not in the header.
WINDOW_TOKENS = {"gemma2": 4096, "llama4": 8192, "smallthinker": 4096}
# Layers from here on use an earlier layer's keys and values.
OWN_LAYERS = {"gemma3n": 20}

RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
RECURRENT_AND_ATTENTION = frozenset({"falcon-h1"})
RECURRENT_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
RECURRENT_WITHOUT_HEADS = frozenset(
    {"jamba", "plamo2", "granitehybrid", "nemotron_h", "nemotron_h_moe", "lfm2", "lfm2moe", "kimi-linear"}
)
# These see a whole text at once and remember nothing (create_memory in src/llama-model.cpp).
CACHELESS = frozenset(
    {
        "bert",
        "dream",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    }
)
FULL_ATTENTION_INTERVAL = 4
TOKEN_SHIFTS = 2

Keys = Mapping[str, object]


def shape_from(
    keys: Keys,
    *,
    vocabulary_size: int,
    weight_bytes: Mapping[str, int],
    tensor_count: int,
    input_bytes: int,
) -> ModelShape:
    """The shape that the keys describe. Raises UnreadableModel where one is missing or out of bounds."""
    architecture = keys.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise UnreadableModel("The header does not name its architecture (general.architecture).")
    return _Reader(keys, architecture).shape(vocabulary_size, weight_bytes, tensor_count, input_bytes)


class _Reader:
    """The keys of one architecture, which all begin with its name."""

    def __init__(self, keys: Keys, architecture: str) -> None:
        self._keys = keys
        self._architecture = architecture
        self._doubts: list[str] = []
        self._count = self._number("block_count", least=1, most=LAYERS_MAX)
        self._embedding = self._number("embedding_length", least=1)
        self._heads = self._each("attention.head_count", 0)
        self._kv_heads = self._each("attention.head_count_kv", None)

    def shape(
        self, vocabulary_size: int, weight_bytes: Mapping[str, int], tensor_count: int, input_bytes: int
    ) -> ModelShape:
        """Everything together."""
        layers = tuple(self._layers())
        heads = max(self._heads)
        head_size = self._number("attention.key_length", self._embedding // heads if heads else 0)
        return ModelShape(
            source="gguf",
            architecture=self._architecture,
            layers=layers,
            embedding_size=self._embedding,
            attention_width=heads * self._number("attention.key_length_mla", head_size),
            heads=heads,
            feed_forward_size=self._feed_forward(),
            vocabulary_size=vocabulary_size or self._number("vocab_size", 0),
            context_tokens=self._number("context_length", 0),
            weight_bytes=weight_bytes,
            tensor_count=tensor_count,
            input_bytes=input_bytes,
            experts=self._number("expert_count", 0),
            experts_used=self._number("expert_used_count", 0),
            latent_size=self._number("attention.kv_lora_rank", 0) if self._is_compressed() else 0,
            recurrent_inner=self._number("ssm.inner_size", 0),
            recurrent_mixed=self._mixed(),
            doubts=tuple(self._doubts),
        )

    def _layers(self) -> Sequence[Layer]:
        if self._architecture in CACHELESS:
            return [Layer()] * self._count
        recurs = self._recurs()
        slides, window = self._slides()
        owns = self._owned()
        state = self._state_bytes() if any(map(recurs, range(self._count))) else 0
        layers = []
        for index in range(self._count):
            recurrent = recurs(index)
            if recurrent and self._architecture not in RECURRENT_AND_ATTENTION:
                layers.append(Layer(state_bytes=state))
                continue
            sliding = window > 0 and slides(index)
            key, value = self._attention(index, sliding=sliding) if index < owns else (0, 0)
            layers.append(Layer(key, value, window if sliding and key else 0, state if recurrent else 0))
        return layers

    def _attention(self, index: int, *, sliding: bool) -> tuple[int, int]:
        """Numbers of key and value for a token in layer `index`."""
        kv_heads = self._kv_heads[index]
        # All layers have heads of the size of the first's, also where they have fewer of them.
        heads = self._heads[0] or max(self._heads)
        usual = self._embedding // heads if heads else 0
        key = self._number("attention.key_length", usual)
        value = self._number("attention.value_length", usual)
        if sliding:
            key = self._number("attention.key_length_swa", key)
            value = self._number("attention.value_length_swa", value)
        if self._is_compressed():
            # One vector of kv_lora_rank + positions; the value is a part of it.
            return kv_heads * key, 0
        return kv_heads * key, kv_heads * value

    def _is_compressed(self) -> bool:
        return bool(self._number("attention.key_length_mla", 0) and self._number("attention.value_length_mla", 0))

    def _mixed(self) -> int:
        groups, state = self._number("ssm.group_count", 0), self._number("ssm.state_size", 0)
        return self._number("ssm.inner_size", 0) + 2 * groups * state

    def _slides(self) -> tuple[Callable[[int], bool], int]:
        """Which layers slide, and how far they see; a window of 0 where none does."""
        name = self._architecture
        window = self._number("attention.sliding_window", WINDOW_TOKENS.get(name, 0))
        if name not in WINDOW_PATTERNS:
            if window and name not in {"phi3", "llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe"}:
                self._doubts.append(f"a window of {window} tokens is given, but not for which layers of {name}")
            return lambda _: False, 0
        pattern = self._keys.get(f"{name}.attention.sliding_window_pattern", WINDOW_PATTERNS[name])
        if isinstance(pattern, list):
            marks = [bool(mark) for mark in pattern]
            if len(marks) < self._count:
                raise UnreadableModel(f"The header gives windows for {len(marks)} of {self._count} layers.")
            return lambda index: marks[index], window
        period = checked("sliding_window_pattern", pattern)
        if period == 0:
            return lambda _: True, window
        if name in FULL_LAYER_FIRST:
            return lambda index: index % period != 0, window
        return lambda index: index % period < period - 1, window

    def _owned(self) -> int:
        """Layers that store keys and values: not those that share an earlier layer's, nor those that only draft."""
        shared = self._number("attention.shared_kv_layers", 0) + self._number("nextn_predict_layers", 0)
        return min(OWN_LAYERS.get(self._architecture, self._count), self._count - shared)

    def _recurs(self) -> Callable[[int], bool]:
        name = self._architecture
        if name in RECURRENT or name in RECURRENT_AND_ATTENTION:
            return lambda _: True
        listed = self._keys.get(f"{name}.attention.recurrent_layers")
        if isinstance(listed, list) and len(listed) >= self._count:
            marks = [bool(mark) for mark in listed]
            return lambda index: marks[index]
        if name in RECURRENT_BY_INTERVAL:
            interval = self._number("full_attention_interval", FULL_ATTENTION_INTERVAL, least=1)
            drafting = self._count - self._number("nextn_predict_layers", 0)
            return lambda index: index < drafting and (index + 1) % interval != 0
        if name in RECURRENT_WITHOUT_HEADS:
            # Nemotron-H also has layers that are only a feed-forward part, and remember nothing.
            widths = self._each("feed_forward_length", 0) if name.startswith("nemotron_h") else [0] * self._count
            return lambda index: self._kv_heads[index] == 0 and widths[index] == 0
        if self._number("ssm.state_size", 0):
            self._doubts.append(f"{name} has recurrent layers, but which they are is not known here")
        return lambda _: False

    def _state_bytes(self) -> int:
        """What a recurrent layer keeps for a sequence: a short history for its convolution, and its state."""
        if head := self._number("wkv.head_size", 0):
            shifts = self._number("token_shift_count", TOKEN_SHIFTS)
            return FLOAT_BYTES * self._embedding * (shifts + head)
        if history := self._number("shortconv.l_cache", 0):
            return FLOAT_BYTES * self._embedding * (history - 1)
        kernel = self._number("ssm.conv_kernel", 0)
        if head := self._number("kda.head_dim", 0):
            inner = max(self._heads) * head
            return FLOAT_BYTES * (3 * max(0, kernel - 1) * inner + inner * head)
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        return FLOAT_BYTES * (max(0, kernel - 1) * self._mixed() + state * inner)

    def _feed_forward(self) -> int:
        used = self._number("expert_used_count", 0)
        wide = max(self._each("feed_forward_length", 0))
        return max(wide, used * self._number("expert_feed_forward_length", 0))

    def _number(self, key: str, default: int | None = None, *, least: int = 0, most: int = 1 << 31) -> int:
        value = self._keys.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise UnreadableModel(
                f"The header lacks {self._architecture}.{key}, without which nothing can be estimated."
            )
        if isinstance(value, list):
            value = max(value, default=0)
        return checked(key, value, least=least, most=most)

    def _each(self, key: str, default: int | None) -> list[int]:
        """One number per layer; the header may give one for all. None: as many as there are heads."""
        value = self._keys.get(f"{self._architecture}.{key}", default)
        if value is None:
            return list(self._heads)
        if not isinstance(value, list):
            return [checked(key, value)] * self._count
        if len(value) < self._count:
            raise UnreadableModel(f"The header gives {key} for {len(value)} of {self._count} layers.")
        return [checked(key, number) for number in value[: self._count]]
