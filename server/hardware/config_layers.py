"""From a config.json to layers.

Names and defaults are those of transformers (`configuration_*.py` of gemma3 and granitemoehybrid at 008f5c8c, cohere2
and qwen3_next at 008e5743): `head_dim` where the head size is not hidden size / heads; `layer_types` says what each
layer is, else a period (`sliding_window_pattern`, `full_attention_interval`); `kv_lora_rank` and `qk_rope_head_dim`
mean MLA. Models that also see keep all of this in `text_config`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from server.hardware.shapes import LAYERS_MAX, Layer, ModelShape, UnreadableModel, checked

FLOAT_BYTES = 4
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
# Every n-th layer is full where only a window is given; a model that is not here slides in all its layers (Mistral 7B
# v0.1), or in none if it says use_sliding_window: false.
WINDOW_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gemma3n_text": 5, "cohere2": 4, "gpt_oss": 2}
SLIDING = frozenset({"sliding_attention", "chunked_attention"})
FULL = frozenset({"full_attention", "attention"})
STATE = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent"})
# These see a whole text at once and remember nothing.
ENCODERS = frozenset({"bert", "modernbert", "nomic_bert", "roberta", "xlm-roberta"})
HYBRID_LETTERS = {"M": "mamba", "*": "full_attention", "-": "nothing", "E": "nothing"}
LINEAR_INTERVAL = 4

Config = Mapping[str, Any]


def shape_from_config(config: Config, *, weight_bytes: Mapping[str, int], tensor_count: int) -> ModelShape:
    """The shape that config.json describes. Raises UnreadableModel where something is missing or out of bounds."""
    inner = config.get("text_config")
    return _Reader({**config, **inner} if isinstance(inner, dict) else config).shape(weight_bytes, tensor_count)


class _Reader:
    """One config."""

    def __init__(self, config: Config) -> None:
        self._config = config
        kind = config.get("model_type")
        if not isinstance(kind, str) or not kind:
            raise UnreadableModel("config.json does not name its model_type.")
        self._kind = kind
        self._doubts: list[str] = []
        # Of the recurrent layers: their state, and what goes through their convolution.
        self._widths = (0, 0)
        self._count = self._number("num_hidden_layers", "n_layer", "num_layers", least=1, most=LAYERS_MAX)
        self._hidden = self._number("hidden_size", "n_embd", "d_model", least=1)
        self._heads = self._number("num_attention_heads", "n_head", default=0)

    def shape(self, weight_bytes: Mapping[str, int], tensor_count: int) -> ModelShape:
        """Everything together."""
        head = self._head_size()
        query = self._number("qk_nope_head_dim", default=0) + self._number("qk_rope_head_dim", default=0)
        used = self._number("num_experts_per_tok", "moe_topk", "top_k_experts", default=0)
        wide = self._number("intermediate_size", "n_inner", "ffn_dim", default=4 * self._hidden)
        layers = tuple(self._layers())
        return ModelShape(
            source="safetensors",
            architecture=self._kind,
            layers=layers,
            embedding_size=self._hidden,
            attention_width=self._heads * (query or head),
            heads=self._heads,
            feed_forward_size=max(wide, used * self._number("moe_intermediate_size", default=wide if used else 0)),
            vocabulary_size=self._number("vocab_size", default=0),
            context_tokens=self._number(*CONTEXT_KEYS, default=0),
            weight_bytes=weight_bytes,
            tensor_count=tensor_count,
            experts=self._number("num_experts", "num_local_experts", "n_routed_experts", default=0),
            experts_used=used,
            latent_size=self._number("kv_lora_rank", default=0),
            recurrent_inner=self._widths[0],
            recurrent_mixed=self._widths[1],
            doubts=tuple(self._doubts),
        )

    def _head_size(self) -> int:
        usual = self._hidden // self._heads if self._heads else 0
        return self._number("head_dim", "attention_head_dim", default=usual)

    def _layers(self) -> list[Layer]:
        if self._kind in ENCODERS:
            return [Layer()] * self._count
        key, value = self._attention()
        window = self._window()
        own = self._count - self._number("num_kv_shared_layers", default=0)
        layers = []
        for index, kind in enumerate(self._kinds(window)):
            if kind in STATE:
                layers.append(Layer(state_bytes=self._state_bytes(kind)))
            elif kind in FULL | SLIDING and index < own:
                layers.append(Layer(key, value, window if kind in SLIDING else 0))
            else:
                layers.append(Layer())
        return layers

    def _attention(self) -> tuple[int, int]:
        if rank := self._number("kv_lora_rank", default=0):
            return rank + self._number("qk_rope_head_dim"), 0
        heads = self._number("num_key_value_heads", "num_kv_heads", default=self._heads)
        if self._config.get("multi_query") is True:
            heads = 1
        size = self._head_size()
        return heads * size, heads * self._number("v_head_dim", default=size)

    def _window(self) -> int:
        if self._config.get("use_sliding_window") is False:
            return 0
        return self._number("sliding_window", "attention_chunk_size", default=0)

    def _kinds(self, window: int) -> list[str]:
        """What each layer is, in the words of `layer_types`."""
        listed = self._config.get("layer_types") or self._config.get("layers_block_type")
        if isinstance(listed, list):
            return self._listed([str(kind) for kind in listed], window)
        letters = self._config.get("hybrid_override_pattern")
        if isinstance(letters, str):
            return self._listed([HYBRID_LETTERS.get(letter, letter) for letter in letters], window)
        return [self._rule(window)(index) for index in range(self._count)]

    def _listed(self, kinds: list[str], window: int) -> list[str]:
        if len(kinds) != self._count:
            raise UnreadableModel(f"config.json says what {len(kinds)} of {self._count} layers are.")
        unknown = sorted(set(kinds) - SLIDING - FULL - STATE - {"nothing"})
        if unknown:
            self._doubts.append(f"layers of type {', '.join(unknown)[:80]} are taken for full attention")
        named = [kind if kind not in unknown else "full_attention" for kind in kinds]
        return named if window else ["full_attention" if kind in SLIDING else kind for kind in named]

    def _rule(self, window: int) -> Callable[[int], str]:
        if self._kind in {"mamba", "mamba2", "falcon_mamba"}:
            return lambda _: "mamba"
        if self._number("linear_num_value_heads", default=0):
            interval = self._number("full_attention_interval", default=LINEAR_INTERVAL, least=1)
            return lambda index: "linear_attention" if (index + 1) % interval else "full_attention"
        if period := self._number("attn_layer_period", default=0):
            offset = self._number("attn_layer_offset", default=0)
            return lambda index: "attention" if index % period == offset else "mamba"
        return self._window_rule() if window else lambda _: "full_attention"

    def _window_rule(self) -> Callable[[int], str]:
        pattern = self._config.get("sliding_window_pattern", self._config.get("_sliding_window_pattern"))
        if isinstance(pattern, str) and pattern:
            # EXAONE 4 writes it in letters: LLLG.
            marks = pattern
            return lambda index: "sliding_attention" if marks[index % len(marks)] == "L" else "full_attention"
        default = WINDOW_PATTERNS.get(self._kind, 0)
        every = checked("sliding_window_pattern", pattern) if pattern is not None else default
        if every == 0:
            return lambda _: "sliding_attention"
        return lambda index: "sliding_attention" if (index + 1) % every else "full_attention"

    def _state_bytes(self, kind: str) -> int:
        """History of the convolution and state, in f32 (an engine may keep them in half of that)."""
        if kind == "conv":
            return FLOAT_BYTES * self._hidden * self._number("conv_L_cache")
        if kind == "linear_attention":
            keys, state = self._number("linear_num_key_heads"), self._number("linear_key_head_dim")
            inner = self._number("linear_num_value_heads") * self._number("linear_value_head_dim")
            mixed, kernel = inner + 2 * keys * state, self._number("linear_conv_kernel_dim", least=1)
        else:
            state = self._number("mamba_d_state", "ssm_state_size", "state_size")
            inner, kernel = self._inner(), self._number("mamba_d_conv", "conv_kernel", least=1)
            mixed = inner + 2 * self._number("mamba_n_groups", "n_groups", default=0) * state
        self._widths = (inner, mixed)
        return FLOAT_BYTES * ((kernel - 1) * mixed + state * inner)

    def _inner(self) -> int:
        heads = self._number("mamba_n_heads", "mamba_num_heads", default=0)
        size = self._config.get("mamba_d_head", self._config.get("mamba_head_dim"))
        if heads and isinstance(size, int):
            return heads * checked("mamba_d_head", size)
        if self._kind in {"mamba", "falcon_mamba"}:
            return self._number("intermediate_size", "d_inner")
        return self._hidden * self._number("mamba_expand", "expand", default=2)

    def _number(self, *names: str, default: int | None = None, least: int = 0, most: int = 1 << 31) -> int:
        """The first of the names that is there and not null."""
        for name in names:
            value = self._config.get(name)
            if value is not None:
                return checked(name, value, least=least, most=most)
        if default is None:
            raise UnreadableModel(f"config.json lacks {names[0]}, which an estimate needs.")
        return default
