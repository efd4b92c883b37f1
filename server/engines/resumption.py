"""How each kind of engine is asked to go on with an answer (server/engines/continuation.py).

- llama-server tells the ids of tokens beside their probabilities, if it is asked for one of these (`n_probs`), and
  takes a prompt of ids. `/apply-template` and `/tokenize` make the ids of the conversation.
- vLLM tells them as `token_ids`, and makes those of the conversation in `/tokenize`. It tells ids before their text
  where it looks for stop strings; then the text serves, as the beginning of the answer (`continue_final_message`).
- SGLang takes the beginning of the answer in the same words, Ollama as the last message.
- A completion has no template: its prompt and what was written are one text, for any engine.

As in llama.cpp of 2026-10, vLLM 0.32, SGLang 0.5 and Ollama 0.32. Whether an engine really does it the conformance test
finds out (conformance.py): templates differ.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from server.errors import EngineFailed
from server.messages import Surface, Written

COMPLETIONS: frozenset[Surface] = frozenset({"completions"})
BOTH: frozenset[Surface] = frozenset({"chat.completions", "completions"})
# By kind; of others a completion can go on.
SURFACES: Mapping[str, frozenset[Surface]] = {
    "llama-server": BOTH,
    "vllm": BOTH,
    "sglang": BOTH,
    "ollama": frozenset({"chat.completions"}),
}
TEXT = rb'"(?:[^"\\]+|\\.)*"'
FLAT = rb"\{(?:[^\"{}]+|" + TEXT + rb")*\}"
NESTED = rb"\{(?:[^\"{}]+|" + TEXT + rb"|" + FLAT + rb")*\}"
# What was asked for beside what the client did, as these engines write it.
TRACES: Mapping[str, re.Pattern[bytes]] = {
    "llama-server": re.compile(rb',"logprobs":\{(?:[^"{}]+|' + TEXT + rb"|" + NESTED + rb")*\}"),
    "vllm": re.compile(rb',"(?:prompt_)?token_ids":(?:null|\[[\d, ]*\])'),
}
# A chat's own fields, which a completion does not have.
OF_CHATS = frozenset({"messages", "max_completion_tokens", "chat_template_kwargs", "chat_template", "reasoning_format"})
TEMPLATE_FIELDS = ("messages", "chat_template_kwargs", "chat_template")

# POSTs to a route outside of /v1 and gives the object that comes back. Raises WirthforgeError.
Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Resumption(Struct, frozen=True):
    """The request that goes on; `written` of its prompt's tokens are the answer so far."""

    surface: Surface
    body: dict[str, Any]
    written: int


def traced(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body with which an engine also tells the ids of tokens, where it can."""
    match kind:
        case "llama-server":
            return body | {"n_probs": 1, "post_sampling_probs": True}
        case "vllm" if not body.get("stop"):
            return body | {"return_token_ids": True}
        case _:
            return body


async def resumed(kind: str, surface: Surface, body: dict[str, Any], written: Written, ask: Ask) -> Resumption:
    """The request that goes on.

    Args:
        body: that of the request so far.
        ask: the engine's other routes.

    Raises:
        EngineFailed: the engine answered rubbish; and what `ask` raises.
    """
    if kind == "llama-server" or (kind == "vllm" and not body.get("stop") and all(each.ids for each in written.pieces)):
        if kind == "llama-server":
            prompt, answer = await _llama_prompt(surface, body, ask), await _llama_answer(written, ask)
        else:
            prompt = await _vllm_prompt(surface, body, ask)
            answer = [token for piece in written.pieces for token in piece.ids]
        body = _completion(_shortened(body, len(answer))) | {"prompt": prompt + answer}
        return Resumption("completions", traced(kind, body), len(answer))
    body = _shortened(body, written.tokens)
    if surface == "completions":
        return Resumption(surface, body | {"prompt": body["prompt"] + written.text}, written.tokens)
    messages = [*body["messages"], {"role": "assistant", "content": written.text}]
    if kind in {"vllm", "sglang"}:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return Resumption(surface, body | {"messages": messages}, written.tokens)


def _shortened(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """What may still be written; at least one token, since none would mean no bound to some engines."""
    bounds = {
        name: max(body[name] - tokens, 1 if name != "min_tokens" else 0)
        for name in ("max_tokens", "max_completion_tokens", "n_predict", "min_tokens")
        if isinstance(body.get(name), int) and body[name] > 0
    }
    return body | bounds


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    bound = body.get("max_completion_tokens")
    rest = {name: value for name, value in body.items() if name not in OF_CHATS}
    return rest | ({"max_tokens": bound} if bound is not None else {})


async def _llama_answer(written: Written, ask: Ask) -> list[int]:
    """An event tells one id and may hold the text of several: of a letter in bytes, of what might have been a stop."""
    told = [token for piece in written.pieces for token in piece.ids]
    if all(piece.ids for piece in written.pieces) and await _llama_text(told, ask) == written.text:
        return told
    texts: dict[tuple[int, ...], str] = {(): ""}
    found: list[int] = []
    for piece in written.pieces:
        if piece.ids not in texts:
            texts[piece.ids] = await _llama_text(list(piece.ids), ask)
        own = texts[piece.ids]
        if own and piece.text.endswith(own):
            found += [*await _llama_inner_ids(piece.text.removesuffix(own), ask), *piece.ids]
        else:
            found += await _llama_inner_ids(piece.text, ask)
    return found


async def _llama_text(ids: list[int], ask: Ask) -> str:
    return _text(await ask("/detokenize", {"tokens": ids}), "content")


async def _llama_inner_ids(text: str, ask: Ask) -> list[int]:
    """Of a text that does not begin a line: some tokenizers put a space before whatever comes first."""
    if not text:
        return []
    before = _ids(await ask("/tokenize", {"content": "\n", "add_special": False}))
    return _ids(await ask("/tokenize", {"content": f"\n{text}", "add_special": False}))[len(before) :]


async def _llama_prompt(surface: Surface, body: dict[str, Any], ask: Ask) -> list[int]:
    if surface == "completions":
        prompt = body["prompt"]
    else:
        template = {name: body[name] for name in TEMPLATE_FIELDS if name in body}
        prompt = _text(await ask("/apply-template", template), "prompt")
    return _ids(await ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True}))


async def _vllm_prompt(surface: Surface, body: dict[str, Any], ask: Ask) -> list[int]:
    model = {"model": body["model"]}
    if surface == "completions":
        return _ids(await ask("/tokenize", model | {"prompt": body["prompt"]}))
    template = {name: body[name] for name in TEMPLATE_FIELDS if name in body}
    return _ids(await ask("/tokenize", model | template))


def _text(answer: dict[str, Any], name: str) -> str:
    text = answer.get(name)
    if not isinstance(text, str):
        raise EngineFailed("The engine does not give its template.")
    return text


def _ids(answer: dict[str, Any]) -> list[int]:
    ids = answer.get("tokens")
    if not (isinstance(ids, list) and all(isinstance(each, int) for each in ids)):
        raise EngineFailed("The engine does not give the ids of its tokens.")
    return ids
