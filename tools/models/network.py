"""The network: llama's architecture, as small as it goes.

Tokens become vectors (the same table reads them out again); each layer adds what attention and a gated feed-forward
network say about them. Positions are rotations of neighbouring pairs of numbers, as llama.cpp expects for `llama`.
"""

# mypy: allow-subclassing-any

import torch  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional  # type: ignore[import-not-found]

from tools.models.shape import Shape

ROPE_BASE = 10_000.0
NORM_EPS = 1e-5
CONTEXT_TOKENS = 4096


class Attention(nn.Module):
    """Every position looks at those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q, self.k, self.v, self.output = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))

    def forward(self, stream: Tensor, turns: Tensor) -> Tensor:
        """What the positions see."""
        rows, length, width = stream.shape
        q, k, v = (each(stream).view(rows, length, self.heads, -1).transpose(1, 2) for each in (self.q, self.k, self.v))
        seen = functional.scaled_dot_product_attention(_turned(q, turns), _turned(k, turns), v, is_causal=True)
        found: Tensor = self.output(seen.transpose(1, 2).reshape(rows, length, width))
        return found


class FeedForward(nn.Module):
    """A gate decides what passes."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(shape.width, shape.inner, bias=False) for _ in range(2))
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """What each position thinks by itself."""
        found: Tensor = self.down(functional.silu(self.gate(stream)) * self.up(stream))
        return found


class Layer(nn.Module):
    """Attention, then the feed-forward network, each on what is normalised and each added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = (nn.RMSNorm(shape.width, eps=NORM_EPS) for _ in range(2))
        self.attn, self.ffn = Attention(shape), FeedForward(shape)

    def forward(self, stream: Tensor, turns: Tensor) -> Tensor:
        """The stream after this layer."""
        stream = stream + self.attn(self.attn_norm(stream), turns)
        found: Tensor = stream + self.ffn(self.ffn_norm(stream))
        return found


class Network(nn.Module):
    """The whole of it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=NORM_EPS)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                smaller = (2 * shape.layers) ** -0.5 if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(
                    parameter, std=0.02 if "embedding" in name else smaller * parameter.shape[1] ** -0.5 * 0.7
                )

    def forward(self, tokens: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Scores of the next token, at the wanted positions (a mask) or at all."""
        stream = self.embedding(tokens)
        turns = _turns(tokens.shape[1], self.shape.width // self.shape.heads)
        for layer in self.layers:
            stream = layer(stream, turns)
        if wanted is not None:
            stream = stream[wanted]
        return functional.linear(self.norm(stream), self.embedding.weight)


def _turns(length: int, size: int) -> Tensor:
    speeds = ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), speeds)
    return torch.stack([angles.cos(), angles.sin()])


def _turned(heads: Tensor, turns: Tensor) -> Tensor:
    even, odd = heads[..., 0::2], heads[..., 1::2]
    cos, sin = turns.to(heads.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
