"""The page for Prometheus: what the server counted, and what only somebody who asks can tell.

It has to be there when the box is in trouble, else nobody is told of that. Keys are in Postgres; so while Postgres is
away, a key is good for this page, and for nothing else, if it was good here when Postgres last answered. Revoked in
between it cannot have been. What hangs is waited for some seconds.
"""

import asyncio
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.accounts.authentication import Authentication, require_admin
from server.accounts.secrets import digest
from server.db.session import Database
from server.errors import NotAllowed, NotAuthenticated, Unavailable
from server.telemetry import DISKS, POSTGRES_CONNECTIONS, POSTGRES_UP, REGISTRY
from server.upkeep import gauges

# Together less than the ten seconds that Prometheus waits.
ANSWER_S_MAX, DISK_S_MAX = 3, 1
SCRAPERS_MAX = 16
AWAY = "database_unavailable"


@get("/metrics", media_type=MediaType.TEXT, tags=["Health"])
async def metrics(
    request: Request[Any, Any, State],
    authentication: NamedDependency[Authentication],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Prometheus' text format, for an admin's API key."""
    is_there = await _admit(request, authentication)
    disks = asyncio.create_task(asyncio.to_thread(DISKS.look))
    await asyncio.wait([disks], timeout=DISK_S_MAX)
    POSTGRES_UP.set(is_there and await _look(database))
    POSTGRES_CONNECTIONS.set(database.connections_used)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _admit(request: Request[Any, Any, State], authentication: Authentication) -> bool:
    """Whether Postgres says that an admin asks; False if it is away, and they were an admin before.

    Raises:
        NotAuthenticated, NotAllowed: nobody known asks, or no admin.
        Unavailable: nobody can tell.
    """
    known: dict[bytes, None] = request.app.state.setdefault("scrapers", {})
    scraper = digest(request.headers.get("authorization", ""))
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            require_admin(await authentication.require(request))
    except (NotAuthenticated, NotAllowed):
        known.pop(scraper, None)
        raise
    except TimeoutError:
        if scraper not in known:
            raise Unavailable("Postgres does not answer.", code=AWAY, retry_after_s=5) from None
        return False
    except Unavailable as error:
        if error.code != AWAY or scraper not in known:
            raise
        return False
    if "authorization" in request.headers:
        known.pop(scraper, None)
        known[scraper] = None
        while len(known) > SCRAPERS_MAX:
            del known[next(iter(known))]
    return True


async def _look(database: Database) -> bool:
    """Ask Postgres for what only it knows; whether it answers."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            await gauges.look(database)
    except (Unavailable, TimeoutError):
        return False
    return True
