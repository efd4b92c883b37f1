"""For machines that watch: alive, ready, metrics. No model is ever called from here."""

import asyncio
from typing import Any, Literal

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery
from redis.exceptions import RedisError

from quotas.ledger import Ledger
from server.accounts.authentication import Authentication, cookie_name
from server.api.metrics import metrics
from server.api.scope import request_scope
from server.db.session import Database
from server.engines.pool import Pool
from server.errors import Unavailable, WirthforgeError

CHECK_S_MAX = 3


@get(["/health", "/healthz"], tags=["Health"])
async def health() -> dict[str, str]:
    """The process answers. Depends on nothing."""
    return {"status": "ok"}


@get("/readyz", tags=["Health"])
async def ready(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    database: NamedDependency[Database],
    ledger: NamedDependency[Ledger],
    pool: NamedDependency[Pool],
    engine: FromQuery[Literal["yes", "no"]] = "yes",
) -> Response[dict[str, Any]]:
    """Whether Postgres, Redis and at least one engine answer. 503 if not, or if the server is about to end.

    With `engine=no` engines do not count, so that pages stay reachable. Admins are told which part is away.
    """
    postgres, redis, is_admin = await asyncio.gather(
        _answers(database.ping()), _answers(ledger.ping()), _is_admin(request, authentication)
    )
    parts = {"postgres": postgres, "redis": redis, "engine": pool.is_ready}
    is_ready = all(is_there for part, is_there in parts.items() if part != "engine" or engine == "yes")
    status = "ready" if is_ready else "not ready"
    if request_scope(request.scope).ending.has_begun:
        is_ready, status = False, "ending"
    body = {"status": status, **({"parts": parts} if is_admin else {})}
    return Response(body, status_code=200 if is_ready else 503)


async def _is_admin(request: Request[Any, Any, Any], authentication: Authentication) -> bool:
    """Whether an admin asks, as far as that can be found out just now. Who shows nothing is not looked up."""
    if "authorization" not in request.headers and cookie_name(request) not in request.cookies:
        return False
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            return (await authentication.recall(request)).role == "admin"
    except (WirthforgeError, RedisError, OSError, TimeoutError):
        return False


async def _answers(ping: Any) -> bool:  # noqa: ANN401 (any coroutine)
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            await ping
    except (Unavailable, RedisError, OSError, TimeoutError):
        return False
    return True


def handlers() -> list[HTTPRouteHandler]:
    """Everything here."""
    return [health, ready, metrics]
