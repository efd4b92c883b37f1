"""All of a cloud but the box under it: real Postgres, real Redis, a provider that records, and a pipeline that refuses.

So that what happens between a decision and the first byte can be cut at every single wait.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

from msgspec.structs import replace
from sqlalchemy import text

from quotas.ledger import Ledger
from server.accounts.access import Access
from server.accounts.passwords import Passwords
from server.accounts.quotas import Actor, Quotas, Scope
from server.accounts.users import Users
from server.api.wire import parse
from server.chat.pipeline import Answer, Identify
from server.clock import Clock, SystemClock, uuid7
from server.cloud.hop import Hop, Hops
from server.cloud.joined import Joined, clouds_of
from server.cloud.overflow import Overflow
from server.cloud.protocol import CloudModel, ProviderSpec
from server.cloud.registry import CloudRegistry
from server.cloud.sending import Endings
from server.db.session import Database
from server.errors import Unavailable
from server.messages import CloudWish, ModelRequest, Principal
from server.privacy import version
from server.privacy.policies import BOX, Policies, Whose
from server.privacy.policies import Actor as PolicyActor
from server.settings import Settings
from server.sharing.lease import Tell
from server.sharing.redis import connect_redis
from tests.cloud.boxes import CONTROL, LOOKER, PROVIDER
from tests.stand_ins.cloud_provider import MODEL as FAR
from tests.stand_ins.cloud_provider import Cloud, Seen
from tests.stand_ins.openai_engine import MODEL

T = TypeVar("T")
ADMIN = PolicyActor("admin")


class Full:
    """A pipeline whose box is full, but for the model that looks for personal data; that one finds these names.

    Attributes:
        looks: whether it answers at all.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.looks = True
        self.handed: list[tuple[object, ...]] = []

    async def answer(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None = None
    ) -> Answer:
        """As the pipeline."""
        self.handed.append((request, identify, stack, tell))
        if request.role != "privacy":
            raise Unavailable("The box is full.", code="queue_full", retry_after_s=10)
        while not self.looks:
            await asyncio.Event().wait()
        texts = json.loads(request.body["messages"][-1]["content"])["texts"]
        found = [each.removesuffix(CONTROL) for each in texts if each.endswith(CONTROL)]
        found += [name for name in self.names if any(name in each for each in texts)]
        spans = [{"text": name, "type": "PERSON"} for name in found]
        content = json.dumps({"spans": spans})
        return Answer({}, body=json.dumps({"choices": [{"message": {"content": content}}]}).encode())


@dataclass
class World:
    """What there is, and ann."""

    database: Database
    clock: Clock
    cloud: Cloud
    plain: Full
    joined: Joined
    quotas: Quotas
    ann: Principal
    unwritten: list[Seen] = field(default_factory=list)

    @property
    def hops(self) -> Hops:
        """The way around the queue."""
        assert isinstance(self.joined.way, Overflow)
        return self.joined.way._hops

    @property
    def endings(self) -> Endings:
        """What writes ends."""
        return self.hops.endings

    @property
    def policies(self) -> Policies:
        """The rules."""
        found = self.joined.parts["cloud_policies"]
        assert isinstance(found, Policies)
        return found

    async def identify(self) -> Principal:
        """Ann is asking."""
        return self.ann

    def request(self, content: str = "Why is the sky blue?", *, stream: bool = False, **wish: Any) -> ModelRequest:
        """Hers."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "stream": stream}
        asked = parse("chat.completions", json.dumps(body).encode(), uuid7(self.clock.now()))
        return replace(asked, cloud=CloudWish(**wish))

    def hop(self, request: ModelRequest) -> Hop:
        """Her request, which the box has refused."""
        hop = Hop(request, self.identify, None, self.hops)
        hop._is_refused = True
        return hop

    async def box_says(self, **policy: Any) -> None:
        """The policy of the box."""
        await self.policies.set(ADMIN, BOX, policy)

    async def ann_says(self, **policy: Any) -> None:
        """Her own."""
        await self.policies.set(PolicyActor("ann", self.ann.id), Whose.own_of(self.ann.id), policy)

    async def may_spend(self, cents: int) -> None:
        """In a month."""
        await self.quotas.set_rule(Actor("admin"), Scope.of_user(self.ann.id), {"cloud_cents_per_month": cents})

    async def rows(self, query: str, **values: Any) -> list[Any]:
        """Of everybody."""
        async with self.database.transaction(everybody=True) as session:
            return list((await session.execute(text(query), values)).all())

    async def entries(self, request_id: UUID) -> list[str]:
        """What the ledger says of a request: `send`, and how it ended."""
        rows = await self.rows("SELECT kind, outcome FROM egress WHERE request_id = :id ORDER BY seq", id=request_id)
        return [row.outcome or row.kind for row in rows]

    async def reserved(self) -> int:
        """What ann's month still has set aside."""
        rows = await self.rows("SELECT reserved_micros FROM cloud_spend WHERE user_id = :user", user=self.ann.id)
        return rows[0].reserved_micros if rows else 0

    async def conversation(self) -> UUID:
        """One of hers."""
        conversation, now = uuid4(), self.clock.now()
        async with self.database.transaction(of=self.ann.id) as session:
            await session.execute(
                text(
                    "INSERT INTO conversations (id, user_id, title, model, created_at, updated_at)"
                    " VALUES (:id, :user, '', '', :now, :now)"
                ),
                {"id": conversation, "user": self.ann.id, "now": now},
            )
        return conversation

    async def conversation_says(self, conversation: UUID, cloud: str | None) -> None:
        """What may leave of it."""
        async with self.database.transaction(of=self.ann.id) as session:
            values = {"id": conversation, "cloud": cloud}
            await session.execute(text("UPDATE conversations SET cloud = :cloud WHERE id = :id"), values)

    async def witness(self, seen: Seen) -> None:
        """Of a body that has just arrived: is it in the ledger already?"""
        digest = hashlib.sha256(seen.body).digest()
        rows = await self.rows("SELECT 1 FROM egress WHERE kind = 'send' AND sha256 = :digest", digest=digest)
        if not rows:
            self.unwritten.append(seen)

    @property
    def is_silent(self) -> bool:
        """Whether nobody has even opened a connection to the provider."""
        return not self.cloud.connections and not self.cloud.received

    async def settled(self) -> None:
        """Until every end is written."""
        tasks = self.endings._tasks
        while tasks:
            await asyncio.wait(set(tasks))


@asynccontextmanager
async def world_of(settings: Settings, cloud: Cloud, *names: str) -> AsyncIterator[World]:
    """A world in which ann may do everything; the local model finds these names."""
    clock = SystemClock()
    database, redis = Database(settings.database_url, connections_max=5), connect_redis(settings.redis_url)
    access = Access(Ledger(redis), clock)
    quotas = Quotas(database, access, clock, version.bump)
    plain = Full(*names)
    joined = clouds_of(plain, parse, settings=settings, database=database, quotas=quotas, clock=clock)
    user = await Users(database, access, Passwords(), clock).add("ann", "member", None)
    ann = Principal(id=user.id, name="ann", role="member")
    world = World(database, clock, cloud, plain, joined, quotas, ann)
    cloud.witness = world.witness
    registry = joined.parts["cloud_registry"]
    assert isinstance(registry, CloudRegistry)
    model = CloudModel(
        name=FAR, stands_in_for=("*",), input_micros_per_million=1_000_000, output_micros_per_million=2_000_000
    )
    spec = ProviderSpec(name=PROVIDER, kind="openai", url=cloud.url, models=(model,))
    await registry.add(replace(ann, role="admin"), spec, "sk-far")
    await world.may_spend(1_000)
    await world.box_says(is_on=True, detection_model=LOOKER, detection_ms=20_000)
    await world.ann_says(mode="allow", patience_ms=0)
    try:
        yield world
        await world.settled()
        assert world.unwritten == []
    finally:
        await world.endings.close()
        close = joined.parts["cloud_providers"].close  # type: ignore[attr-defined]
        await close()
        await database.close()
        await redis.aclose()


Action = Callable[[], Awaitable[object]]


class Cut(Exception):
    """Nothing was left to be done at this wait: the work had ended before."""


@coroutine
def doing_at(work: Coroutine[Any, Any, T], number: int, action: Action | None) -> Generator[Any, Any, T]:
    """Run `work`; at its wait of this number something else happens first, or it is cancelled there (None).

    Raises:
        Cut: it has no such wait.
    """
    steps, count = work.__await__(), 0
    step: Callable[[], Any] = partial(steps.send, None)
    while True:
        try:
            waited = step()
        except StopIteration as end:
            if count <= number:
                raise Cut from None
            return end.value  # type: ignore[no-any-return]
        if count == number and action is None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        elif count == number and action is not None:
            yield from action().__await__()
        count += 1
        try:
            step = partial(steps.send, (yield waited))
        except BaseException as error:  # noqa: BLE001 (it goes where it was meant to go)
            step = partial(steps.throw, error)
