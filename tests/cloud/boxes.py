"""A served box with a full engine, a provider that records every byte, and a local model that looks for personal data.

The provider, the engine and the looking model are stand-ins that speak the real wire formats over real sockets.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from sqlalchemy import text

from server.cloud.overflow import Switch
from server.db.models import Usage
from tests.boxes import POLL_MS, Box, Person
from tests.conversations.conftest import Writer
from tests.stand_ins import openai_engine
from tests.stand_ins.cloud_provider import MODEL as FAR
from tests.stand_ins.cloud_provider import Cloud, Seen
from tests.stand_ins.openai_engine import MODEL, Order

PATH = "/v1/chat/completions"
PROVIDER, LOOKER = "far", "looker"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
# How many may wait for the engine.
QUEUE_MAX = 2
# What makes the control text of the detector end.
CONTROL = " brought the parcel back on Tuesday."


def looking(*names: str) -> openai_engine.Behaviour:
    """A model that finds these names, and the person whom it is controlled by."""

    async def answer(order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        texts = json.loads(body["messages"][-1]["content"])["texts"]
        spans = [{"text": each.removesuffix(CONTROL), "type": "PERSON"} for each in texts if each.endswith(CONTROL)]
        spans += [{"text": name, "type": "PERSON"} for name in names if any(name in each for each in texts)]
        return await openai_engine.saying(json.dumps({"spans": spans}))(order, request, body)

    return answer


@dataclass
class Sky:
    """The box, who is on it, and what is around it.

    Attributes:
        unwritten: bodies that arrived without an entry in the ledger.
    """

    box: Box
    cloud: Cloud
    order: Order
    looker: Order
    engine_url: str
    switches: list[Switch]
    admin: Person
    ann: Person
    bob: Person
    unwritten: list[Seen] = field(default_factory=list)

    async def box_says(self, **policy: Any) -> None:
        """Set the policy of the box, as an admin does."""
        await self.put("/api/admin/cloud/policy", self.admin, policy)
        for switch in self.switches:
            await switch.look()

    async def ann_says(self, **policy: Any) -> None:
        """Set ann's own."""
        await self.put("/api/cloud/policy", self.ann, policy)

    async def put(self, path: str, person: Person, body: dict[str, Any]) -> None:
        """PUT, as somebody."""
        async with self.box.http(headers=person.bearer) as client:
            answer = await client.put(path, json=body)
        assert answer.status_code == 200, answer.text

    async def provide(self, **more: Any) -> None:
        """Register the provider."""
        model = {
            "name": FAR,
            "stands_in_for": ["*"],
            "input_micros_per_million": 1_000_000,
            "output_micros_per_million": 2_000_000,
        }
        spec: dict[str, Any] = {
            "name": PROVIDER,
            "kind": "openai",
            "url": self.cloud.url,
            "api_key": "sk-far",
            "models": [model | more],
        }
        async with self.box.http(headers=self.admin.bearer) as client:
            answer = await client.post("/api/admin/cloud/providers", json=spec)
        assert answer.status_code == 201, answer.text

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """The only slot is bob's until the block ends, or `order.hold` is set."""
        self.order.hold.clear()
        self.order.began.clear()
        async with self.box.http(headers=self.bob.bearer) as client:
            holding = asyncio.create_task(client.post(PATH, json=CHAT))
            await self.order.began.wait()
            try:
                yield
            finally:
                self.order.hold.set()
                await holding

    @asynccontextmanager
    async def crowded(self) -> AsyncIterator[None]:
        """The whole queue is of ann's own requests, which stay on the box; so her next one is refused."""
        async with self.box.http(headers={**self.ann.bearer, "x-wirthforge-cloud": "never"}) as client:
            waiting = [asyncio.create_task(client.post(PATH, json=CHAT)) for _ in range(QUEUE_MAX)]
            await self.waits(QUEUE_MAX)
            try:
                yield
            finally:
                self.order.hold.set()
                await asyncio.gather(*waiting)

    async def ask(self, person: Person | None = None, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """Ask in one piece; gives the response."""
        async with self.box.http(headers={**(person or self.ann).bearer, **(headers or {})}) as client:
            return await client.post(PATH, json=CHAT | body)

    @asynccontextmanager
    async def asking(self, **body: Any) -> AsyncIterator[httpx.Response]:
        """Ask as ann, and read the stream in the block."""
        async with (
            self.box.http(headers=self.ann.bearer) as client,
            client.stream("POST", PATH, json=CHAT | {"stream": True} | body) as response,
        ):
            yield response

    async def waits(self, count: int = 1) -> None:
        """Until so many requests wait in the queue."""
        async with asyncio.timeout(10):
            while (await self.box.ledger.load(self.engine_url.split("/")[2]))[1] < count:
                await self.box.clock.sleep_ms(POLL_MS)

    async def rows(self, query: str, **values: Any) -> list[Any]:
        """Rows of everybody."""
        async with self.box.database.transaction(everybody=True) as session:
            return list((await session.execute(text(query), values)).all())

    async def entries(self) -> list[Any]:
        """The ledger."""
        return await self.rows("SELECT * FROM egress ORDER BY seq")

    async def ended(self, count: int = 1) -> list[Any]:
        """The ledger, as soon as so many requests have their end."""
        async with asyncio.timeout(10):
            while True:
                found = await self.entries()
                if sum(each.kind == "end" for each in found) >= count:
                    return found
                await self.box.clock.sleep_ms(POLL_MS)

    async def usage_of(self, request_id: str) -> Usage:
        """The usage row of a request, as soon as it is there."""
        async with asyncio.timeout(10):
            while (row := await self.box.usage_of(request_id)) is None:
                await self.box.clock.sleep_ms(POLL_MS)
        return row

    async def spent(self) -> tuple[int, int]:
        """What ann's month holds: reserved and spent."""
        rows = await self.rows(
            "SELECT reserved_micros, spent_micros FROM cloud_spend WHERE user_id = :user", user=self.ann.user.id
        )
        return (rows[0].reserved_micros, rows[0].spent_micros) if rows else (0, 0)

    async def witness(self, seen: Seen) -> None:
        """Of a body that has just arrived: is it in the ledger already?"""
        digest = hashlib.sha256(seen.body).digest()
        rows = await self.rows("SELECT 1 FROM egress WHERE kind = 'send' AND sha256 = :digest", digest=digest)
        if len(rows) != 1:
            self.unwritten.append(seen)

    @property
    def is_silent(self) -> bool:
        """Whether nobody has even opened a connection to the provider."""
        return not self.cloud.connections and not self.cloud.received

    def writer(self, client: httpx.AsyncClient) -> Writer:
        """Ann, as somebody with conversations."""
        return Writer(self.box, self.ann, client)
