"""The one way out: HTTP to a provider, for exactly the bytes that were composed.

Who is asked is who the admin named. Redirects are faults, since whoever follows one sends somebody's words to a place
that nobody allowed; there are no proxies from the environment, no cookies, no certificates that are not trusted, no
http:// but to this very machine, and no address of a cloud's metadata service. What goes along is the key and what HTTP
needs. Nothing is tried again: two tries would be two sendings, and one is in the ledger.

Faults count against the provider's breaker (server/engines/health.py), each request once, when it ends.
"""

import re
from collections.abc import Awaitable, Mapping
from io import BytesIO
from typing import TypeVar

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from server.clock import Clock
from server.cloud.replies import Streamed, Translation, silent
from server.engines.addresses import CheckedResolver
from server.engines.health import Breaker
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError

LIST_BYTES_MAX = 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024
# The whole of what a provider learns of who asks.
PRODUCT = "WIRTHFORGE"
REST_S, REST_S_MAX = 5, 3600
# An error's own name, which says nothing of anybody's text.
ERROR_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
TOO_LONG = ("context_length", "maximum context", "too long", "too many tokens")

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Waits(Struct, frozen=True, kw_only=True):
    """How long a provider may take.

    Attributes:
        first_byte_ms: to say anything, and also until its first token: some think first.
        silence_ms: between tokens.
        answer_ms: for a whole answer, however busy it seems.
    """

    connect_ms: int = 5_000
    first_byte_ms: int = 60_000
    silence_ms: int = 30_000
    answer_ms: int = 30 * 60_000


class Wire:
    """The connections of all providers; nothing of one is kept for the next request."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Opened when something is sent; it connects to nobody by itself."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(
                    limit=0, force_close=True, resolver=CheckedResolver(), use_dns_cache=False
                ),
                # Compressed answers are not asked for; one that comes would grow beyond all bounds.
                auto_decompress=False,
                trust_env=False,
                read_bufsize=256 * 1024,
            )
        return self._session

    async def close(self) -> None:
        """Break what is under way."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class Client:
    """Speaks to one provider.

    Args:
        headers: which hold its key; they go to this URL and nowhere else.
    """

    def __init__(
        self, name: str, url: str, headers: Mapping[str, str], *, wire: Wire, clock: Clock, waits: Waits
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self.waits = waits
        self.breaker = Breaker(clock)
        self._headers = {
            "User-Agent": PRODUCT,
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            **headers,
        }
        self._wire = wire
        self._clock = clock
        self._rests_until_ms = 0

    @property
    def rest_ms(self) -> int:
        """How long nothing is sent there: it asked for a pause, or has failed too often."""
        asked_ms = max(self._rests_until_ms - self._clock.monotonic_ms(), 0)
        return max(asked_ms, 0 if self.breaker.lets_pass else max(self.breaker.rest_ms, 1))

    @property
    def now_s(self) -> int:
        """Seconds since 1970."""
        return int(self._clock.now().timestamp())

    async def post(self, path: str, body: bytes, translation: Translation, *, request_id: str) -> Streamed:
        """Send the bytes; returns when the provider begins to answer with success. Raises like `Provider.send`."""
        if rest_ms := self.rest_ms:
            raise Unavailable(
                f"Provider {self.name} rests: it has failed, or asked for a pause.",
                code="provider_resting",
                retry_after_s=-(-rest_ms // 1000),
            )
        is_trial = self.breaker.try_one()
        try:
            response = await self._begun(path, body)
        except BaseException as error:
            self._count(error, is_trial=is_trial, request_id=request_id)
            raise
        return Streamed(
            response,
            translation,
            name=self.name,
            silence_ms=(self.waits.first_byte_ms, self.waits.silence_ms),
            on_end=lambda error: self._count(error, is_trial=is_trial, request_id=request_id),
        )

    async def _begun(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        response = await self._request("POST", path, BytesIO(body))
        if response.content_type != "text/event-stream":
            response.close()
            raise EngineFailed(f"Provider {self.name} answered with something that is no event stream.")
        return response

    async def get(self, path: str) -> bytes:
        """A page of at most LIST_BYTES_MAX. Says nothing of anybody. Raises like `post`."""
        response = await self._request("GET", path, None)
        try:
            return await self._heeding(_beginning(response, LIST_BYTES_MAX))
        finally:
            response.close()

    async def _request(self, method: str, path: str, data: BytesIO | None) -> aiohttp.ClientResponse:
        waits = self.waits
        timeout = aiohttp.ClientTimeout(
            total=waits.answer_ms / 1000,
            sock_connect=waits.connect_ms / 1000,
            sock_read=waits.first_byte_ms / 1000,
        )
        headers = self._headers if data is None else self._headers | {"Content-Type": "application/json"}
        response = await self._heeding(
            self._wire.session.request(
                method, self.url + path, data=data, headers=headers, timeout=timeout, allow_redirects=False
            )
        )
        if response.status == 200:  # noqa: PLR2004 (HTTP's OK)
            return response
        try:
            raise await self._fault(response)
        finally:
            response.close()

    async def _heeding(self, answer: Awaitable[Result]) -> Result:
        """What comes, with faults of the line as ours."""
        try:
            return await answer
        except aiohttp.ClientSSLError as error:
            raise EngineFailed(
                f"Provider {self.name} shows no certificate that is trusted.", code="provider_untrusted"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable() from error
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise self._unreachable() from error
            raise silent(self.name, self.waits.first_byte_ms) from error
        except aiohttp.ClientConnectionError as error:
            raise EngineFailed(f"Provider {self.name} hung up.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineFailed(f"Provider {self.name} answered with something that is no HTTP.") from error

    def _unreachable(self) -> EngineFailed:
        return EngineFailed(f"Provider {self.name} cannot be reached.", code="provider_unreachable")

    async def _fault(self, response: aiohttp.ClientResponse) -> WirthforgeError:
        """Translate a refusal. The provider's sentence is not passed on: it may repeat the prompt, or the key."""
        try:
            body = await _beginning(response, ERROR_BYTES_MAX)
        except (aiohttp.ClientError, OSError):
            body = b""
        name = error_name(body)
        log.warning("provider refused", provider=self.name, status=response.status, error=name)
        told = f" ({name})" if name else ""
        match response.status:
            case status if 300 <= status < 400:  # noqa: PLR2004 (HTTP's redirects)
                return EngineFailed(
                    f"Provider {self.name} redirects to another address, and nothing is sent there.",
                    code="provider_redirects",
                )
            case 400 | 413 | 422:
                is_too_long = any(word in body.decode(errors="replace").lower() for word in TOO_LONG)
                code = "context_length_exceeded" if is_too_long else "invalid_request"
                return InvalidRequest(f"Provider {self.name} refuses the request{told}.", code=code)
            case 401 | 402 | 403:
                return EngineFailed(
                    f"Provider {self.name} does not accept this box's key{told}. An admin can change it.",
                    code="provider_refused",
                )
            case 404 | 405:
                return NotFound(f"Provider {self.name} has no such model or address{told}.", code="provider_lacks")
            case 408 | 429 | 503 | 529:
                rest_s = rest_of(response.headers.get("Retry-After", ""))
                self._rests_until_ms = self._clock.monotonic_ms() + rest_s * 1000
                return Unavailable(
                    f"Provider {self.name} is busy, or has had enough of this box{told}.",
                    code="provider_busy",
                    retry_after_s=rest_s,
                )
            case status:
                return EngineFailed(f"Provider {self.name} failed with status {status}{told}.")

    def _count(self, error: BaseException | None, *, is_trial: bool, request_id: str) -> None:
        """How a request ended, for the breaker; None: as it should."""
        if error is None:
            self.breaker.succeed()
        if isinstance(error, EngineFailed | EngineTimeout):
            self.breaker.fail()
            log.warning("provider failed", provider=self.name, request_id=request_id, reason=error.message)
        if is_trial:
            self.breaker.release()


def error_name(body: bytes) -> str:
    """What an error calls itself, in OpenAI's form or Anthropic's, where that is a plain name; else nothing."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    for field in ("code", "type"):
        name = error.get(field) if isinstance(error, dict) else None
        if isinstance(name, str) and ERROR_NAME.fullmatch(name):
            return name
    return ""


def rest_of(header: str) -> int:
    """Seconds of a Retry-After; some, where it says nothing or a date."""
    told = int(header) if header.isascii() and header.isdigit() and len(header) < 10 else REST_S  # noqa: PLR2004
    return min(max(told, 1), REST_S_MAX)


async def _beginning(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The body, however many packets it comes in, up to `bytes_max`."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= bytes_max:
            break
    return bytes(body[:bytes_max])
