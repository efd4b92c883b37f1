"""A served box: the very application that `wirthforge serve` runs, on a free port, inside the test's event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from openai import AsyncOpenAI
from sqlalchemy import select

from quotas.ledger import Ledger
from server.accounts.access import Access
from server.accounts.keys import ApiKeys
from server.accounts.passwords import Passwords
from server.accounts.users import Users
from server.app import create_app
from server.cli.serve import WebServer, address, listen
from server.clock import Clock, SystemClock
from server.db.models import Usage, User
from server.db.session import Database
from server.engines.configured import engines_from
from server.engines.protocol import Engine
from server.messages import Role
from server.settings import Settings
from server.sharing.redis import connect_redis

PASSWORD = "correct horse battery"
POLL_MS = 10


@dataclass
class Person:
    """Somebody on the box, with a key."""

    user: User
    key: str

    @property
    def bearer(self) -> dict[str, str]:
        """Headers that say who this is."""
        return {"Authorization": f"Bearer {self.key}"}


class Box:
    """A running server and ways to reach it."""

    def __init__(self, url: str, database: Database, ledger: Ledger, clock: Clock) -> None:
        access = Access(ledger, clock)
        self.url = url
        self.ledger = ledger
        self.database = database
        self.clock = clock
        self.users = Users(database, access, Passwords(), clock)
        self.keys = ApiKeys(database, access, clock)
        self._admin: Person | None = None

    async def person(self, name: str, role: Role = "member", password: str | None = None) -> Person:
        """Add somebody, with an API key."""
        user = await self.users.add(name, role, password)
        _, key = await self.keys.create(user.id, "test")
        return Person(user, key)

    async def allow(self, person: Person | None = None, **rule: Any) -> None:
        """Set the rule of somebody, or of everybody, as an admin does; it holds from the next request."""
        if self._admin is None:
            self._admin = await self.person(f"admin-{self.url.rpartition(':')[2]}", "admin")
        place = "default" if person is None else f"users/{person.user.id}"
        async with self.http(headers=self._admin.bearer) as client:
            answer = await client.put(f"/api/admin/quotas/{place}", json=rule)
        assert answer.status_code == 200, answer.text

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client with a cookie jar."""
        return httpx.AsyncClient(base_url=self.url, timeout=20, **options)

    def openai(self, person: Person) -> AsyncOpenAI:
        """OpenAI's own client."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=person.key, max_retries=0, timeout=20)

    async def usage(self, count: int, within_ms: int = 10_000) -> Sequence[Usage]:
        """The usage rows, oldest first, as soon as there are `count` of them."""
        deadline_ms = self.clock.monotonic_ms() + within_ms
        while True:
            async with self.database.transaction(everybody=True) as session:
                rows = (await session.scalars(select(Usage).order_by(Usage.started_at))).all()
            if len(rows) >= count:
                return rows
            assert self.clock.monotonic_ms() < deadline_ms, f"{len(rows)} of {count} usage rows after {within_ms} ms"
            await self.clock.sleep_ms(POLL_MS)

    async def usage_of(self, request_id: str) -> Usage | None:
        """The row of one request."""
        async with self.database.transaction(everybody=True) as session:
            return await session.get(Usage, UUID(request_id))


@asynccontextmanager
async def serve_box(
    settings: Settings, engines: Sequence[Engine] | None = None, clock: Clock | None = None
) -> AsyncIterator[Box]:
    """Run a server until the block ends."""
    listening = listen(settings)
    clock = clock or SystemClock()
    started = asyncio.Event()
    app = create_app(settings, engines_from(settings) if engines is None else engines, clock)
    server = WebServer(app, settings, on_started=started.set)
    running = asyncio.create_task(server.run_on(listening))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        await running
    database = Database(settings.database_url, connections_max=3)
    redis = connect_redis(settings.redis_url)
    try:
        yield Box(address(settings, listening), database, Ledger(redis), clock)
    finally:
        server.stop()
        await database.close()
        await redis.aclose()
        async with asyncio.timeout(15):
            await running
