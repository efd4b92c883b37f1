"""Keeping one person's cached prompts from another, in each engine's own way.

An engine that keeps prompts answers sooner where it knows the beginning, which tells whoever shares the cache what
others have asked. What an engine offers against that differs:

- vLLM and SGLang take a `cache_salt` with each request and mix it into the keys of their cache.
- llama-server keeps a prompt in each slot. Slots are pinned to people: a request names its slot, and may reuse what is
  in it (`cache_prompt`) only if the last prompt there was of the same person and model. Which slot is whose is in
  Redis, for all replicas. Several answers to one request, and embeddings, land in slots that the engine chooses: while
  such a request runs nobody reuses anything. Its other caches (`--cache-ram`, `--cache-idle-slots`) must be off, as in
  the embedded one.
- Of others nobody knows; the conformance test (conformance.py) finds out whether they keep people apart.

Clients cannot interfere: the server strips these fields from their requests (api/wire.py), and here those with which a
request names what another one has left in an engine, or where.
"""

from typing import Any, Protocol

from msgspec import Struct

from server.messages import Surface

SALTED = frozenset({"vllm", "sglang"})
# As they call themselves in their lists of models (vLLM 0.11, SGLang 0.5, llama-server of 2026-10).
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama-server"}

# Sessions, keys of the cache, ids, where cached prompts are fetched from, which copy of the model answers (vLLM 0.32:
# entrypoints/openai/chat_completion/protocol.py; SGLang: srt/entrypoints/openai/protocol.py at 004c82e, 2026).
NAMES_OTHERS = frozenset(
    {
        *("session_id", "session_params", "extra_key", "rid", "request_id"),
        *("kv_transfer_params", "ec_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room"),
        *("routed_dp_rank", "disagg_prefill_dp_rank", "data_parallel_rank"),
    }
)


class Pin(Struct, frozen=True):
    """A slot for a request; None: it may land anywhere. `is_own`: what the slot holds is this person's."""

    slot: int | None
    is_own: bool


class Pins(Protocol):
    """Whose prompts the slots of engines hold, for all replicas. Raises Unavailable."""

    async def take(self, place: str, request_id: str, salt: str, slots: int) -> Pin:
        """A slot for a request; with an empty salt none, and no slot is anybody's own while it runs."""
        ...

    async def own(self, place: str, request_id: str, salt: str, slot: int) -> None:
        """The request's prompt is in its slot now."""
        ...


class Isolation:
    """How requests to one engine are kept apart.

    Args:
        place: the address of the engine, which may have several names.
        pins: None: slots cannot be pinned, so no prompt is reused.
    """

    def __init__(self, place: str, pins: Pins | None) -> None:
        self._place = place
        self._pins = pins

    async def apply(
        self, kind: str, surface: Surface, body: dict[str, Any], request_id: str, salt: str, slots: int
    ) -> tuple[dict[str, Any], Pin | None]:
        """The body with what this kind needs; and the pin to confirm once the engine answers, if there is one.

        Args:
            slots: as the engine tells them; 0 where it does not: then none can be named.
        """
        if NAMES_OTHERS & body.keys():
            body = {name: value for name, value in body.items() if name not in NAMES_OTHERS}
        if kind in SALTED:
            return body | {"cache_salt": salt}, None
        if kind != "llama-server":
            return body, None
        if self._pins is None:
            return body | {"cache_prompt": False}, None
        is_single = surface != "embeddings" and body.get("n") in (None, 1) and slots > 0
        pin = await self._pins.take(self._place, request_id, salt if is_single else "", slots)
        if pin.slot is None:
            return body | {"cache_prompt": False}, None
        return body | {"id_slot": pin.slot, "cache_prompt": pin.is_own}, pin

    async def confirm(self, pin: Pin | None, request_id: str, salt: str) -> None:
        """The engine has read the prompt."""
        if pin is not None and pin.slot is not None and self._pins is not None:
            await self._pins.own(self._place, request_id, salt, pin.slot)


def keeps_apart(kind: str, *, has_pins: bool) -> bool | None:
    """Whether a kind is known to keep people's prompts apart; None where nobody knows."""
    if kind in SALTED:
        return True
    return True if kind == "llama-server" and has_pins else None
