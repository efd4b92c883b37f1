"""Any engine with an OpenAI-compatible surface: llama-server, vLLM, SGLang, LM Studio, and the embedded llama.cpp."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from server.engines.addresses import CheckedResolver
from server.engines.isolation import OWNERS, Isolation, Pins, keeps_apart
from server.engines.metrics import read_pressure
from server.engines.resuming import Resuming
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError
from server.messages import Pressure, ServedModel, Surface
from server.tracing.spans import current

ROUTES: dict[Surface, str] = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
PROBE_MS_MAX = 5_000
CONNECT_MS_MAX = 5_000
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ONE_PIECE_BYTES_MAX = 64 * 1024
ERROR_BYTES_MAX = 64 * 1024
ERROR_CHARACTERS_MAX = 500
VERSION_CHARACTERS_MAX = 100
UNREACHABLE = "engine_unreachable"
OPENAI_HOSTS = (".openai.com", ".azure.com")
# Engines say so in sentences only: llama-server and vLLM of a prompt, vLLM 0.32 of an answer.
TOO_LONG = ("context", "max_model_len")
# What FastAPI says of a route that an engine lacks, which would be taken for the server's own.
NOT_THERE = ("Not Found", "Method Not Allowed")
# What comes of reading JSON that is none.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

log = structlog.get_logger(__name__)


class _Model(msgspec.Struct):
    # Postgres keeps no NUL, and a name is no essay.
    id: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f]{1,500}\Z")]
    # llama-server tells the context of a slot here, vLLM beside it.
    meta: dict[str, Any] | None = None
    max_model_len: int | None = None
    owned_by: str | None = None

    @property
    def context_tokens(self) -> int | None:
        return _count((self.meta or {}).get("n_ctx")) or _count(self.max_model_len)


class _ModelList(msgspec.Struct):
    # Ollama without models lists null.
    data: list[_Model] | None


def _count(value: object) -> int | None:
    """A number of slots or tokens, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _version(value: object) -> str:
    """A version, if it is one."""
    return value[:VERSION_CHARACTERS_MAX] if isinstance(value, str) and value.isprintable() else ""


class OpenAICompatible(Resuming):
    """An adapter for one base URL.

    Args:
        base_url: up to and with `/v1`.
        slots: how many requests it takes at a time, unless it says so itself (llama-server's `/props`).
        silence_ms_max: how long it may say nothing.
        stall_ms_max: how long after the first token; no longer than the other, which it is by default.
        kind: openai, llama-server, vllm or sglang; which of these an `openai` is it may say itself.
        pins: whose prompts the slots of a llama-server hold.
    """

    def __init__(  # noqa: PLR0913 (all by name, most with a default)
        self,
        base_url: str,
        *,
        kind: str = "openai",
        slots: int,
        silence_ms_max: int,
        stall_ms_max: int = 0,
        name: str = "",
        api_key: str = "",
        is_demonstration: bool = False,
        pins: Pins | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.name = name or _name(self.base_url)
        self.kind = kind
        self.slots = slots
        self.kv_tokens = 0
        self.prefill_chunk_tokens: int | None = None
        self.books_whole_answers = False
        self._pins = pins
        self._isolation = Isolation(_name(self.base_url), pins)
        self._tells_slots = False
        # Its maker's own API takes either name of the answer's bound, but not both.
        self._is_openai = (urlsplit(self.base_url).hostname or "").endswith(OPENAI_HOSTS)
        # As it tells it; empty where it does not.
        self.version = ""
        # Its model has left memory, and comes back with a request.
        self.is_asleep = False
        # What it is, which it may say itself.
        self._dialect = kind
        self._has_metrics = True
        self._is_demonstration = is_demonstration
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._silence_s = silence_ms_max / 1000
        self.stall_s = min(stall_ms_max or silence_ms_max, silence_ms_max) / 1000
        self._session: aiohttp.ClientSession | None = None

    def pin_with(self, pins: Pins) -> None:
        """Pin the slots of a llama-server from now on."""
        self._pins, self._isolation = pins, Isolation(_name(self.base_url), pins)

    @property
    def isolates_caches(self) -> bool | None:
        """Whether the salt keeps people's prompts apart; None where nobody knows."""
        return keeps_apart(self._dialect, has_pins=self._pins is not None)

    @property
    def assumed(self) -> frozenset[str]:
        """Which of `slots` and `prefill_tokens` (numbers.py) it has not told, so that they are a guess."""
        return frozenset() if self._tells_slots else frozenset({"slots"})

    @property
    def dialect(self) -> str:
        """Its kind, as it says itself where it does."""
        return self._dialect

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers | {"Accept-Encoding": "identity"},
                # A cookie that an engine sets for one person must not go along with the next one's request.
                cookie_jar=aiohttp.DummyCookieJar(),
                # The gate bounds how many requests run; the pool must not add a queue of its own.
                # A connection for each request: an idle one holds one of llama-server's few threads, and may be closed
                # by the engine in the moment in which a request is sent on it, which nobody can tell from a crash.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=CheckedResolver()),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_MS_MAX / 1000, sock_read=self._silence_s
                ),
                read_bufsize=256 * 1024,
            )
        return self._session

    async def probe(self) -> tuple[ServedModel, ...]:
        """List the models, and take over the number of slots if the engine tells it."""
        self._has_metrics = True
        body = await self._get(f"{self.base_url}/models")
        try:
            models = msgspec.json.decode(body, type=_ModelList).data or ()
        except UNREADABLE as error:
            raise EngineFailed(f"Engine {self.name} lists its models in a form that is not OpenAI's.") from error
        if self.kind == "openai":
            self._dialect = next((OWNERS[model.owned_by] for model in models if model.owned_by in OWNERS), self.kind)
        await self._learn_slots()
        if self._dialect == "vllm":
            await self._learn_version()
        served = {
            model.id: ServedModel(
                id=model.id, context_tokens=model.context_tokens, is_demonstration=self._is_demonstration
            )
            for model in models
        }
        return tuple(served.values())

    async def _learn_slots(self) -> None:
        """llama-server tells its slots outside of /v1; other engines do not have the page."""
        try:
            properties = msgspec.json.decode(await self._get(f"{self.base_url.removesuffix('/v1')}/props"))
        except (EngineFailed, *UNREADABLE):
            return
        if isinstance(properties, dict):
            told = _count(properties.get("total_slots"))
            self.slots, self._tells_slots = told or self.slots, told is not None
            # As llama-server of 2026-10 names them.
            self.version = _version(properties.get("build_info"))
            self.is_asleep = properties.get("is_sleeping") is True

    async def _learn_version(self) -> None:
        """From vLLM's page outside of /v1 (`/version`, as of 0.11)."""
        try:
            told = msgspec.json.decode(await self._get(f"{self.base_url.removesuffix('/v1')}/version"))
        except (EngineFailed, *UNREADABLE):
            return
        self.version = _version(told.get("version") if isinstance(told, dict) else None)

    async def pressure(self) -> Pressure | None:
        """From the Prometheus page outside of /v1. An engine that has none is asked again after the next probe."""
        if not self._has_metrics or (page := await self.metrics()) is None:
            return None
        try:
            pressure = read_pressure(page)
        except ValueError:
            pressure = None
        self._has_metrics = pressure is not None
        if pressure is not None:
            self.kv_tokens = pressure.kv_tokens
        return pressure

    async def metrics(self) -> str | None:
        """The page outside of /v1."""
        try:
            return (await self._get(f"{self.base_url.removesuffix('/v1')}/metrics")).decode(errors="replace")
        except EngineFailed as error:
            self._has_metrics = error.code == UNREACHABLE
            return None

    async def _get(self, url: str) -> bytes:
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_MS_MAX / 1000)
            async with self._http().get(url, timeout=timeout, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise EngineFailed(f"Engine {self.name} answers {response.status} at {urlsplit(url).path}.")
                return await _beginning(response, ANSWER_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached.", code=UNREACHABLE) from error

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> "OpenAIReply":
        """POST the request; see `Engine.open`."""
        # A slot that llama-server does not have would be waited for in vain.
        slots = self.slots if self._tells_slots else 0
        if self._dialect == "openai" and not self._is_openai:
            body = _with_both_bounds(body)
        body, pin = await self._isolation.apply(self._dialect, surface, body, request_id, salt, slots)
        try:
            encoded = msgspec.json.encode(body)
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest("The request holds a number or text that JSON cannot carry.") from error
        try:
            response = await self._http().post(
                self.base_url + ROUTES[surface],
                # A prompt of megabytes is sent in pieces: it must not hold up everybody's tokens.
                data=encoded if len(encoded) <= ONE_PIECE_BYTES_MAX else BytesIO(encoded),
                headers={"Content-Type": "application/json", "X-Request-Id": request_id, **current().headers},
                # The prompt goes to the engine that the admin named, and nowhere else.
                allow_redirects=False,
            )
        except aiohttp.SocketTimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached. Try again later.", code=UNREACHABLE) from error
        reply = OpenAIReply(self, response)
        is_good = response.status == HTTPStatus.OK
        if is_good and body.get("stream") and response.content_type != "text/event-stream":
            reply.close()
            raise EngineFailed(f"Engine {self.name} answered with something that is no event stream.")
        if not is_good:
            try:
                raise await self._fault(response)
            finally:
                reply.close()
        try:
            await self._isolation.confirm(pin, request_id, salt)
        except BaseException:
            reply.close()
            raise
        return reply

    async def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST to a route outside of /v1, for the object that comes back. Raises EngineFailed."""
        url = self.base_url.removesuffix("/v1") + route
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_MS_MAX / 1000)
            async with self._http().post(url, json=body, timeout=timeout, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise EngineFailed(f"Engine {self.name} answers {response.status} at {route}.")
                answer = msgspec.json.decode(await _beginning(response, ANSWER_BYTES_MAX))
        except (aiohttp.ClientError, TimeoutError, OSError, *UNREADABLE) as error:
            raise EngineFailed(f"Engine {self.name} cannot be asked at {route}.") from error
        if not isinstance(answer, dict):
            raise EngineFailed(f"Engine {self.name} answers with no object at {route}.")
        return answer

    async def _fault(self, response: aiohttp.ClientResponse) -> WirthforgeError:
        """Translate a refusal. The engine's own sentence is passed on only where it blames the request."""
        try:
            body = await _beginning(response, ERROR_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError):
            body = b""
        sentence = error_sentence(body)
        log.warning("engine refused", engine=self.name, status=response.status)
        match response.status:
            case 400 | 413 | 422:
                is_too_long = any(word in sentence.lower() for word in TOO_LONG)
                code = "context_length_exceeded" if is_too_long else "invalid_request"
                return InvalidRequest(sentence or f"Engine {self.name} refuses the request.", code=code)
            case 404 | 405 | 501:
                told = "" if sentence in NOT_THERE else sentence
                return NotFound(told or f"Engine {self.name} cannot do this.", code="not_supported")
            case 429 | 503:
                return Unavailable(f"Engine {self.name} is busy. Try again later.", code="engine_busy", retry_after_s=2)
            case status:
                return EngineFailed(f"Engine {self.name} failed with status {status}.")

    def _silent(self, silence_s: float = 0) -> EngineTimeout:
        return EngineTimeout(f"Engine {self.name} said nothing for {silence_s or self._silence_s:.0f} s.")

    async def close(self) -> None:
        """Close idle connections and break busy ones."""
        if self._session is not None:
            await self._session.close()


def _with_both_bounds(body: dict[str, Any]) -> dict[str, Any]:
    """With the answer's bound by its older name too: transformers 5.19 takes no notice of the newer one."""
    bound = body.get("max_completion_tokens")
    return body if bound is None else body | {"max_tokens": bound}


def _name(base_url: str) -> str:
    """Host and port, and the path if it says more than `/v1`; never the password that a URL may hold."""
    parts = urlsplit(base_url)
    return parts.netloc.rpartition("@")[2] + parts.path.removesuffix("/v1")


async def _beginning(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The body, however many packets it comes in, up to `bytes_max`."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= bytes_max:
            break
    return bytes(body[:bytes_max])


def error_sentence(body: bytes) -> str:
    """The message of an error body, as OpenAI, text-generation-inference or FastAPI write it; else nothing."""
    try:
        answer = msgspec.json.decode(body)
    except UNREADABLE:
        return ""
    match answer:
        case (
            {"error": {"message": str(message)}}
            | {"error": str(message)}
            | {"message": str(message)}
            | {"detail": str(message)}
        ):
            return message[:ERROR_CHARACTERS_MAX]
        case _:
            return ""


class OpenAIReply:
    """An answer under way."""

    def __init__(self, engine: OpenAICompatible, response: aiohttp.ClientResponse) -> None:
        self._engine = engine
        self._response = response
        self._silence_s = 0.0

    def expect_tokens(self) -> None:
        """From now on it may pause for as long as tokens take, and not as long as a prompt."""
        self._silence_s = self._engine.stall_s
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            # aiohttp sets its timer anew with each packet, and so costs nothing more for this.
            connection.protocol.read_timeout = self._silence_s
            connection.protocol.start_timeout()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as the socket gives them."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except aiohttp.SocketTimeoutError as error:
            raise self._engine._silent(self._silence_s) from error  # noqa: SLF001 (one adapter in two classes)
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"Engine {self._engine.name} stopped in the middle of its answer.") from error

    async def read(self) -> bytes:
        """The whole body, at most ANSWER_BYTES_MAX."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise EngineFailed(f"Engine {self._engine.name} answered with more than {ANSWER_BYTES_MAX} bytes.")
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        self._response.close()
