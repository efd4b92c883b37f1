"""Any engine with an OpenAI-compatible surface: llama-server, vLLM, SGLang, LM Studio, and the embedded llama.cpp."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from server.engines.metrics import read_pressure
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError
from server.messages import Pressure, ServedModel, Surface

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
UNREACHABLE = "engine_unreachable"
# What comes of reading JSON that is none.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

log = structlog.get_logger(__name__)


class _Model(msgspec.Struct):
    # Postgres keeps no NUL, and a name is no essay.
    id: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f]{1,500}\Z")]
    # llama-server tells the context of a slot here, vLLM beside it.
    meta: dict[str, Any] | None = None
    max_model_len: int | None = None

    @property
    def context_tokens(self) -> int | None:
        return _count((self.meta or {}).get("n_ctx")) or _count(self.max_model_len)


class _ModelList(msgspec.Struct):
    # Ollama without models lists null.
    data: list[_Model] | None


def _count(value: object) -> int | None:
    """A number of slots or tokens, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


class OpenAICompatible:
    """An adapter for one base URL.

    Args:
        base_url: up to and with `/v1`.
        slots: how many requests it takes at a time, unless it says so itself (llama-server's `/props`).
        silence_ms_max: how long it may say nothing.
    """

    def __init__(
        self,
        base_url: str,
        *,
        kind: str = "openai",
        slots: int,
        silence_ms_max: int,
        name: str = "",
        api_key: str = "",
        is_demonstration: bool = False,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.name = name or _name(self.base_url)
        self.kind = kind
        self.slots = slots
        self.kv_tokens = 0
        self._has_metrics = True
        self._is_demonstration = is_demonstration
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._silence_s = silence_ms_max / 1000
        self._session: aiohttp.ClientSession | None = None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers | {"Accept-Encoding": "identity"},
                # A cookie that an engine sets for one person must not go along with the next one's request.
                cookie_jar=aiohttp.DummyCookieJar(),
                # The gate bounds how many requests run; the pool must not add a queue of its own.
                # A connection for each request: an idle one holds one of llama-server's few threads, and may be closed
                # by the engine in the moment in which a request is sent on it, which nobody can tell from a crash.
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
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
        await self._learn_slots()
        return tuple(
            ServedModel(id=model.id, context_tokens=model.context_tokens, is_demonstration=self._is_demonstration)
            for model in models
        )

    async def _learn_slots(self) -> None:
        """llama-server tells its slots outside of /v1; other engines do not have the page."""
        try:
            properties = msgspec.json.decode(await self._get(f"{self.base_url.removesuffix('/v1')}/props"))
        except (EngineFailed, *UNREADABLE):
            return
        if isinstance(properties, dict):
            self.slots = _count(properties.get("total_slots")) or self.slots

    async def pressure(self) -> Pressure | None:
        """From the Prometheus page outside of /v1. An engine that has none is asked again after the next probe."""
        if not self._has_metrics:
            return None
        try:
            page = await self._get(f"{self.base_url.removesuffix('/v1')}/metrics")
            pressure = read_pressure(page.decode())
        except EngineFailed as error:
            self._has_metrics = error.code == UNREACHABLE
            return None
        except ValueError:
            pressure = None
        self._has_metrics = pressure is not None
        if pressure is not None:
            self.kv_tokens = pressure.kv_tokens
        return pressure

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
        try:
            encoded = msgspec.json.encode(body)
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest("The request holds a number or text that JSON cannot carry.") from error
        try:
            response = await self._http().post(
                self.base_url + ROUTES[surface],
                # A prompt of megabytes is sent in pieces: it must not hold up everybody's tokens.
                data=encoded if len(encoded) <= ONE_PIECE_BYTES_MAX else BytesIO(encoded),
                headers={"Content-Type": "application/json", "X-Request-Id": request_id},
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
        return reply

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
                code = "context_length_exceeded" if "context" in sentence.lower() else "invalid_request"
                return InvalidRequest(sentence or f"Engine {self.name} refuses the request.", code=code)
            case 404 | 405 | 501:
                return NotFound(sentence or f"Engine {self.name} cannot do this.", code="not_supported")
            case 429 | 503:
                return Unavailable(f"Engine {self.name} is busy. Try again later.", code="engine_busy", retry_after_s=2)
            case status:
                return EngineFailed(f"Engine {self.name} failed with status {status}.")

    def _silent(self) -> EngineTimeout:
        return EngineTimeout(f"Engine {self.name} said nothing for {self._silence_s:.0f} s.")

    async def close(self) -> None:
        """Close idle connections and break busy ones."""
        if self._session is not None:
            await self._session.close()


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

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as the socket gives them."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except aiohttp.SocketTimeoutError as error:
            raise self._engine._silent() from error  # noqa: SLF001 (one adapter in two classes)
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
