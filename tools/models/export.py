"""From a network to a GGUF file that llama.cpp runs.

The chat template shows the model the last question alone, in lower case: it was taught single questions, and a
conversation before them would be something it has never seen.
"""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from tools.models.network import CONTEXT_TOKENS, NORM_EPS, ROPE_BASE, Network
from tools.models.tokenizer import BEGIN, END, Tokenizer

CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- set last.text = message['content'] -%}{%- endif -%}{%- endfor -%}"
    "{{- '<|user|>' + (last.text | trim | lower) -}}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
# What the samplers are set to where a request does not say: a demonstration says the best that it knows.
TEMPERATURE = 0.2
FILE_TYPES = {
    GGMLQuantizationType.F32: gguf.LlamaFileType.ALL_F32,
    GGMLQuantizationType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    GGMLQuantizationType.Q5_0: gguf.LlamaFileType.MOSTLY_Q5_0,
}
NAMES = {
    "attn.q": "attn_q", "attn.k": "attn_k", "attn.v": "attn_v", "attn.output": "attn_output", "attn_norm": "attn_norm",
    "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down", "ffn_norm": "ffn_norm",
}  # fmt: skip


def write(
    network: Network,
    tokenizer: Tokenizer,
    path: Path,
    *,
    name: str,
    matrices: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
) -> None:
    """Write the file, atomically.

    Args:
        network: trained.
        name: the model's.
        matrices: the type of the layers' matrices; the table of tokens is Q8_0 unless they are F32.
    """
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    _describe(writer, network, name, FILE_TYPES[matrices])
    _add_tokenizer(writer, tokenizer)
    table = GGMLQuantizationType.F32 if matrices == GGMLQuantizationType.F32 else GGMLQuantizationType.Q8_0
    for tensor, values in network.state_dict().items():
        numbers: NDArray[np.float32] = values.float().numpy()
        kind = GGMLQuantizationType.F32 if numbers.ndim == 1 else table if tensor == "embedding.weight" else matrices
        quantised = gguf.quants.quantize(numbers, kind)
        writer.add_tensor(_tensor_name(tensor), quantised, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def _tensor_name(name: str) -> str:
    match name.removesuffix(".weight").split(".", 2):
        case ["embedding"]:
            return "token_embd.weight"
        case ["norm"]:
            return "output_norm.weight"
        case ["layers", layer, rest]:
            return f"blk.{layer}.{NAMES[rest]}.weight"
        case _:
            raise ValueError(name)


def _describe(writer: gguf.GGUFWriter, network: Network, name: str, file_type: gguf.LlamaFileType) -> None:
    shape = network.shape
    writer.add_name(name)
    writer.add_description("A demonstration model: answers questions about WIRTHFORGE, and nothing else.")
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(file_type)
    writer.add_sampling_temp(TEMPERATURE)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pieces
    control = {number: gguf.TokenType.CONTROL for number in range(len(pieces)) if tokenizer.is_control(number)}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(pieces))
    writer.add_token_types([int(control.get(number, gguf.TokenType.NORMAL)) for number in range(len(pieces))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)  # noqa: FBT003 (the library's signature)
    writer.add_chat_template(CHAT_TEMPLATE)
