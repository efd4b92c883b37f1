"""Models without numbers: an honest GGUF header, and a hole where the weights would be.

llama.cpp allocates weights, cache, state and buffers by the header, so memory can be measured for families and sizes
whose files are not here. Such a sparse file takes a few megabytes on disk; the numbers in the hole read as zeros, and
nothing is asked of the models. Tensors are named and shaped as llama.cpp wants them (src/models/*.cpp; xllamacpp
2026.10 loads them all). Weights are F16 unless told otherwise, which a CPU uses as they are.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from benchmarks import tiny_model

F16, F32, Q4_0 = gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q4_0
ALIGNMENT = 32
SPECIAL_TOKENS = 259
DEFAULT_BATCH = 512
# Vectors and these stay F32, as converters leave them.
KEPT_F32 = re.compile(r"conv1d|ssm_(?:a|d|norm)|bias$")
Tensors = dict[str, tuple[int, ...]]
Keys = dict[str, int | float | list[int]]


class Trial(NamedTuple):
    """A model's header, and how to load it."""

    name: str
    architecture: str
    keys: Keys
    tensors: Tensors
    vocabulary: int
    slots: int = 1
    context: int = 8192
    cache: str = "f16"
    batch: int = DEFAULT_BATCH
    kind: gguf.GGMLQuantizationType = F16


def write_hollow(path: Path, trial: Trial) -> None:
    """A GGUF file with the header of `trial` and a hole for its numbers."""
    writer = gguf.GGUFWriter(path, trial.architecture)
    for key, value in trial.keys.items():
        name = f"{trial.architecture}.{key}"
        match value:
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case list():
                writer.add_array(name, value)
    _add_tokens(writer, trial.vocabulary)
    size = 0
    for name, extents in trial.tensors.items():
        kind = F32 if len(extents) == 1 or KEPT_F32.search(name) else trial.kind
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        tensor_bytes = int(np.prod(extents)) // block * block_bytes
        rows = [*reversed(extents)]
        rows[-1] = rows[-1] // block * block_bytes if kind != F32 else rows[-1]
        layout = np.dtype(np.float32 if kind == F32 else np.uint8)
        writer.add_tensor_info(name, rows, layout, tensor_bytes, raw_dtype=None if kind == F32 else kind)
        size += -(-tensor_bytes // ALIGNMENT) * ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-file.seek(0, 2) // ALIGNMENT) * ALIGNMENT + size)


def _add_tokens(writer: gguf.GGUFWriter, count: int) -> None:
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        ["<unk>", "<s>", "</s>", *octets, *(f"w{number}" for number in range(count - SPECIAL_TOKENS))]
    )
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (count - SPECIAL_TOKENS))
    writer.add_unk_token_id(tiny_model.UNKNOWN)
    writer.add_bos_token_id(tiny_model.BEGIN)
    writer.add_eos_token_id(tiny_model.END)
    writer.add_chat_template(tiny_model.CHAT_TEMPLATE)


def dense(  # noqa: PLR0913 (the sizes of a transformer)
    *,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    head: int,
    forward: int,
    vocabulary: int,
    extra: Keys | None = None,
) -> tuple[Keys, Tensors]:
    """Keys and tensors of a Llama-like model."""
    keys: Keys = {
        "context_length": 131072,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": head,
        **(extra or {}),
    }
    tensors: Tensors = {
        "token_embd.weight": (width, vocabulary),
        "output_norm.weight": (width,),
        "output.weight": (width, vocabulary),
    }
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": (width,),
            f"{block}attn_q.weight": (width, heads * head),
            f"{block}attn_k.weight": (width, kv_heads * head),
            f"{block}attn_v.weight": (width, kv_heads * head),
            f"{block}attn_output.weight": (heads * head, width),
            f"{block}ffn_norm.weight": (width,),
            f"{block}ffn_gate.weight": (width, forward),
            f"{block}ffn_up.weight": (width, forward),
            f"{block}ffn_down.weight": (forward, width),
        }
    return keys, tensors


def with_norms(tensors: Tensors, layers: int, head: int, *, after: int = 0) -> Tensors:
    """Norms of queries and keys (Qwen3), and after each part (Gemma: `after` is the width)."""
    for layer in range(layers):
        tensors |= {f"blk.{layer}.attn_q_norm.weight": (head,), f"blk.{layer}.attn_k_norm.weight": (head,)}
        if after:
            tensors |= {f"blk.{layer}.post_{part}_norm.weight": (after,) for part in ("attention", "ffw")}
    return tensors


def experts(tensors: Tensors, layers: int, width: int, forward: int, count: int) -> Tensors:
    """The same with experts in place of each feed-forward part."""
    kept = {name: extents for name, extents in tensors.items() if not re.search(r"ffn_(gate|up|down)\.", name)}
    for layer in range(layers):
        block = f"blk.{layer}.ffn_"
        kept |= {
            f"{block}gate_inp.weight": (width, count),
            f"{block}gate_exps.weight": (width, forward, count),
            f"{block}up_exps.weight": (width, forward, count),
            f"{block}down_exps.weight": (forward, width, count),
        }
    return kept


def llama(**choices: Any) -> Trial:  # noqa: ANN401
    """The sizes of Llama 3.2 1B."""
    keys, tensors = dense(layers=16, width=2048, heads=32, kv_heads=8, head=64, forward=8192, vocabulary=128256)
    return Trial("Llama 3.2 1B", "llama", keys, tensors, 128256, **choices)


def qwen3(**choices: Any) -> Trial:  # noqa: ANN401
    """The sizes of Qwen3 0.6B: heads of 128 where width / heads is 64."""
    keys, tensors = dense(layers=28, width=1024, heads=16, kv_heads=8, head=128, forward=3072, vocabulary=151936)
    return Trial("Qwen3 0.6B", "qwen3", keys, with_norms(tensors, 28, 128), 151936, **choices)


def qwen3_moe(**choices: Any) -> Trial:  # noqa: ANN401
    """Qwen3 with experts, of sizes of our own: 8 of 32 at a time."""
    extra: Keys = {"expert_count": 32, "expert_used_count": 8, "expert_feed_forward_length": 768}
    keys, tensors = dense(
        layers=4, width=1024, heads=16, kv_heads=4, head=128, forward=3072, vocabulary=32000, extra=extra
    )
    return Trial(
        "Qwen3 MoE, small", "qwen3moe", keys, experts(with_norms(tensors, 4, 128), 4, 1024, 768, 32), 32000, **choices
    )


def gemma3(**choices: Any) -> Trial:  # noqa: ANN401
    """The sizes of Gemma 3 1B: every sixth layer sees all, the others 512 tokens; the output is the input table."""
    keys, tensors = dense(
        layers=26, width=1152, heads=4, kv_heads=1, head=256, forward=6912, vocabulary=262144,
        extra={"attention.sliding_window": 512},
    )  # fmt: skip
    tensors = with_norms(tensors, 26, 256, after=1152)
    del tensors["output.weight"]
    return Trial("Gemma 3 1B", "gemma3", keys, tensors, 262144, **choices)


def gpt_oss(**choices: Any) -> Trial:  # noqa: ANN401
    """gpt-oss of sizes of our own: windows of 128 in every other layer, sinks, biases, 4 of 32 experts."""
    layers, width, heads, kv_heads, head, forward, count = 4, 1024, 16, 4, 64, 1024, 32
    extra: Keys = {"expert_count": count, "expert_used_count": 4, "expert_feed_forward_length": forward}
    keys, tensors = dense(
        layers=layers, width=width, heads=heads, kv_heads=kv_heads, head=head, forward=forward, vocabulary=32000,
        extra={**extra, "attention.sliding_window": 128},
    )  # fmt: skip
    tensors = experts(tensors, layers, width, forward, count)
    biases = {"attn_q": heads * head, "attn_k": kv_heads * head, "attn_v": kv_heads * head, "attn_output": width}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors[f"{block}post_attention_norm.weight"] = tensors.pop(f"{block}ffn_norm.weight")
        tensors |= {f"{block}{name}.bias": (size,) for name, size in biases.items()}
        tensors |= {f"{block}attn_sinks.weight": (heads,), f"{block}ffn_gate_inp.bias": (count,)}
        tensors |= {f"{block}ffn_{name}_exps.bias": (forward, count) for name in ("gate", "up")}
        tensors |= {f"{block}ffn_down_exps.bias": (width, count)}
    return Trial("gpt-oss, small", "gpt-oss", keys, tensors, 32000, **choices)


def deepseek(**choices: Any) -> Trial:  # noqa: ANN401
    """DeepSeek-V3's attention (rank 512, 64 for positions) with 16 heads, four layers without experts."""
    layers, width, heads, rank, positions, head = 4, 1024, 16, 512, 64, 128
    extra: Keys = {
        "attention.value_length": rank,
        "attention.key_length_mla": head + positions,
        "attention.value_length_mla": head,
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": 384,
        "rope.dimension_count": positions,
        "leading_dense_block_count": layers,
        "expert_count": 0,
        "expert_used_count": 0,
        "expert_feed_forward_length": 512,
        "expert_shared_count": 1,
        "expert_weights_scale": 1.0,
    }
    keys, tensors = dense(
        layers=layers, width=width, heads=heads, kv_heads=1, head=rank + positions, forward=3072, vocabulary=32000,
        extra=extra,
    )  # fmt: skip
    for layer in range(layers):
        block = f"blk.{layer}.attn_"
        for name in ("q", "k", "v"):
            del tensors[f"{block}{name}.weight"]
        tensors |= {
            f"{block}q_a.weight": (width, 384),
            f"{block}q_a_norm.weight": (384,),
            f"{block}q_b.weight": (384, heads * (head + positions)),
            f"{block}kv_a_mqa.weight": (width, rank + positions),
            f"{block}kv_a_norm.weight": (rank,),
            f"{block}k_b.weight": (head, rank, heads),
            f"{block}v_b.weight": (rank, head, heads),
            f"{block}output.weight": (heads * head, width),
        }
    return Trial("DeepSeek MLA, small", "deepseek2", keys, tensors, 32000, **choices)


def mamba2(**choices: Any) -> Trial:  # noqa: ANN401
    """The sizes of Mamba 2 370m."""
    layers, width, inner, state, heads, vocabulary = 48, 1024, 2048, 128, 32, 50288
    keys: Keys = {
        "context_length": 1 << 20,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": heads,
        "ssm.group_count": 1,
    }
    tensors: Tensors = {"token_embd.weight": (width, vocabulary), "output_norm.weight": (width,)}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": (width,),
            f"{block}ssm_in.weight": (width, 2 * inner + 2 * state + heads),
            f"{block}ssm_conv1d.weight": (4, inner + 2 * state),
            f"{block}ssm_conv1d.bias": (inner + 2 * state,),
            f"{block}ssm_dt.bias": (heads,),
            f"{block}ssm_a": (1, heads),
            f"{block}ssm_d": (1, heads),
            f"{block}ssm_norm.weight": (inner, 1),
            f"{block}ssm_out.weight": (inner, width),
        }
    return Trial("Mamba 2 370m", "mamba2", keys, tensors, vocabulary, **choices)


def qwen3_next(**choices: Any) -> Trial:  # noqa: ANN401
    """Qwen3-Next of sizes of our own: three layers of gated delta nets, one of attention; experts."""
    layers, width, heads, head, inner, keys_width, forward = 4, 1024, 8, 256, 4096, 2048, 512
    extra: Keys = {
        "expert_count": 16,
        "expert_used_count": 4,
        "expert_feed_forward_length": forward,
        "expert_shared_feed_forward_length": forward,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": 128,
        "ssm.time_step_rank": 32,
        "ssm.group_count": 16,
        "rope.dimension_count": 64,
    }
    keys, tensors = dense(
        layers=layers, width=width, heads=heads, kv_heads=2, head=head, forward=2048, vocabulary=32000, extra=extra
    )
    tensors = experts(tensors, layers, width, forward, 16)
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors[f"{block}post_attention_norm.weight"] = tensors.pop(f"{block}ffn_norm.weight")
        tensors |= {f"{block}ffn_gate_inp_shexp.weight": (width,), f"{block}ffn_down_shexp.weight": (forward, width)}
        tensors |= {f"{block}ffn_{name}_shexp.weight": (width, forward) for name in ("gate", "up")}
        if layer == layers - 1:
            tensors[f"{block}attn_q.weight"] = (width, 2 * heads * head)
            tensors |= {f"{block}attn_{name}_norm.weight": (head,) for name in "qk"}
            continue
        for name in ("q", "k", "v", "output"):
            del tensors[f"{block}attn_{name}.weight"]
        tensors |= {
            f"{block}attn_qkv.weight": (width, 2 * keys_width + inner),
            f"{block}attn_gate.weight": (width, inner),
            f"{block}ssm_conv1d.weight": (4, 2 * keys_width + inner),
            f"{block}ssm_dt.bias": (32,),
            f"{block}ssm_a": (32,),
            f"{block}ssm_ba.weight": (width, 64),
            f"{block}ssm_norm.weight": (128,),
            f"{block}ssm_out.weight": (inner, width),
        }
    return Trial("Qwen3-Next, small", "qwen3next", keys, tensors, 32000, **choices)
