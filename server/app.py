"""The composition root: the only place where parts are chosen and joined.

Everything below takes what it needs as arguments; nothing reads a global or the environment.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import structlog
from litestar import Litestar, Request
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from redis.asyncio import Redis

from quotas.cost import Cost
from quotas.ledger import Ledger
from server import VERSION
from server.accounts.access import Access
from server.accounts.authentication import Authentication, require_admin
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.passwords import Passwords
from server.accounts.quotas import Quotas
from server.accounts.refusals import Refusals
from server.accounts.secrets import new_token
from server.accounts.throttle import LoginThrottle
from server.accounts.users import Users
from server.api import health, openai, tgi
from server.api.documentation import documentation
from server.api.faults import answer_fault
from server.api.origin import OriginCheck
from server.api.scope import RequestScopes
from server.api.traces import traced
from server.api.wire import parse
from server.chat.pipeline import Pipeline
from server.chat.salts import LedgerPins, Salts
from server.clock import Clock, SystemClock
from server.cloud.jobs import CLOUD_JOBS
from server.cloud.joined import clouds_of
from server.conversations.joined import conversations_of
from server.council.joined import councils_of
from server.council.scene import Scene
from server.db.session import Database
from server.engines.calibrating import Calibrating
from server.engines.calibrations import Calibrations
from server.engines.configured import costs_from, defaults_from, number_defaults_from, window_from
from server.engines.fleet import Fleet
from server.engines.kinds import EngineSpec
from server.engines.numbers import Numbers, numbers_of
from server.engines.preloading import preloads_of
from server.engines.promises import Promises
from server.engines.protocol import Engine
from server.engines.residents import Residents
from server.engines.tuning import tuned
from server.hardware.box import box_of
from server.hardware.history import History
from server.hardware.monitor import Monitor
from server.hardware.providers import load as hardware_of
from server.hardware.room import estimated
from server.messages import Principal
from server.privacy import version
from server.settings import Settings
from server.sharing.gate import Gate
from server.sharing.outlook import Outlook
from server.sharing.redis import connect_redis
from server.upkeep.joined import archive_of, leaving_of, upkeep_of
from server.usage.history import Expectations
from server.usage.joined import reports_of
from server.usage.writer import UsageWriter
from server.web import admin, hardware, pages, sharing, usage
from server.web.account_data import AccountData, Removals
from server.web.accounts import Accounts
from server.web.calibrations import CalibrationAdmin
from server.web.clouds import CLOUD_ROUTES
from server.web.conversations import ConversationRoutes
from server.web.councils import CouncilAdmin, give_feedback
from server.web.engines import Catalogue, EngineAdmin
from server.web.quotas import QuotaAdmin, own_quota
from server.web.sharing import Shares, Sockets
from server.web.usage_admin import UsageAdmin

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

log = structlog.get_logger(__name__)


def create_app(settings: Settings, engines: Sequence[Engine], clock: Clock | None = None) -> RequestScopes:
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
            tgi.router(),
            *health.handlers(),
            Accounts,
            AccountData,
            admin.Admin,
            Removals,
            CalibrationAdmin,
            *CLOUD_ROUTES,
            ConversationRoutes,
            CouncilAdmin,
            give_feedback,
            EngineAdmin,
            QuotaAdmin,
            own_quota,
            sharing.own_share,
            sharing.live,
            usage.own_usage,
            usage.own_report,
            usage.own_export,
            UsageAdmin,
            hardware.hardware,
            hardware.hardware_history,
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
        openapi_config=documentation(cast("Authentication", parts["authentication"])),
        request_max_body_size=settings.request_bytes_max,
        logging_config=None,
    )
    return RequestScopes(traced(litestar, settings, clock), clock, public_url=settings.public_url)


def _joined(settings: Settings, engines: Sequence[Engine], clock: Clock) -> tuple[dict[str, object], Lifespan]:
    """The parts that handlers ask for by name, and what runs as long as the server does."""
    replica = new_token()
    redis = connect_redis(settings.redis_url)
    database = Database(settings.database_url, connections_max=settings.database_connections_max)
    ledger = Ledger(redis)
    outlook = Outlook(ledger, clock)
    gate = Gate(ledger, outlook, replica=replica, clock=clock, settings=settings)
    monitor = Monitor(hardware_of(clock), clock, records := History(database, clock))
    fleet, promises, store, calibrating = _fleet(
        settings, engines, monitor=monitor, gate=gate, ledger=ledger, database=database, clock=clock
    )
    expectations = Expectations(database, clock)
    observed, preloading = preloads_of(fleet, expectations, database=database, clock=clock, load=ledger.load)
    writer = UsageWriter(ledger, database, clock, reader=replica)
    access, quotas, authentication, people = _people(
        settings, database=database, ledger=ledger, redis=redis, clock=clock
    )
    pipeline = _pipeline(
        settings, fleet=fleet, calibrations=store, expectations=expectations, ledger=ledger, clock=clock
    )(gate=gate, quotas=quotas, access=access, residency=observed, promises=promises)
    scene = _scene(settings, fleet=fleet, outlook=outlook, calibrations=store, expectations=expectations)
    clouds = clouds_of(pipeline, parse, settings=settings, database=database, quotas=quotas, clock=clock)
    councils = councils_of(
        clouds.way,
        scene,
        quotas=quotas,
        database=database,
        clock=clock,
        hardware=lambda: box_of(monitor.snapshot),
        settings=settings,
    )
    archive = archive_of(settings, database, clock)
    conversations = conversations_of(councils.all, parse, archive, database=database, clock=clock, settings=settings)
    shares = Shares(ledger, outlook, quotas, councils.planner)
    own = {
        "calibrating": calibrating,
        "calibrations": store,
        "catalogue": Catalogue(
            fleet.pool,
            promises,
            lambda engine, spec: numbers_of(engine, spec, number_defaults_from(settings), store.knee(engine.name)),
        ),
        "database": database,
        "ledger": ledger,
        "pipeline": pipeline,
        "promises": promises,
        "shares": shares,
        "sockets": Sockets(shares, authentication),
        **leaving_of(settings, database, ledger, clock, access.announce),
        "hardware_monitor": monitor,
        "hardware_records": records,
        **reports_of(database, clock),
    }
    idly = [calibrating.run] * settings.calibrates + [preloading.run] * settings.preloads
    answering = (*councils.loops, *clouds.loops, conversations.run, upkeep_of(settings, clock, CLOUD_JOBS).run)
    loops = (promises.run, *fleet.loops, store.run, expectations.run, *idly, *answering)
    return people | fleet.parts | clouds.parts | councils.parts | conversations.parts | own, _lifespan(
        loops, database=database, redis=redis, gate=gate, fleet=fleet, writer=writer, monitor=monitor
    )


def _pipeline(
    settings: Settings,
    *,
    fleet: Fleet,
    calibrations: Calibrations,
    expectations: Expectations,
    ledger: Ledger,
    clock: Clock,
) -> Callable[..., Pipeline]:
    """The way of a request, but for those whom it passes."""
    costs = costs_from(settings)
    return partial(
        Pipeline,
        pool=fleet.pool,
        salts=Salts(lambda: ledger.cache_key(new_token())),
        clock=clock,
        cost=lambda model: costs.get(model) or calibrations.cost(model) or Cost(),
        saw=expectations.saw,
    )


def _scene(
    settings: Settings, *, fleet: Fleet, outlook: Outlook, calibrations: Calibrations, expectations: Expectations
) -> Callable[..., Scene]:
    """What the allocator looks at."""

    def slots(engine: Engine) -> int:
        return window_from(settings, engine, fleet.roster.spec(engine.name), calibrations.knee(engine.name)).slots

    return partial(
        Scene,
        pool=fleet.pool,
        outlook=outlook,
        calibrations=calibrations,
        boxes=fleet.residency,
        expects=expectations,
        slots=slots,
    )


def _people(
    settings: Settings, *, database: Database, ledger: Ledger, redis: Redis, clock: Clock
) -> tuple[Access, Quotas, Authentication, dict[str, object]]:
    """Who may ask what: the parts that others need, and all by name."""
    passwords, access = Passwords(), Access(ledger, clock)
    logins = Logins(database, access, passwords, LoginThrottle(redis), clock, days=settings.login_days)
    keys, quotas = ApiKeys(database, access, clock), Quotas(database, access, clock, version.bump)
    refusals = Refusals(redis, clock, per_minute_max=settings.address_refusals_per_minute_max)
    authentication = Authentication(keys, logins, access, refusals)
    parts = {
        "authentication": authentication,
        "keys": keys,
        "logins": logins,
        "quotas": quotas,
        "refusals": refusals,
        "users": Users(database, access, passwords, clock),
    }
    return access, quotas, authentication, parts


def _lifespan(
    loops: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    *,
    database: Database,
    redis: Redis,
    gate: Gate,
    fleet: Fleet,
    writer: UsageWriter,
    monitor: Monitor,
) -> Lifespan:
    """What runs as long as the server does; `loops` are those of which nothing stays behind."""

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        """Start the loops; at the end stop them in the order in which work flows, so that nothing stays behind."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(redis.aclose)
            stack.push_async_callback(fleet.close)
            # Which boxes there are follows from the devices.
            await monitor.look()
            await fleet.start()
            stack.push_async_callback(writer.close)
            stack.callback(monitor.close)
            for loop in (writer.run, gate.run, monitor.run, *loops):
                stack.push_async_callback(_stop, _start(loop))
            yield

    return running


def _fleet(
    settings: Settings,
    engines: Sequence[Engine],
    *,
    monitor: Monitor,
    gate: Gate,
    ledger: Ledger,
    database: Database,
    clock: Clock,
) -> tuple[Fleet, Promises, Calibrations, Calibrating]:
    """The engines, what is known of them, and who measures them."""

    def numbers(engine: Engine, spec: EngineSpec | None) -> Numbers:
        return numbers_of(engine, spec, number_defaults_from(settings))

    def on_window(engine: Engine, spec: EngineSpec | None) -> None:
        gate.set_window(engine.name, window_from(settings, engine, spec, store.knee(engine.name)))

    def moves(name: str) -> bool:
        return (known := fleet.roster.spec(name)) is not None and known.moves_models

    fleet = Fleet(
        engines,
        database=database,
        clock=clock,
        defaults=defaults_from(settings, LedgerPins(ledger, clock)),
        memory_bytes=settings.models_memory_bytes,
        on_window=on_window,
        on_pressure=gate.feel,
        on_gone=gate.forget,
        on_drain=gate.clear,
        machine=monitor,
        sizer=estimated,
    )
    residents = Residents(fleet.pool, fleet.residency, database, clock, moves)
    promises = Promises(
        database,
        clock,
        pool=fleet.pool,
        roster=fleet.roster,
        residency=fleet.residency,
        residents=residents,
        nonce=new_token,
    )
    store, calibrating = tuned(
        fleet,
        residents=residents,
        database=database,
        clock=clock,
        hardware=lambda: box_of(monitor.snapshot),
        numbers=numbers,
        on_window=on_window,
        load=ledger.load,
        nonce=new_token,
        server_version=VERSION,
    )
    return fleet, promises, store, calibrating


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
