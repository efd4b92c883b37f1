"""The models of the package, in llama.cpp, asked over its own HTTP interface."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp

from server.embedded import models

FOLDER = Path(models.__file__).parent
NAMES = ("small", "middle", "large")
MODELS = {name: FOLDER / f"wirthforge-{name}.gguf" for name in NAMES}
ANSWER_TOKENS_MAX = 120


class Asked:
    """One model, started for a test; it ends with the process."""

    def __init__(self, path: Path) -> None:
        chosen = xllamacpp.CommonParams()
        chosen.verbosity = 1
        chosen.model.path = str(path)
        chosen.n_ctx, chosen.n_parallel = 2048, 1
        chosen.cpuparams.n_threads = 1
        chosen.ui = False
        self._server = xllamacpp.Server(chosen)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        address = f"{self._server.listening_address}{path}"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 (loopback)
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found

    def tokens(self, text: str) -> list[int]:
        """How llama.cpp cuts a text."""
        found: list[int] = self._post("/tokenize", {"content": text, "add_special": False, "parse_special": False})[
            "tokens"
        ]
        return found

    def chat(self, *messages: str, **more: Any) -> tuple[str, str]:
        """The answer to a conversation that a person begins, and why it ended."""
        roles = ("user", "assistant")
        said = [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]
        body = {"messages": said, "max_tokens": ANSWER_TOKENS_MAX, "seed": 1, **more}
        choice = self._post("/v1/chat/completions", body)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]
