"""What of a model decides how much memory it takes, whichever file it was read from.

Memory beside the weights is what the layers remember. A layer remembers in one of these ways, or in two of them:

- for every token a key and a value (attention): `key_size + value_size` numbers. Groups of heads share them
  (GQA), or they are stored compressed as one vector of the latent rank and a part for positions (MLA, no value);
- the same, but only of the last `window_tokens` (sliding windows);
- a state that does not grow with the text (`state_bytes`: Mamba, gated delta nets, RWKV, short convolutions).

So a model is a row of layers, and every family of models is a way to fill in that row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from server.errors import InvalidRequest

# Bounds on what a header may claim; the largest models have 126 layers, 1 024 experts and 10 000 000 tokens of context.
LAYERS_MAX = 4_096
SIZE_MAX = 1 << 31
WEIGHTS_BYTES_MAX = 1 << 50


class UnreadableModel(InvalidRequest):
    """A model file or folder that says too little, or nonsense; the message says which and what."""

    code = "unreadable_model"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer remembers.

    Attributes:
        key_size: numbers stored for every token as its key, all heads together.
        value_size: the same for its value; 0 where the key holds both (MLA).
        window_tokens: the layer looks back so far; 0 is all the way.
        state_bytes: what it keeps for a sequence however long.
    """

    key_size: int = 0
    value_size: int = 0
    window_tokens: int = 0
    state_bytes: int = 0


@dataclass(frozen=True)
class ModelShape:
    """A model as an estimate sees it; sizes are counts of numbers unless they say bytes.

    Attributes:
        source: "gguf" or "safetensors".
        architecture: the name its format gives it (llama, qwen3, gpt-oss; the `model_type` of config.json).
        layers: what each layer remembers; see Layer.
        attention_width: heads times the size of one, the width of a query.
        feed_forward_size: the widest feed-forward part that one token passes, all of its experts together.
        context_tokens: what it was trained for, 0 where nothing says.
        weight_bytes: by type of tensor (F16, Q4_K, BF16).
        input_bytes: of the tables that are only looked up (token embeddings), which llama.cpp keeps in main memory
            also where the layers are on a GPU. 0 where the same table is the output.
        experts, experts_used: 0 for a dense model.
        latent_size: rank of the compressed keys and values where they are stored so (MLA), else 0.
        recurrent_inner: width of a recurrent layer's state, 0 where there is none.
        recurrent_mixed: width of what goes through its convolution.
        doubts: what was not in the file and had to be supposed, a sentence each; they widen the band.
    """

    source: str
    architecture: str
    layers: tuple[Layer, ...]
    embedding_size: int
    attention_width: int
    heads: int
    feed_forward_size: int
    vocabulary_size: int
    context_tokens: int
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    tensor_count: int = 0
    input_bytes: int = 0
    experts: int = 0
    experts_used: int = 0
    latent_size: int = 0
    recurrent_inner: int = 0
    recurrent_mixed: int = 0
    doubts: tuple[str, ...] = ()

    @cached_property
    def weights_bytes(self) -> int:
        """All tensors together."""
        return sum(self.weight_bytes.values())

    @property
    def windowed_layers(self) -> int:
        """Layers that look back only so far."""
        return sum(layer.window_tokens > 0 for layer in self.layers)

    @property
    def recurrent_layers(self) -> int:
        """Layers with a state that does not grow."""
        return sum(layer.state_bytes > 0 for layer in self.layers)

    @property
    def attention_layers(self) -> int:
        """Layers that store something for every token."""
        return sum(layer.key_size > 0 for layer in self.layers)


def checked(name: str, number: object, *, least: int = 0, most: int = SIZE_MAX) -> int:
    """`number` as an int within its bounds. Raises UnreadableModel otherwise (also for true, 1.5 and "8")."""
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise UnreadableModel(
            f"The header gives {name} as {str(number)[:40]}: not a whole number from {least} to {most}."
        )
    return number
