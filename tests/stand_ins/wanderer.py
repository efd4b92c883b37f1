"""A model that wanders: every token depends on all before it, so a wrong token at a seam shows in all that follows.

A llama with random attention over a word list whose words can be cut into tokens in several ways. A matrix of allowed
successors keeps the bytes of a letter together, in the order that UTF-8 asks for; among those allowed the attention,
random and fixed by a seed, decides.
"""

from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

NAME = "wanderer"
HEADS, LAYERS, CONTEXT_TOKENS = 4, 2, 4096
WORDS = [
    *("▁a", "▁ab", "▁abc", "b", "bc", "c", "▁the", "▁th", "e", "▁box", "▁bo", "x", "▁is", "▁i", "s"),
    *("▁END", "▁EN", "D", "▁##", "#", ".", ",", "▁two", "▁tw", "o", "▁light", "▁li", "ght", "▁"),
    # SentencePiece builds long pieces from shorter ones.
    *("▁E", "N", "▁t", "h", "w", "▁b", "▁l", "i", "g", "gh", "t", "▁#"),
]
LETTERS = ("é", "€", "漢", "😀")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
FORBIDDEN, CHOICE = -5000.0, 6.0
# How sharply attention chooses, and how much it says.
SHARPNESS, VOICE = 4.0, 1.5

SCALES = {"attn_q": SHARPNESS, "attn_k": SHARPNESS, "attn_v": 1.0, "attn_output": VOICE}


def build(path: Path, *, seed: int = 7) -> None:
    """Write the model as a GGUF file."""
    chance = np.random.default_rng(seed)
    tokens = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    octets = [(f"<0x{number:02X}>", gguf.TokenType.BYTE) for number in range(256)]
    pieces = [*tokens, *octets, *((word, gguf.TokenType.NORMAL) for word in WORDS)]
    size = -(-len(pieces) // 32) * 32
    pieces += [(f"<unused{number}>", gguf.TokenType.UNUSED) for number in range(size - len(pieces))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(size)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(size // HEADS)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([float(len(piece)) for piece, _ in pieces])
    writer.add_token_types([int(kind) for _, kind in pieces])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)  # noqa: FBT003 (the library's signature)
    writer.add_chat_template(CHAT_TEMPLATE)
    _add_tensors(writer, _successors(size), size, chance)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _successors(size: int) -> np.ndarray:
    """[next, this]: whether a token may follow another."""
    words = [3 + 256 + number for number in range(len(WORDS))]
    firsts = {3 + letter.encode()[0] for letter in LETTERS}
    allowed = np.zeros((size, size), dtype=bool)
    for this in range(size):
        allowed[[*words, *firsts], this] = True
    for letter in LETTERS:
        octets = [3 + octet for octet in letter.encode()]
        for before, after in pairwise(octets):
            allowed[:, before] = False
            allowed[after, before] = True
    return allowed


def _add_tensors(writer: gguf.GGUFWriter, allowed: np.ndarray, size: int, chance: np.random.Generator) -> None:
    ones = np.ones(size, dtype=np.float32)
    # A unit vector has √size after the norm, so each entry here counts that often.
    scores = np.where(allowed, 0.0, FORBIDDEN) + chance.normal(0, CHOICE, (size, size))
    writer.add_tensor("token_embd.weight", np.eye(size, dtype=np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", (scores / np.sqrt(size)).astype(np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            matrix = chance.normal(0, SCALES.get(name, 0) / np.sqrt(size), (size, size))
            if name == "attn_output":
                # What attention says shall not touch what is forbidden: nothing in sum, and nothing of letters' bytes.
                matrix[3 : 3 + 256] = 0
                matrix[3 + 256 :] -= matrix[3 + 256 :].mean(axis=0)
                matrix[:3] = 0
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix.astype(np.float32))
