"""The connection to Redis, in plain (`redis://`, `unix://`) or over TLS (`rediss://`).

Words of a URL about TLS are redis-py's (ssl_ca_certs and so on, docs/tls.md), and mean what they mean there, but for
three things. An authority that is named is believed alone; redis-py believes those of the web as well. Files are read
for every connection, so that certificates may be exchanged while the server runs (server/tls.py). And a word that is
not known, or that stands where TLS is not spoken, is refused: none may be overlooked. Looked at: redis-py 8.1.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from server.errors import StartError
from server.tls import SYSTEM, VERSIONS, Doubts, Trust, Untrusted, require

REDIS_CONNECTIONS_MAX = 32
REDIS_CONNECT_S_MAX = 2
# More than the longest blocking read (gate.LISTEN_MS).
REDIS_ANSWER_S_MAX = 5

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password")
CHOICES: dict[str, tuple[str, ...]] = {
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
    "ssl_min_version": tuple(VERSIONS),
}


class _Heeding:
    """Heeds a cancellation while it sends: Python 3.11's `wait_for`, which redis-py sends with, may lose it."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 (redis-py's own)
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        connection = cast("Any", super())
        await connection.send_packed_command(command, check_health)
        if task.cancelling() > before:
            # Its answer would be taken for that of the next command.
            await connection.disconnect(nowait=True)
            raise asyncio.CancelledError


class PlainConnection(_Heeding, Connection):
    """One over TCP, in plain."""


class LocalConnection(_Heeding, UnixDomainSocketConnection):
    """One on this machine."""


class TrustedConnection(_Heeding, SSLConnection):
    """One over TLS, to nobody but whom we trust.

    Args:
        trust: what is asked of Redis' certificate.
        doubts: says in the log when it does not fit.
    """

    def __init__(self, *, trust: Trust, doubts: Doubts, **options: Any) -> None:  # noqa: ANN401 (redis-py's own)
        super().__init__(**options)
        self._trust = trust
        self._doubts = doubts

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super(SSLConnection, self)._connection_arguments(), "ssl": self._trust.context()}

    async def _connect(self) -> None:
        try:
            await cast("Any", super()._connect)()
        except (ssl.SSLError, Untrusted) as error:
            untrusted = Untrusted(self._trust.reason(error, self._name))
            self._doubts.tell(untrusted)
            raise untrusted from error
        self._doubts.end()

    @property
    def _name(self) -> str:
        return f"Redis at {self.host}:{self.port}"

    def _error_message(self, exception: BaseException) -> str:
        return str(exception) if isinstance(exception, Untrusted) else super()._error_message(exception)


def connect_redis(
    url: str,
    *,
    connections_max: int = REDIS_CONNECTIONS_MAX,
    answer_s_max: float = REDIS_ANSWER_S_MAX,
    decodes: bool = True,
) -> Redis:
    """A client whose calls wait for a free connection instead of opening more and more.

    It does not retry: what a lost reply means is known to the gate and to the usage writer.

    Args:
        url: as the setting `redis_url` has it; its words are stronger than what is said here.
        connections_max: how many there are at the most.
        answer_s_max: how long an answer may take, in seconds.
        decodes: answers are text.

    Raises:
        StartError: the URL is of no use, or a file that it names.
    """
    ours: dict[str, Any] = {
        "max_connections": connections_max,
        "timeout": answer_s_max,
        "decode_responses": decodes,
        "socket_connect_timeout": REDIS_CONNECT_S_MAX,
        "socket_timeout": answer_s_max,
        "retry": Retry(NoBackoff(), 0),
    }
    return Redis.from_pool(BlockingConnectionPool(**(ours | _options(url))))


async def require_trusted(url: str) -> None:
    """Ask Redis once. One that is away is no fault: the server waits for it.

    Raises:
        StartError: waiting would not help: it is not trusted, or does not take who we are.
    """
    redis = connect_redis(url, connections_max=1)
    options = redis.connection_pool.connection_kwargs
    try:
        async with asyncio.timeout(2 * REDIS_CONNECT_S_MAX):
            await cast("Any", redis.ping())
    except (AuthenticationError, AuthorizationError, NoPermissionError):
        raise StartError("Redis refuses the user or the password in REDIS_URL.") from None
    except (RedisError, OSError, TimeoutError) as error:
        if "trust" in options and (reason := _mistrust(error, options, urlsplit(url))):
            raise StartError(f"Redis cannot be used: {reason}. Is REDIS_URL right?") from None
    finally:
        await redis.aclose()


def _mistrust(error: BaseException, options: Mapping[str, Any], url: SplitResult) -> str:
    """Why TLS is the reason of an error; empty where it is not."""
    trust, doubts = options["trust"], options["doubts"]
    name = f"Redis at {url.hostname or 'localhost'}:{url.port or 6379}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Untrusted | ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return str(trust.reason(cause, name))
    # Subclasses say that it is busy or slow.
    has_hung_up = type(error) is RedisConnectionError and doubts.has_ended
    return str(trust.hung_up(name)) if has_hung_up else ""


def _options(url: str) -> dict[str, Any]:
    """What redis-py wants to know, from a URL. Raises StartError, quoting nothing that may be a password."""
    try:
        parts = urlsplit(url)
        asked = parse_qsl(parts.query, keep_blank_values=True)
        words = {name: value for name, value in asked if name.startswith("ssl")}
        rest = parts._replace(query=urlencode([(name, value) for name, value in asked if name not in words]))
        found: dict[str, Any] = dict(parse_url(urlunsplit(rest)))
    except ValueError:
        raise StartError(
            "The URL of Redis cannot be read: it is like rediss://user:password@host:6379/0, with :, /, @, #, ? and % "
            "of a password written as %3A, %2F, %40, %23, %3F and %25."
        ) from None
    if parts.scheme != "rediss":
        if words:
            raise StartError(f"The URL of Redis says {min(words)}, and no TLS is spoken: write rediss:// for that.")
        return found | {"connection_class": LocalConnection if parts.scheme == "unix" else PlainConnection}
    trust = _trust(words)
    require(trust, "Redis")
    return found | {"connection_class": TrustedConnection, "trust": trust, "doubts": Doubts("Redis is not trusted")}


def _trust(words: dict[str, str]) -> Trust:
    if unknown := sorted(words.keys() - {*FILES, *CHOICES}):
        raise StartError(
            f"The URL of Redis asks for {unknown[0]}, which is not known. Known are {', '.join((*FILES, *CHOICES))}."
        )
    if empty := sorted(name for name, value in words.items() if not value):
        raise StartError(f"The URL of Redis says {empty[0]}, and then nothing.")
    for name, choices in CHOICES.items():
        if name in words and words[name] not in choices:
            raise StartError(f"In the URL of Redis {name} is {' or '.join(choices)}.")
    verifies = words.get("ssl_cert_reqs", "required") == "required"
    if not verifies and (asked := words.keys() & {"ssl_ca_certs", "ssl_ca_path"}):
        raise StartError(f"The URL of Redis says {min(asked)}, and with ssl_cert_reqs=none nobody looks into it.")
    return Trust(
        authorities=(words.get("ssl_ca_certs") or words.get("ssl_ca_path") or SYSTEM) if verifies else "",
        checks_name=verifies and words.get("ssl_check_hostname", "true") == "true",
        certificate=words.get("ssl_certfile", ""),
        key=words.get("ssl_keyfile", ""),
        key_password=words.get("ssl_password", ""),
        oldest=words.get("ssl_min_version", "TLSv1.2"),
    )
