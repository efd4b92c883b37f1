"""The composition root: the only place where parts are chosen and joined.

Everything below takes what it needs as arguments; nothing reads a global or the environment.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from litestar import Litestar, Request
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from quotas.cost import Cost, read_costs
from quotas.ledger import Ledger
from quotas.window import Window, window_of
from server.accounts.access import Access
from server.accounts.authentication import Authentication, require_admin
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.passwords import Passwords
from server.accounts.quotas import Quotas
from server.accounts.secrets import new_token
from server.accounts.throttle import LoginThrottle
from server.accounts.users import Users
from server.api import health, openai
from server.api.documentation import documentation
from server.api.faults import answer_fault
from server.api.origin import OriginCheck
from server.api.scope import RequestScopes
from server.chat.pipeline import Pipeline
from server.chat.salts import Salts
from server.clock import Clock, SystemClock
from server.db.session import Database
from server.engines.openai_compatible import OpenAICompatible
from server.engines.pool import Pool
from server.engines.protocol import Engine
from server.errors import StartError
from server.messages import Principal
from server.settings import Settings
from server.sharing.gate import Gate
from server.sharing.outlook import Outlook
from server.usage.report import UsageReport
from server.usage.writer import UsageWriter
from server.web import admin, pages, sharing, usage
from server.web.accounts import Accounts
from server.web.quotas import QuotaAdmin, own_quota
from server.web.sharing import Shares, Sockets

REDIS_CONNECTIONS_MAX = 32
REDIS_CONNECT_S_MAX = 2
# More than the longest blocking read (gate.LISTEN_MS).
REDIS_ANSWER_S_MAX = 5

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

log = structlog.get_logger(__name__)


def engines_from(settings: Settings) -> list[Engine]:
    """An adapter for every engine URL in the settings."""
    return [
        OpenAICompatible(url, slots=settings.engine_slots, silence_ms_max=settings.engine_silence_ms_max)
        for url in settings.engines
    ]


def window_from(settings: Settings, engine: Engine) -> Window:
    """How much an engine is given at a time."""
    return window_of(
        engine.slots,
        reserved_slots=None if settings.reserved_slots < 0 else settings.reserved_slots,
        prefill_chunk_tokens=settings.engine_prefill_tokens,
        kv_tokens=engine.kv_tokens,
    )


def costs_from(settings: Settings) -> Mapping[str, Cost]:
    """What tokens cost, by model. Raises StartError."""
    try:
        return read_costs(settings.costs)
    except ValueError as error:
        raise StartError(
            f"The setting costs holds {error}, which is not written as model=input:output (two numbers from 1 on)."
        ) from None


def create_app(settings: Settings, engines: Sequence[Engine], clock: Clock | None = None) -> ASGIApp:
    """The whole server as one ASGI application.

    Args:
        settings: with `database_url` and `redis_url` set.
        engines: what serves the models.
    """
    clock = clock or SystemClock()
    parts, running = _joined(settings, engines, clock)
    litestar = Litestar(
        route_handlers=[
            openai.router(),
            *health.handlers(),
            Accounts,
            admin.Admin,
            QuotaAdmin,
            own_quota,
            sharing.own_share,
            sharing.live,
            usage.own_usage,
            pages.api_docs,
            pages.page,
        ],
        dependencies={
            **{name: Provide(_always(part), use_cache=True, sync_to_thread=False) for name, part in parts.items()},
            "principal": Provide(_principal),
            "admin": Provide(_admin, sync_to_thread=False),
        },
        middleware=[DefineMiddleware(OriginCheck, public_url=settings.public_url)],
        exception_handlers={Exception: answer_fault},
        lifespan=[running],
        openapi_config=documentation(),
        request_max_body_size=settings.request_bytes_max,
        logging_config=None,
    )
    return RequestScopes(litestar, clock)


def _joined(settings: Settings, engines: Sequence[Engine], clock: Clock) -> tuple[dict[str, object], Lifespan]:
    """The parts that handlers ask for by name, and what runs as long as the server does."""
    replica = new_token()
    redis = connect_redis(settings.redis_url)
    database = Database(settings.database_url, connections_max=settings.database_connections_max)
    ledger = Ledger(redis)
    outlook = Outlook(ledger, clock)
    gate = Gate(ledger, outlook, replica=replica, clock=clock, settings=settings)
    pool = Pool(
        engines,
        clock=clock,
        on_probed=lambda engine: gate.set_window(engine.name, window_from(settings, engine)),
        on_pressure=gate.feel,
    )
    writer = UsageWriter(ledger, database, clock, reader=replica)
    passwords = Passwords()
    access = Access(ledger, clock)
    logins = Logins(database, access, passwords, LoginThrottle(redis), clock, days=settings.login_days)
    keys = ApiKeys(database, access, clock)
    quotas = Quotas(database, access, clock)
    authentication = Authentication(keys, logins, access)
    salts = Salts(lambda: ledger.cache_key(new_token()))
    shares = Shares(ledger, outlook, quotas)
    costs = costs_from(settings)
    parts = {
        "authentication": authentication,
        "database": database,
        "keys": keys,
        "ledger": ledger,
        "logins": logins,
        "pipeline": Pipeline(
            pool=pool, gate=gate, quotas=quotas, access=access, salts=salts, clock=clock, costs=costs
        ),
        "pool": pool,
        "quotas": quotas,
        "shares": shares,
        "sockets": Sockets(shares, authentication),
        "usage_report": UsageReport(database),
        "users": Users(database, access, passwords, clock),
    }

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        """Start the loops; at the end stop them in the order in which work flows, so that nothing stays behind."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(redis.aclose)
            stack.push_async_callback(pool.close)
            await pool.probe_all()
            stack.push_async_callback(writer.close)
            for loop in (writer.run, gate.run, pool.run):
                stack.push_async_callback(_stop, _start(loop))
            yield

    return parts, running


def connect_redis(url: str) -> Redis:
    """A client whose calls wait for a free connection instead of opening more and more.

    It does not retry: what a lost reply means is known to the gate and to the usage writer.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=REDIS_CONNECTIONS_MAX,
        timeout=REDIS_ANSWER_S_MAX,
        decode_responses=True,
        socket_connect_timeout=REDIS_CONNECT_S_MAX,
        socket_timeout=REDIS_ANSWER_S_MAX,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def _always(part: object) -> Callable[[], Any]:
    return lambda: part


async def _principal(request: Request[Any, Any, Any], authentication: NamedDependency[Authentication]) -> Principal:
    principal = await authentication.require(request)
    structlog.contextvars.bind_contextvars(user=principal.name)
    return principal


def _admin(principal: NamedDependency[Principal]) -> Principal:
    return require_admin(principal)


def _start(loop: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    task = asyncio.create_task(loop(), name=loop.__qualname__)
    task.add_done_callback(_die_with)
    return task


def _die_with(task: asyncio.Task[None]) -> None:
    """A loop never ends by itself. If one does, stop the server: half a server would keep people waiting."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a loop of the server ended", loop=task.get_name(), exc_info=error)
        signal.raise_signal(signal.SIGTERM)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
