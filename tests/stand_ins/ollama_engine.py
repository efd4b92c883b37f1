"""A stand-in for Ollama, for machines that have none, and for what a real one does only when its memory is full.

It speaks the wire format of Ollama v0.32.14 over a real socket (server/routes.go, middleware/openai.go and
openai/openai.go; the bytes compared with those of a real one, see docs/ollama.md) and keeps its rules of memory
(server/sched.go): a load evicts idle models until it fits, one load at a time; a model in use goes when it is idle;
`keep_alive` below zero keeps a model, zero lets it go (that others go after five minutes is not played). What it
computes is nothing: its words are always the same.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FOREVER = "2319-03-05T12:03:52.500144927Z"
SOON = "2026-11-23T12:21:35.645145518Z"
CREATED_AT = "2026-11-23T12:16:35.645145518Z"
CREATED = 1795436235


@dataclass
class Model:
    """One that it has on disk.

    Attributes:
        modelfile_context_tokens: `PARAMETER num_ctx`, if there is one.
        remote_host: set where the model lies in somebody's cloud.
        fault: the status and sentence that its load ends with.
    """

    name: str
    size_bytes: int = 1_000
    trained_context_tokens: int = 4_096
    modelfile_context_tokens: int | None = None
    capabilities: tuple[str, ...] = ("completion", "tools")
    remote_host: str = ""
    fault: tuple[int, str] | None = None

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, as of its manifest."""
        return self.name.encode().hex().ljust(64, "0")[:64]

    @property
    def details(self) -> dict[str, Any]:
        """As in every list of models."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "1.33M",
            "quantization_level": "F32",
        }

    def tag(self) -> dict[str, Any]:
        """Its entry in `/api/tags`."""
        remote = {"remote_model": self.name, "remote_host": self.remote_host} if self.remote_host else {}
        context = {"context_length": self.trained_context_tokens, "embedding_length": 384}
        return {
            "name": self.name,
            "model": self.name,
            **remote,
            "modified_at": CREATED_AT,
            "size": self.size_bytes,
            "digest": self.digest,
            "details": self.details | context,
            "capabilities": list(self.capabilities),
        }


@dataclass
class Ollama:
    """Its disk, its memory, and orders for the next requests.

    Attributes:
        memory_bytes: what fits.
        context_tokens: its OLLAMA_CONTEXT_LENGTH, for models that do not say.
        load: a load waits for it; set by default.
        recovery_polls: how many times `/api/ps` still lists a model that has begun to go.
        hold: answers wait for it after their first word; set by default.
        gone: set when a client hangs up before the end of an answer.
        breaks: an answer breaks after its first word, as when llama-server crashes.
        dies: an answer's connection breaks after its first word, as when Ollama itself is killed.
        is_full: more requests wait than OLLAMA_MAX_QUEUE allows.
    """

    models: list[Model]
    memory_bytes: int = 10_000
    context_tokens: int = 2_048
    recovery_polls: int = 0
    breaks: bool = False
    dies: bool = False
    is_full: bool = False
    load: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    loaded: dict[str, bool] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    going: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.load.set()
        self.hold.set()

    def find(self, name: str) -> Model | None:
        """A model, by its name with or without `:latest`."""
        full = name if ":" in name else f"{name}:latest"
        return next((model for model in self.models if model.name == full), None)

    def context_of(self, model: Model) -> int:
        """What it runs with."""
        return min(model.trained_context_tokens, model.modelfile_context_tokens or self.context_tokens)

    async def bring(self, model: Model, keep_alive: float | None) -> None:
        """Have it in memory; evicts what is idle until it fits, and waits for what is not."""
        async with self._loading:
            if model.name not in self.loaded:
                async with self._changed:
                    while sum(self._size(name) for name in self.loaded) + model.size_bytes > self.memory_bytes:
                        idle = [name for name in self.loaded if not self.running[name]]
                        if idle:
                            self._drop(idle[0])
                        else:
                            await self._changed.wait()
                self.loads.append(model.name)
                await self.load.wait()
                if model.fault is not None:
                    raise Refused(*model.fault)
                self.loaded[model.name] = False
            if keep_alive is not None:
                self.loaded[model.name] = keep_alive < 0

    def _size(self, name: str) -> int:
        model = self.find(name)
        return model.size_bytes if model is not None else 0

    def _drop(self, name: str) -> None:
        del self.loaded[name]
        self.going[name] = self.recovery_polls
        self.evicted.append(name)

    def expire(self, model: Model) -> None:
        """Let it go as soon as it is idle."""
        if model.name in self.loaded and not self.running[model.name]:
            self._drop(model.name)
        elif model.name in self.loaded:
            self.going[model.name] = -1

    @asynccontextmanager
    async def using(self, model: Model) -> AsyncIterator[None]:
        """Count a request."""
        self.running[model.name] += 1
        try:
            yield
        finally:
            self.running[model.name] -= 1
            async with self._changed:
                if not self.running[model.name] and self.going.get(model.name) == -1:
                    self._drop(model.name)
                self._changed.notify_all()

    def processes(self) -> list[dict[str, Any]]:
        """`/api/ps`; who is going is listed for a while."""
        names = list(self.loaded)
        for name, polls in list(self.going.items()):
            if polls > 0:
                self.going[name] -= 1
                names.append(name)
            elif polls == 0:
                del self.going[name]
        models = [model for model in self.models if model.name in names]
        return [
            {
                "name": model.name,
                "model": model.name,
                "size": model.size_bytes,
                "digest": model.digest,
                "details": model.details | {"quantization_level": "unknown"},
                "expires_at": FOREVER if self.loaded.get(model.name) else SOON,
                "size_vram": model.size_bytes,
                "context_length": self.context_of(model),
            }
            for model in models
        ]


class Refused(Exception):
    """A status and a sentence; on `/api` as `{"error": sentence}`."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def _openai_refusal(status: int, sentence: str) -> web.Response:
    """The same on `/v1`."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    error = {"message": sentence, "type": kind, "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


def chunk(model: str, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream, byte for byte as Ollama writes it."""
    event = {
        "id": "chatcmpl-937",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return b"data: " + json.dumps(event | more, separators=(",", ":")).encode() + b"\n\n"


WORDS = (" Nobody", " else", ".")
USAGE = {"prompt_tokens": 25, "completion_tokens": 3, "total_tokens": 28}


def text_chunk(model: str, text: str, more: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    """One event of a completion's stream: the fields in another order, and a usage of nothing if usage is wanted."""
    event: dict[str, Any] = {
        "id": "cmpl-420",
        "object": "text_completion",
        "created": CREATED,
        "choices": [{"text": text, "index": 0, "finish_reason": finish_reason}],
        "model": model,
        "system_fingerprint": "fp_ollama",
    }
    return b"data: " + json.dumps({**event, **more}, separators=(",", ":")).encode() + b"\n\n"


async def _stream(ollama: Ollama, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    name, is_text = body["model"], request.path.endswith("/v1/completions")
    words = WORDS[_said(body) :]
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    nothing = {"usage": dict.fromkeys(USAGE, 0)} if wants_usage and is_text else {}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    first = text_chunk(name, words[0], nothing) if is_text else chunk(name, {"role": "assistant", "content": words[0]})
    await response.write(first)
    await ollama.hold.wait()
    if ollama.dies:
        assert request.transport is not None
        request.transport.abort()
    if ollama.breaks:
        # The error of the middle of a stream becomes an empty chunk of no model, and the stream just ends.
        await response.write(text_chunk("", "", nothing) if is_text else chunk("", {"content": ""}))
        return response
    for word in words[1:]:
        await response.write(text_chunk(name, word, nothing) if is_text else chunk(name, {"content": word}))
    await response.write(text_chunk(name, "", nothing, "stop") if is_text else chunk(name, {}, "stop"))
    if wants_usage:
        more: dict[str, Any] = {"choices": [], "usage": USAGE}
        await response.write(text_chunk(name, "", more) if is_text else chunk(name, {}, **more))
    await response.write(b"data: [DONE]\n\n")
    return response


def _said(body: dict[str, Any]) -> int:
    """How many words of its answer a chat ends with, after which it goes on."""
    last = (body.get("messages") or [{}])[-1]
    if last.get("role") != "assistant":
        return 0
    return next(count for count in range(1, len(WORDS)) if "".join(WORDS[:count]) == last["content"])


def _whole(body: dict[str, Any]) -> web.Response:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(WORDS)},
        "finish_reason": "stop",
    }
    if body.get("logprobs"):
        top = {"token": " Nobody", "logprob": -0.25, "bytes": list(b" Nobody")}
        choice["logprobs"] = {"content": [{**top, "top_logprobs": [top]}]}
    answer = {"id": "chatcmpl-771", "object": "chat.completion", "created": CREATED, "model": body["model"]}
    return web.json_response(answer | {"system_fingerprint": "fp_ollama", "choices": [choice], "usage": USAGE})


def _whole_text(body: dict[str, Any]) -> web.Response:
    choice = {"text": "".join(WORDS), "index": 0, "finish_reason": "stop"}
    answer = {"id": "cmpl-420", "object": "text_completion", "created": CREATED, "model": body["model"]}
    return web.json_response(answer | {"system_fingerprint": "fp_ollama", "choices": [choice], "usage": USAGE})


def _embedded(body: dict[str, Any]) -> web.Response:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "embedding": [0.25, 0.5], "index": index} for index in range(len(texts))]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})


async def _answer(ollama: Ollama, request: web.Request) -> web.StreamResponse:
    """An answer on `/v1`: the model comes by itself if it is not there."""
    body = await request.json()
    ollama.seen.append(body)
    try:
        model = _checked(ollama, body)
        await ollama.bring(model, None)
    except Refused as fault:
        return _openai_refusal(fault.status, fault.sentence)
    ollama.began.set()
    async with ollama.using(model):
        try:
            if request.path.endswith("/v1/embeddings"):
                return _embedded(body)
            if body.get("stream"):
                return await _stream(ollama, request, body)
            return _whole_text(body) if request.path.endswith("/v1/completions") else _whole(body)
        except (asyncio.CancelledError, ConnectionError):
            ollama.gone.set()
            raise


def _checked(ollama: Ollama, body: dict[str, Any]) -> Model:
    model = ollama.find(body["model"])
    if model is None:
        raise Refused(404, f"model '{body['model']}' not found")
    if body.get("tools") and "tools" not in model.capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{model.name} does not support tools")
    if ollama.is_full:
        raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
    tokens = len(str(body.get("messages", body.get("prompt", "")))) // 4
    if tokens > ollama.context_of(model):
        raise Refused(400, _too_long(tokens, ollama.context_of(model)))
    return model


def _too_long(tokens: int, context_tokens: int) -> str:
    """What llama-server says, as Ollama passes it on."""
    sentence = (
        f"request ({tokens} tokens) exceeds the available context size ({context_tokens} tokens), try increasing it"
    )
    error = {"code": 400, "message": sentence, "type": "exceed_context_size_error"}
    return json.dumps({"error": error | {"n_prompt_tokens": tokens, "n_ctx": context_tokens}}, separators=(",", ":"))


async def _generate(ollama: Ollama, request: web.Request) -> web.Response:
    """`/api/generate` without a prompt: load or unload."""
    body = await request.json()
    model = ollama.find(body.get("model", ""))
    if model is None:
        raise Refused(404, f"model '{body.get('model', '')}' not found")
    assert not body.get("prompt"), "the stand-in answers on /v1"
    keep_alive = body.get("keep_alive")
    if keep_alive == 0:
        ollama.expire(model)
    else:
        await ollama.bring(model, keep_alive)
    reason = "unload" if keep_alive == 0 else "load"
    answer = {"model": body["model"], "created_at": CREATED_AT, "response": "", "done": True, "done_reason": reason}
    return web.json_response(answer)


async def _show(ollama: Ollama, request: web.Request) -> web.Response:
    body = await request.json()
    model = ollama.find(body["model"])
    if model is None:
        raise Refused(404, f"model '{body['model']}' not found")
    size = model.modelfile_context_tokens
    return web.json_response(
        {
            "modelfile": "",
            **({"parameters": f"{'num_ctx':<30} {size}"} if size else {}),
            "template": "{{ .Prompt }}",
            "details": model.details,
            "model_info": {"general.architecture": "llama", "llama.context_length": model.trained_context_tokens},
            "capabilities": list(model.capabilities),
            "modified_at": CREATED_AT,
        }
    )


@asynccontextmanager
async def serve(ollama: Ollama) -> AsyncIterator[str]:
    """Run it; gives its root URL."""

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        ollama.asked.append(f"{request.method} {request.path}")
        try:
            answer: web.StreamResponse = await handler(request)
        except Refused as fault:
            return web.json_response({"error": fault.sentence}, status=fault.status)
        return answer

    async def tags(_request: web.Request) -> web.Response:
        return web.json_response({"models": [model.tag() for model in ollama.models]})

    async def processes(_request: web.Request) -> web.Response:
        return web.json_response({"models": ollama.processes()})

    async def version(_request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.14"})

    async def show(request: web.Request) -> web.StreamResponse:
        return await _show(ollama, request)

    async def generate(request: web.Request) -> web.StreamResponse:
        return await _generate(ollama, request)

    async def complete(request: web.Request) -> web.StreamResponse:
        return await _answer(ollama, request)

    app = web.Application(middlewares=[note], client_max_size=1 << 30)
    app.router.add_get("/api/version", version)
    app.router.add_get("/api/tags", tags)
    app.router.add_get("/api/ps", processes)
    app.router.add_post("/api/show", show)
    app.router.add_post("/api/generate", generate)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/completions", complete)
    app.router.add_post("/v1/embeddings", complete)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    ollama.url = f"http://{host}:{port}"
    try:
        yield ollama.url
    finally:
        ollama.hold.set()
        ollama.load.set()
        await runner.cleanup()
