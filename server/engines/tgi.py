"""text-generation-inference (TGI), as of 3.3.7 (github.com/huggingface/text-generation-inference at db931fc).

Theory of operation. TGI has two surfaces. Completions go through huggingface_hub's `AsyncInferenceClient` to its own
/generate_stream, which takes more (`top_k`, `truncate`, grammars) than its OpenAI route and tells why an answer ended
and what it counted. Conversations go to /v1/chat/completions as bytes: the client would build its objects for every
chunk (38 µs of the event loop against 1 µs, measured with huggingface_hub 2.4.0) and knows no field of OpenAI's that
it was not generated with. Both use the connection that every adapter has (openai_compatible.py), because the client's
own follows redirects, takes proxies from the environment, sends the Hub token of this machine to any engine without a
key, reads a line of any length, and cuts an answer where it holds U+2028, which its line reader takes for a line's end.

What is particular to TGI:

- A stream begins with status 200 whatever comes: "overloaded" and "invalid" are its first event. So `open` waits for
  that event.
- Comments keep the connection alive while a request waits inside TGI; they are no sign that it goes on. Silence is
  counted from event to event.
- There is no isolation of prompt caches by request: whoever shares an engine shares its prefix cache. The launcher's
  `PREFIX_CACHING=0` turns it off; `salt` has no effect here.
"""

import asyncio
import re
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any

import aiohttp
import msgspec
from huggingface_hub.errors import TextGenerationError

from server.engines.openai_compatible import (
    ONE_PIECE_BYTES_MAX,
    PROBE_MS_MAX,
    ROUTES,
    UNREACHABLE,
    OpenAICompatible,
)
from server.engines.protocol import Reply
from server.engines.tgi_answers import ChatStream, Events, Faults, WholeChat
from server.engines.tgi_bodies import chat_body, generate_parameters
from server.engines.tgi_client import Client, Completion, Transport
from server.errors import EngineFailed, InvalidRequest, NotFound
from server.messages import Pressure, ServedModel, Surface
from server.tracing.spans import current

# The router's own default; TGI tells it nowhere.
PREFILL_TOKENS_ASSUMED = 4096
# From 3.0 on TGI tells its pool on its Prometheus page, before that at /info.
POOL_GAUGE = re.compile(rb"^tgi_batch_max_total_tokens ([0-9]{1,15})", re.MULTILINE)


class _Info(msgspec.Struct):
    """GET /info. The pool stood there before TGI 3; the chunk never did, but may where somebody puts it."""

    model_id: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f]{1,500}\Z")]
    max_concurrent_requests: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    max_total_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    max_batch_total_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] | None = None
    max_batch_prefill_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] | None = None
    version: Annotated[str, msgspec.Meta(max_length=100)] = ""


class Tgi(OpenAICompatible):
    """An adapter for one TGI. Its prefix cache knows no users: run it with `PREFIX_CACHING=0`.

    Args:
        base_url: with or without `/v1`.
        slots: until TGI tells its own.
        silence_ms_max: how long it may tell no token.

    Attributes:
        kv_tokens: the tokens of all running requests together; 0 where it does not tell.
        prefill_chunk_tokens: prompts of so many tokens are prefilled at a time.
        books_whole_answers: TGI starts a request when prompt and longest answer fit its pool, and keeps the room.
    """

    def __init__(self, base_url: str, *, slots: int, silence_ms_max: int, name: str = "", api_key: str = "") -> None:
        self.root = base_url.rstrip("/").removesuffix("/v1")
        super().__init__(
            f"{self.root}/v1", kind="tgi", slots=slots, silence_ms_max=silence_ms_max, name=name, api_key=api_key
        )
        self.prefill_chunk_tokens = PREFILL_TOKENS_ASSUMED
        self.books_whole_answers = True
        self._model = ""
        self._tells_prefill = False
        self.faults = Faults(self.name)

    @property
    def assumed(self) -> frozenset[str]:
        """See OpenAICompatible: it mostly does not tell its prefill chunk."""
        return super().assumed | (frozenset() if self._tells_prefill else {"prefill_tokens"})

    async def probe(self) -> tuple[ServedModel, ...]:
        """Learn the model and the limits; see `Engine.probe`."""
        self._has_metrics = True
        try:
            async with asyncio.timeout(PROBE_MS_MAX / 1000):
                told = await Client(self.root, self._transport("")).get_endpoint_info()
                found = msgspec.convert(told, _Info)
        except TimeoutError as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached.", code=UNREACHABLE) from error
        except (ValueError, RecursionError) as error:
            raise EngineFailed(f"Engine {self.name} tells about itself in a form that is not TGI's.") from error
        self._model = found.model_id
        self.version = found.version if found.version.isprintable() else ""
        # One request more than TGI takes is refused; health checks and other clients need room as well.
        self.slots, self._tells_slots = max(found.max_concurrent_requests - 1, 1), True
        self.prefill_chunk_tokens = found.max_batch_prefill_tokens or PREFILL_TOKENS_ASSUMED
        self._tells_prefill = bool(found.max_batch_prefill_tokens)
        self.kv_tokens = found.max_batch_total_tokens or await self._told_pool()
        return (ServedModel(id=found.model_id, context_tokens=found.max_total_tokens),)

    async def _told_pool(self) -> int:
        try:
            gauge = POOL_GAUGE.search(await self._get(f"{self.root}/metrics"))
        except EngineFailed:
            return 0
        return int(gauge[1]) if gauge else 0

    async def pressure(self) -> Pressure | None:
        """Its queue; see `Engine.pressure`. The pool is known from the probe."""
        kv_tokens = self.kv_tokens
        pressure = await super().pressure()
        self.kv_tokens = kv_tokens
        return pressure

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> Reply:  # type: ignore[override]  # noqa: ARG002 (TGI cannot keep caches apart)
        """Send a request, and wait for its first event; see `Engine.open`. `salt` has no effect."""
        if surface == "completions":
            return await self._complete(body, request_id)
        if surface == "embeddings":
            raise NotFound(f"Engine {self.name} gives no embeddings.", code="not_supported")
        try:
            told = msgspec.json.encode(chat_body(body, self._model))
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest("The request holds a number or text that JSON cannot carry.") from error
        is_stream = bool(body.get("stream"))
        response = await self._post(self.base_url + ROUTES[surface], told, request_id, is_stream=is_stream)
        if not is_stream:
            return WholeChat(self, response)
        events = self._events(response)
        try:
            return ChatStream(self.faults, self._model, events, await events.first())
        except BaseException:
            response.close()
            raise

    def _events(self, response: aiohttp.ClientResponse) -> Events:
        return Events(self.faults, response, silence_s=self._silence_s, stall_s=self.stall_s)

    def _transport(self, request_id: str) -> Transport:
        return Transport(partial(self._post, request_id=request_id, is_stream=True), self._get, self._events)

    async def _post(self, url: str, body: bytes, request_id: str, *, is_stream: bool) -> aiohttp.ClientResponse:
        """A good answer, begun. Raises as `Engine.open`."""
        try:
            response = await self._http().post(
                url,
                data=body if len(body) <= ONE_PIECE_BYTES_MAX else BytesIO(body),
                headers={"Content-Type": "application/json", "X-Request-Id": request_id, **current().headers},
                allow_redirects=False,
            )
        except aiohttp.SocketTimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached. Try again later.", code=UNREACHABLE) from error
        try:
            await self._check(response, "text/event-stream" if is_stream else "application/json")
        except BaseException:
            response.close()
            raise
        return response

    async def _check(self, response: aiohttp.ClientResponse, wanted: str) -> None:
        if response.status != HTTPStatus.OK:
            fault = await self._fault(response)
            raise Faults.invalid(fault.message) if isinstance(fault, InvalidRequest) else fault
        if response.content_type != wanted:
            raise EngineFailed(f"Engine {self.name} answered with {response.content_type}, which is not {wanted}.")

    async def _complete(self, body: dict[str, Any], request_id: str) -> Completion:
        prompt, parameters = generate_parameters(body, self._model)
        transport = self._transport(request_id)
        client = Client(f"{self.root}/generate_stream", transport)
        try:
            with self.faults.of_rubbish():
                tokens = await client.text_generation(prompt, details=True, stream=True, **parameters)
                first = await anext(aiter(tokens), None)
        except TextGenerationError as error:
            transport.close()
            raise self.faults.refusal(error) from error
        except BaseException:
            transport.close()
            raise
        if first is None:
            transport.close()
            raise self.faults.stopped()
        return Completion(self.faults, client, tokens, first, request_id=request_id, body=body)
