"""The program of one engine: llama.cpp's HTTP server with one model, until it is told to end.

    WIRTHFORGE_ENGINE_KEY=... python -m server.embedded.llama_program --model PATH --name NAME --port PORT ...

What one user's prompt leaves behind must not show in another user's latency, so everything that carries a prompt over
from one request to the next is off until the server asks for it, request by request:

- no prompt cache in main memory (`cache_ram_mib`), and no slot parked in it (`cache_idle_slots`);
- no slot chosen because its old prompt resembles the new one (`slot_prompt_similarity`);
- no reuse inside a slot (`cache_prompt`) unless the request says `"cache_prompt": true`, which no client may. A server
  that pins slots to users (`id_slot`) can say so, and erase a slot that changes hands (POST /slots/ID?action=erase);
  llama.cpp allows that only where slots could also be saved, hence `--slots-folder`.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

import xllamacpp

from server.embedded.gguf_header import declares

KEY_VARIABLE = "WIRTHFORGE_ENGINE_KEY"
# llama.cpp's levels: 2 is warnings. At 3, the default, every request writes lines to a log that is cut only at a start.
VERBOSITY = 2
# Prompt tokens computed in one go. A slot that is answering gets its next token between two of these, so a long prompt
# next door stalls it for 512 tokens and not for the default's 2048. It is one physical batch (n_ubatch) anyway.
BATCH_TOKENS = 512


def main(arguments: Sequence[str]) -> int:
    """Load the model and serve it; returns only when it could not be loaded (1)."""
    options = _parser().parse_args(arguments)
    # Nobody who comes later in this process has a use for the key.
    key = os.environ.pop(KEY_VARIABLE)
    try:
        engine = xllamacpp.Server(parameters(options, key))
    except RuntimeError:
        # llama.cpp has said why, on standard error.
        return 1
    assert engine.listening_address, "it listens before it loads"
    while True:
        signal.pause()


def parameters(options: argparse.Namespace, key: str) -> xllamacpp.CommonParams:
    """What llama.cpp is asked for. Layers go to the GPUs that it sees by its own default: all, if they fit."""
    chosen = xllamacpp.CommonParams()
    chosen.verbosity = VERBOSITY
    chosen.model.path = options.model
    chosen.model_alias = {options.name}
    chosen.port = options.port
    chosen.api_keys = [key]
    # No web page has business here; the default answers every origin.
    chosen.cors_origins = ""
    chosen.ui = False
    chosen.endpoint_slots = True
    chosen.endpoint_metrics = True
    # Slots with a part each: one long prompt cannot take what the others were promised.
    chosen.kv_unified = False
    chosen.n_parallel = options.slots
    chosen.n_ctx = options.slots * options.context
    chosen.cache_ram_mib = 0
    chosen.cache_idle_slots = False
    chosen.slot_prompt_similarity = 0.0
    chosen.cache_prompt = False
    chosen.slot_save_path = os.path.join(options.slots_folder, "")  # noqa: PTH118 (it must end in a slash)
    chosen.n_batch = chosen.n_ubatch = BATCH_TOKENS
    if options.on_cpu:
        chosen.n_gpu_layers = 0
    if options.embeddings:
        chosen.embedding = True
        # An input to embed is computed in one batch or refused.
        chosen.n_batch = chosen.n_ubatch = options.context
        if not declares(options.model, ".pooling_type"):
            chosen.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve one model with llama.cpp.")
    parser.add_argument("--model", required=True, help="the GGUF file")
    parser.add_argument("--name", required=True, help="what clients call the model")
    parser.add_argument("--slots", type=int, required=True, help="answers at the same time")
    parser.add_argument("--context", type=int, required=True, help="tokens of each slot")
    parser.add_argument("--port", type=int, required=True, help="on the loopback interface")
    parser.add_argument("--slots-folder", required=True, help="a private folder; nothing is written to it unasked")
    parser.add_argument("--embeddings", action="store_true", help="also serve /v1/embeddings")
    parser.add_argument("--on-cpu", action="store_true", help="use no GPU")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
