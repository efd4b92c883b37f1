"""Ollama: answers through its OpenAI surface, everything else through its own routes.

Two surfaces lead to the same handler in Ollama. `/api/chat` speaks lines of JSON, so each token would have to be parsed
and written anew, and tool calls and log probabilities translated. `/v1` does that translation in Ollama itself, and
gives tools, JSON schemas, log probabilities, images and usage as OpenAI has them; bytes pass. So answers come from
`/v1`, and what it loses is made good here, on the request, where it costs nothing per token:

- `max_completion_tokens` is unknown to it and would leave an answer without a bound: it becomes `max_tokens`.
- `n`, `best_of`, several prompts and a forced tool are ignored, or refused with a sentence about Go: they are refused
  here.
- An image for a model that takes none is a 500 there, which looks like a broken engine: it is refused here.
- The reason of a refusal comes as JSON inside of a string: it is taken out.
- Each event of a completion carries a usage of nothing, where OpenAI has none: it is left out, which also spares the
  meter from reading each event.

What it loses for good: `logit_bias` and `parallel_tool_calls` are ignored, and where a conversation is longer than the
context, Ollama drops its oldest messages without a word (`truncate` can be switched off in `/api/chat` alone). A
`keep_alive` cannot be given, and need not: a model that was loaded with one keeps it (`useLoadedRunner` in
server/sched.go).

Models that Ollama would only pass on to its makers' cloud (`remote_host` in the list) are left out: who asks here asks
this box.

Formats as in Ollama v0.32.14 (server/routes.go, server/sched.go, openai/openai.go, api/types.go), and as tried by hand
(docs/ollama.md).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
import structlog

from server.clock import Clock, SystemClock
from server.engines.drivers import CALL_MS_MAX, MOVE_MS_MAX, Control
from server.engines.openai_compatible import OpenAICompatible
from server.engines.places import State
from server.engines.protocol import Reply
from server.engines.resuming import Resuming
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound
from server.messages import Pressure, ServedModel, Surface

# Ollama answers before the memory is free; it looks for at most five seconds itself (`waitForRecovery`).
WATCH_EVERY_MS = 250
UNLOAD_MS_MAX = 600_000
# A list of models is long, and each is asked about once; what is left over is asked with the next probe.
SHOWS_PER_PROBE_MAX = 50
NAME_CHARACTERS_MAX = 500
NO_USAGE = b',"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'

log = structlog.get_logger(__name__)


class _Details(msgspec.Struct):
    # Since about v0.32; before, only `/api/show` tells.
    context_length: int = 0


class _Listed(msgspec.Struct):
    model: str
    digest: str = ""
    size: int = 0
    remote_host: str = ""
    remote_model: str = ""
    details: _Details = msgspec.field(default_factory=_Details)
    capabilities: list[str] | None = None


class _Tags(msgspec.Struct):
    models: list[_Listed] | None


class _Running(msgspec.Struct):
    model: str
    digest: str = ""
    size: int = 0
    context_length: int = 0


class _Processes(msgspec.Struct):
    models: list[_Running] | None


class _Version(msgspec.Struct):
    version: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f]{0,100}\Z")]


class _Shown(msgspec.Struct):
    model_info: dict[str, Any] | None = None
    # Lines of the Modelfile's PARAMETERs: name, spaces, value.
    parameters: str = ""
    capabilities: list[str] | None = None


class Ollama(Resuming):
    """An adapter for one Ollama, and the driver of its models (`drivers.Driver`).

    Ollama has slots as llama.cpp has them, chooses among them itself and has no parameter that keeps their prompt
    caches apart. So `salt` cannot be honoured: a second person's request may start from the first one's prompt, and
    its time tells. `isolates_caches` says so; share such an engine only among people who trust each other.

    Args:
        base_url: the root, without `/v1` or `/api`.
        slots: its OLLAMA_NUM_PARALLEL, which it does not tell; 1 unless it was set.
        silence_ms_max: how long it may say nothing.
        clock: to watch a model leave; the machine's, if none is given.
    """

    kind = "ollama"
    isolates_caches = False
    rests_in = State.COLD

    def __init__(
        self,
        base_url: str,
        *,
        slots: int,
        silence_ms_max: int,
        name: str = "",
        api_key: str = "",
        clock: Clock | None = None,
    ) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        self._openai = OpenAICompatible(
            f"{root}/v1", kind=self.kind, slots=slots, silence_ms_max=silence_ms_max, name=name, api_key=api_key
        )
        self.base_url = root
        self.name = self._openai.name
        self.slots = slots
        # Each slot has its own part of the cache.
        self.kv_tokens = 0
        self.prefill_chunk_tokens: int | None = None
        self.books_whole_answers = False
        self.version = ""
        self._control = Control(root, name=self.name, api_key=api_key)
        self._clock = clock or SystemClock()
        self._listed: dict[str, _Listed] = {}
        self._shown: dict[str, _Shown] = {}
        # What a model had when it was last seen running, by digest; the server's default is not told otherwise.
        self._ran: dict[str, _Running] = {}

    @property
    def stall_s(self) -> float:
        """How long it may say nothing after the first token."""
        return self._openai.stall_s

    @stall_s.setter
    def stall_s(self, stall_s: float) -> None:
        self._openai.stall_s = stall_s

    @property
    def dialect(self) -> str:
        """Its kind; of which only chats go on, since a completion gets its model's template, too."""
        return self.kind

    async def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """See `Resuming`."""
        return await self._openai.ask(route, body)

    async def probe(self) -> tuple[ServedModel, ...]:
        """List the models of this machine, with the context that each has as far as Ollama tells it."""
        listed = [model for model in await self._tags() if _is_here(model)]
        await self._processes()
        await self._learn_version()
        self._listed = {model.model: model for model in listed}
        await self._show(listed)
        digests = {model.digest for model in listed}
        self._shown = {digest: shown for digest, shown in self._shown.items() if digest in digests}
        self._ran = {digest: running for digest, running in self._ran.items() if digest in digests}
        return tuple(ServedModel(id=model.model, context_tokens=self._context_tokens(model)) for model in listed)

    async def _learn_version(self) -> None:
        try:
            self.version = self._read(await self._control.get("/api/version"), _Version).version
        except (EngineFailed, NotFound) as error:
            log.debug("engine does not tell its version", engine=self.name, reason=error.message)

    async def _tags(self) -> Sequence[_Listed]:
        return self._read(await self._control.get("/api/tags"), _Tags).models or ()

    async def _processes(self) -> dict[str, _Running]:
        running = self._read(await self._control.get("/api/ps"), _Processes).models or ()
        self._ran.update({model.digest: model for model in running})
        return {model.model: model for model in running}

    async def _show(self, listed: Sequence[_Listed]) -> None:
        new = [model for model in listed if model.digest not in self._shown]
        for model in new[:SHOWS_PER_PROBE_MAX]:
            try:
                answer = await self._control.post("/api/show", {"model": model.model})
                self._shown[model.digest] = self._read(answer, _Shown)
            except EngineFailed as error:
                # One broken model does not take the others away.
                log.warning("model cannot be shown", engine=self.name, model=model.model, reason=error.message)

    def _read(self, answer: object, kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 (of the kind that was asked for)
        try:
            return msgspec.convert(answer, kind)
        except (msgspec.ValidationError, RecursionError) as error:
            raise EngineFailed(f"Engine {self.name} answers in a form that is not Ollama's.") from error

    def _context_tokens(self, model: _Listed) -> int | None:
        """As it ran last; else the Modelfile's, at most what it was trained for; else that, which may be too much."""
        ran = self._ran.get(model.digest)
        if ran is not None and ran.context_length > 0:
            return ran.context_length
        shown = self._shown.get(model.digest, _Shown())
        trained = [
            value
            for key, value in (shown.model_info or {}).items()
            if key.endswith(".context_length") and isinstance(value, int)
        ]
        known = [*trained, model.details.context_length, _parameter(shown.parameters, "num_ctx")]
        return min((tokens for tokens in known if tokens > 0), default=None)

    async def metrics(self) -> None:
        """It has no such page."""
        return

    async def pressure(self) -> Pressure | None:
        """Nothing: Ollama has no metrics page."""
        return None

    def size_bytes(self, model: str) -> int:
        """What the model took when it was last seen in memory; else its size on disk; 0 if it is not known."""
        listed = self._listed.get(model)
        if listed is None:
            return 0
        ran = self._ran.get(listed.digest)
        return ran.size if ran is not None and ran.size > 0 else max(0, listed.size)

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> Reply:
        """POST the request to `/v1`; see `Engine.open`, and the class for what becomes of `salt`."""
        changed = _translated(surface, body, takes_images=self._takes_images(str(body.get("model"))))
        try:
            reply = await self._openai.open(surface, changed, request_id, salt)
        except InvalidRequest as error:
            raise InvalidRequest(_plain(error.message), code=error.code) from error
        return _TextReply(reply) if surface == "completions" else reply

    def _takes_images(self, model: str) -> bool:
        """Unless Ollama has said that it does not."""
        listed = self._listed.get(model)
        if listed is None:
            return True
        capabilities = listed.capabilities or self._shown.get(listed.digest, _Shown()).capabilities
        return not capabilities or "vision" in capabilities

    async def states(self) -> dict[str, State]:
        """See `Driver`. Ollama does not tell what is busy."""
        running = await self._processes()
        listed = [model for model in await self._tags() if _is_here(model)]
        return {model.model: State.RESIDENT if model.model in running else State.COLD for model in listed}

    async def load(self, model: str) -> None:
        """See `Driver`. The model stays until it is unloaded, or Ollama needs its room."""
        await self._control.post("/api/generate", {"model": model, "keep_alive": -1}, ms_max=MOVE_MS_MAX)
        await self._processes()

    async def unload(self, model: str) -> None:
        """See `Driver`. Ollama waits for what runs, however long that takes, and says nothing when it is done."""
        await self._control.post("/api/generate", {"model": model, "keep_alive": 0}, ms_max=CALL_MS_MAX)
        for _ in range(UNLOAD_MS_MAX // WATCH_EVERY_MS):
            if model not in await self._processes():
                return
            await self._clock.sleep_ms(WATCH_EVERY_MS)
        raise EngineTimeout(f"Engine {self.name} did not unload {model}.")

    async def close(self) -> None:
        """Let go of connections."""
        await asyncio.gather(self._openai.close(), self._control.close())


class _TextReply:
    """A completion under way, without the usage of nothing in each event."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.read = reply.read
        self.close = reply.close
        self.expect_tokens = reply.expect_tokens

    async def chunks(self) -> AsyncIterator[bytes]:
        """As the socket gives them. Ollama writes an event at a time; one cut in two keeps its usage."""
        async for chunk in self._reply.chunks():
            yield chunk.replace(NO_USAGE, b"")


def _is_here(model: _Listed) -> bool:
    is_name = 0 < len(model.model) <= NAME_CHARACTERS_MAX and model.model.isprintable()
    return is_name and not model.remote_host and not model.remote_model


def _parameter(lines: str, name: str) -> int:
    """A whole number among the Modelfile's parameters; 0 if there is none."""
    for line in lines.splitlines():
        words = line.split()
        if words[:1] == [name] and len(words) == 2 and words[1].isdecimal():  # noqa: PLR2004 (name and value)
            return int(words[1][:9])
    return 0


def _translated(surface: Surface, body: dict[str, Any], *, takes_images: bool) -> dict[str, Any]:
    """A copy of the request as Ollama's `/v1` understands it.

    Raises:
        InvalidRequest: it asks for what Ollama cannot do, and would leave out in silence.
    """
    changed = dict(body)
    for several in ("n", "best_of"):
        if (answers := changed.pop(several, None)) is not None and answers != 1:
            raise InvalidRequest("Ollama gives one answer at a time.", param=several, code="not_supported")
    if "max_completion_tokens" in changed:
        bound = changed.pop("max_completion_tokens")
        changed["max_tokens"] = changed.get("max_tokens") if bound is None else bound
    if surface == "completions" and isinstance(changed.get("prompt"), list):
        changed["prompt"] = _one_prompt(changed["prompt"])
    if surface == "chat.completions":
        _choose_tools(changed)
        if not takes_images and _has_image(changed.get("messages")):
            raise InvalidRequest("This model takes no images.", param="messages", code="not_supported")
    return changed


def _one_prompt(prompts: list[Any]) -> str:
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        raise InvalidRequest("Ollama takes one prompt, as text.", param="prompt", code="not_supported")
    return prompts[0]


def _choose_tools(body: dict[str, Any]) -> None:
    """Ollama does not know `tool_choice`; it always leaves the choice to the model."""
    match body.pop("tool_choice", None):
        case None | "auto":
            pass
        case "none":
            body.pop("tools", None)
        case _:
            raise InvalidRequest(
                "Ollama cannot force a model to call a tool.", param="tool_choice", code="not_supported"
            )


def _has_image(messages: object) -> bool:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                return True
    return False


def _plain(sentence: str) -> str:
    """The sentence inside, where Ollama passes on llama-server's error as it is."""
    try:
        inner = msgspec.json.decode(sentence)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return sentence
    match inner:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return sentence
