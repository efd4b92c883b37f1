"""For machines that watch: alive, ready, metrics. No model is ever called from here."""

import asyncio
from typing import Any

from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from quotas.ledger import Ledger
from server.accounts.authentication import require_admin
from server.db.session import Database
from server.engines.pool import Pool
from server.errors import Unavailable
from server.messages import Principal
from server.telemetry import REGISTRY

CHECK_S_MAX = 3


@get(["/health", "/healthz"], tags=["Health"])
async def health() -> dict[str, str]:
    """The process answers. Depends on nothing."""
    return {"status": "ok"}


@get("/readyz", tags=["Health"])
async def ready(
    database: NamedDependency[Database], ledger: NamedDependency[Ledger], pool: NamedDependency[Pool]
) -> Response[dict[str, Any]]:
    """Whether requests can be served: Postgres, Redis and at least one engine answer. 503 if not."""
    postgres, redis = await asyncio.gather(_answers(database.ping()), _answers(ledger.ping()))
    parts = {"postgres": postgres, "redis": redis, "engine": pool.is_ready}
    is_ready = all(parts.values())
    body = {"status": "ready" if is_ready else "not ready", "parts": parts}
    return Response(body, status_code=200 if is_ready else 503)


async def _answers(ping: Any) -> bool:  # noqa: ANN401 (any coroutine)
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            await ping
    except (Unavailable, RedisError, OSError, TimeoutError):
        return False
    return True


@get("/metrics", media_type=MediaType.TEXT, tags=["Health"])
async def metrics(principal: NamedDependency[Principal]) -> Response[bytes]:
    """Prometheus' text format, for an admin's API key."""
    require_admin(principal)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def handlers() -> list[HTTPRouteHandler]:
    """Everything here."""
    return [health, ready, metrics]
