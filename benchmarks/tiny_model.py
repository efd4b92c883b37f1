"""A model for tests and benchmarks: a real transformer that this file writes in a moment, with as many layers as asked.

A word-bigram model is a transformer whose layers add nothing. With one dimension per token, the embedding is the
identity (token i is the i-th unit vector); blocks of zero weights leave the residual stream alone; the output matrix
then holds, in column i, the log-probability of every token after token i. llama.cpp runs it like any other
llama-architecture GGUF: batching, slots, sampling, chat template and cancellation are the real thing; only the sense
is missing. It rearranges the sentences below, word by word, and ends where a sentence ends.

RMSNorm scales a unit vector of n dimensions by √n, so the output matrix is divided by √n.
"""

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

NAME = "wirthforge-tiny"
CONTEXT_TOKENS = 4096
HEADS = 8

# What the model has read. Short sentences that share words make the most of two-word memory.
CORPUS = """
A council is several models that answer one question . Their answers become one answer .
A council is a second opinion when there is room on the box .
The box is shared by a few people and nobody waits for anybody else .
The box is one machine with one engine or several engines .
An engine is a running server that holds a model . A model is what the engine serves .
A slot is a place in the engine where one answer grows . When a slot is free the next request gets it .
A lease is a slot with a deadline . When the person leaves the lease ends and the slot is free again .
A request waits in the queue until a slot is free . The queue is short when the box is idle .
Every token is counted and every request leaves one row of usage .
Your requests are yours . Nobody else can see what you ask .
Your neighbour cannot hurt you because the box is shared by weight .
The admin sets a quota for everybody . A quota is an amount of tokens in a day .
A key is for a program and a password is for a person .
This is a demonstration model that knows two words at a time . It only rearranges words about this box .
You can add a real model and then the answers make sense .
"""
PUNCTUATION = frozenset(".,?!:;")
UNKNOWN, BEGIN, END = 0, 1, 2
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def build(path: Path, *, layers: int = 1) -> None:
    """Write the model as a GGUF file, atomically.

    Args:
        path: where; its folder must exist.
        layers: transformer blocks, all zero. More of them change no answer and cost time, which a test can use.
    """
    words = CORPUS.split()
    pieces = _pieces(words)
    scores = _log_probabilities(words, {piece: token for token, (piece, _) in enumerate(pieces)}, len(pieces))
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    _describe(writer, len(pieces), layers)
    _add_tokenizer(writer, pieces)
    _add_tensors(writer, scores, layers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def _pieces(words: list[str]) -> list[tuple[str, gguf.TokenType]]:
    """Control tokens, the 256 bytes (so that any prompt can be read), the words; padded for the heads to divide."""
    control = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    octets = [(f"<0x{octet:02X}>", gguf.TokenType.BYTE) for octet in range(256)]
    vocabulary = [(_piece(word), gguf.TokenType.NORMAL) for word in dict.fromkeys(words)]
    pieces = [*control, *octets, *vocabulary]
    padding = -len(pieces) % (2 * HEADS)
    return pieces + [(f"<unused{number}>", gguf.TokenType.UNUSED) for number in range(padding)]


def _piece(word: str) -> str:
    """A word with the space before it, as SentencePiece writes it; punctuation sticks to the word before."""
    return word if word in PUNCTUATION else f"▁{word}"


def _log_probabilities(words: list[str], token_of: dict[str, int], size: int) -> NDArray[np.float32]:
    """The output matrix, [next token, this token], scaled for RMSNorm."""
    tokens = [token_of[_piece(word)] for word in words]
    starts = Counter(
        after for before, after in zip([None, *words], tokens, strict=False) if before is None or before == "."
    )
    follows: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for before, after in pairwise(tokens):
        follows[before][after] += 1
    stop = token_of["."]
    # A sentence is followed by another two times in three.
    follows[stop][END] = max(1, follows[stop].total() // 2)
    probabilities = np.full((size, size), 1e-9, dtype=np.float64)
    for token in range(size):
        counts = follows.get(token, starts)
        for after, count in counts.items():
            probabilities[after, token] = count / counts.total()
    return (np.log(probabilities) / math.sqrt(size)).astype(np.float32)


def _describe(writer: gguf.GGUFWriter, size: int, layers: int) -> None:
    writer.add_name(NAME)
    writer.add_description("A word-bigram model for demonstration; knows nothing.")
    writer.add_license("Apache-2.0")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(size // HEADS)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: list[tuple[str, gguf.TokenType]]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in pieces])
    # SentencePiece merges towards the highest score: longer pieces first.
    writer.add_token_scores([float(len(piece)) for piece, _ in pieces])
    writer.add_token_types([int(kind) for _, kind in pieces])
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)  # noqa: FBT003 (the library's signature)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, scores: NDArray[np.float32], layers: int) -> None:
    size = scores.shape[0]
    ones, zeros = np.ones(size, dtype=np.float32), np.zeros((size, size), dtype=np.float32)
    writer.add_tensor("token_embd.weight", np.eye(size, dtype=np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", scores)
    for layer in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", zeros)
