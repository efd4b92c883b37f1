"""How the box is shared just now, as one person may know it: their own requests, and numbers of everybody else's."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import msgspec
from litestar import WebSocket, get, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from msgspec import Struct
from msgspec.structs import replace
from redis.exceptions import RedisError

from quotas.ledger import Ledger
from quotas.policy import Limits
from server.accounts.authentication import Authentication
from server.accounts.quotas import Quotas
from server.council.planning import Planner, Room
from server.errors import NotAuthenticated, TooMany, Unavailable
from server.messages import Principal
from server.sharing.outlook import Outlook

PUSH_EVERY_MS = 1_000
SOCKETS_PER_PERSON_MAX = 16
# Close codes: HTTP's status behind a 4, as is the custom.
NOT_LOGGED_IN = 4401
TOO_MANY = 4429
AWAY = 4503


class EngineShare(Struct):
    """One engine: its slots, and how many requests run and wait."""

    name: str
    slots: int
    running: int
    waiting: int


class OwnRequest(Struct):
    """A request of one's own.

    Attributes:
        state: queued or running.
        ahead: how many go before it, while it waits.
        wait_ms: when it will be its turn, while it waits; null: nothing is known yet.
    """

    id: UUID
    model: str
    engine: str
    state: str
    ahead: int | None = None
    wait_ms: int | None = None
    output_tokens: int = 0


class BudgetShare(Struct):
    """A budget of one's own, in its present window."""

    name: str
    limit: int
    used: int
    resets_in_ms: int


class Share(Struct):
    """The box as one person may know it.

    Attributes:
        people: how many have something running or waiting.
        share_percent: what part of the box this person gets while all of these want it; null: they want nothing.
        council: how large a council could be just now, and why not larger; null: nobody knows yet.
    """

    engines: list[EngineShare]
    people: int
    weight: int
    share_percent: int | None
    requests: list[OwnRequest]
    budgets: list[BudgetShare]
    council: Room | None = None


class Shares:
    """Tells each person their share."""

    def __init__(self, ledger: Ledger, outlook: Outlook, quotas: Quotas, planner: Planner) -> None:
        self._planner = planner
        self._ledger = ledger
        self._outlook = outlook
        self._quotas = quotas

    async def of(self, principal: Principal) -> Share:
        """The share of one person. Raises Unavailable when Redis or Postgres is away."""
        limits, _ = await self._quotas.of(principal)
        flow = str(principal.id)
        try:
            view = await self._outlook.view()
            requests = [
                OwnRequest(UUID(running.id), running.model, engine.name, "running", output_tokens=running.output_tokens)
                for engine in view.engines
                for running in engine.running
                if running.flow == flow
            ]
            for engine in view.engines:
                for queued in engine.queued:
                    if queued.flow == flow:
                        standing = await self._outlook.standing(queued.id, flow)
                        ahead, wait_ms = (standing.ahead, standing.wait_ms) if standing else (None, None)
                        requests.append(
                            OwnRequest(UUID(queued.id), queued.model, engine.name, "queued", ahead, wait_ms)
                        )
            budgets = await self._budgets(flow, limits)
        except (RedisError, OSError) as error:
            raise Unavailable("The server cannot reach its queue (Redis).", code="queue_unavailable") from error
        weights = {other.id: other.weight for engine in view.engines for other in engine.flows}
        share = weights.get(flow)
        return Share(
            engines=[EngineShare(one.name, one.slots, one.running_count, one.waiting) for one in view.engines],
            people=len(weights),
            weight=limits.weight,
            share_percent=None if share is None else math.floor(100 * share / max(sum(weights.values()), 1)),
            requests=requests,
            budgets=budgets,
            council=self._planner.room,
        )

    async def _budgets(self, flow: str, limits: Limits) -> list[BudgetShare]:
        used = await self._ledger.budget(flow)
        ends_ms = {
            "requests_per_minute": used.minute_ends_ms,
            "tokens_per_minute": used.minute_ends_ms,
            "tokens_per_day": used.day_ends_ms,
            "tokens_per_month": used.month_ends_ms,
        }
        return [
            BudgetShare(name, limit, getattr(used, name), end_ms)
            for name, end_ms in ends_ms.items()
            if (limit := getattr(limits, name)) is not None
        ]


@get("/api/share", tags=["Sharing"])
async def own_share(principal: NamedDependency[Principal], shares: NamedDependency[Shares]) -> Share:
    """Who gets how much just now: engines, one's own requests and when it is their turn, one's own budgets."""
    return await shares.of(principal)


class Sockets:
    """The open sockets of this replica; bounded, since each costs a look a second."""

    def __init__(self, shares: Shares, authentication: Authentication) -> None:
        self._shares = shares
        self._authentication = authentication
        self._open: Counter[UUID] = Counter()

    async def serve(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Push one's share whenever it has changed, until the browser or the login is gone."""
        await socket.accept()
        gone = asyncio.create_task(_until_gone(socket))
        try:
            principal = await self._authentication.recall(socket)
            with self._counted(principal):
                await self._push(socket, gone)
        except NotAuthenticated as error:
            await socket.close(NOT_LOGGED_IN, error.message)
        except TooMany as error:
            await socket.close(TOO_MANY, error.message)
        except Unavailable as error:
            await socket.close(AWAY, error.message)
        finally:
            gone.cancel()

    @contextmanager
    def _counted(self, principal: Principal) -> Iterator[None]:
        if self._open[principal.id] >= SOCKETS_PER_PERSON_MAX:
            raise Unavailable("Too many of your pages watch. Ask for /api/share instead.")
        self._open[principal.id] += 1
        try:
            yield
        finally:
            self._open[principal.id] -= 1
            self._open += Counter()  # forgets those at zero

    async def _push(self, socket: WebSocket[Any, Any, Any], gone: asyncio.Task[None]) -> None:
        last = b""
        while not gone.done():
            share = await self._shares.of(await self._authentication.recall(socket))
            # The end of a window comes nearer all the time; that alone is no news.
            seen = msgspec.json.encode(replace(share, budgets=[(one.name, one.used) for one in share.budgets]))
            if seen != last:
                await socket.send_text(msgspec.json.encode(share).decode())
                last = seen
            await asyncio.wait([gone], timeout=PUSH_EVERY_MS / 1000)


async def _until_gone(socket: WebSocket[Any, Any, Any]) -> None:
    """Take what the browser sends, which means nothing, until it hangs up."""
    with suppress(WebSocketDisconnect):
        while True:
            await socket.receive_data("text")


@websocket("/api/live")
async def live(socket: WebSocket[Any, Any, Any], sockets: NamedDependency[Sockets]) -> None:
    """`/api/share`, pushed as a text message whenever it has changed, at most once a second."""
    await sockets.serve(socket)
