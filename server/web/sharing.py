"""How the box is shared just now, as one person may know it: their own requests, and numbers of everybody else's."""

import asyncio
import math
from contextlib import suppress
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
from server.errors import Unavailable, WirthforgeError
from server.messages import Principal
from server.sharing.outlook import Outlook

PUSH_EVERY_MS = 1_000
# How often a socket asks whether its person is still logged in.
PUSHES_PER_LOGIN_CHECK = 30
SOCKETS_MAX = 256
# Close codes: HTTP's status behind a 4, as is the custom.
NOT_LOGGED_IN = 4401
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
    """

    engines: list[EngineShare]
    people: int
    weight: int
    share_percent: int | None
    requests: list[OwnRequest]
    budgets: list[BudgetShare]


class Shares:
    """Tells each person their share."""

    def __init__(self, ledger: Ledger, outlook: Outlook, quotas: Quotas) -> None:
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
                        standing = await self._outlook.standing(queued.id)
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
        self._open = 0

    async def serve(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Push one's share whenever it has changed, until the browser or the login is gone."""
        principal = await self._principal(socket)
        await socket.accept()
        if principal is None:
            await socket.close(NOT_LOGGED_IN, "Log in first.")
        elif self._open >= SOCKETS_MAX:
            await socket.close(AWAY, "Too many pages watch. Ask for /api/share instead.")
        else:
            self._open += 1
            gone = asyncio.create_task(_until_gone(socket))
            try:
                await self._push(socket, principal, gone)
            finally:
                gone.cancel()
                self._open -= 1

    async def _principal(self, socket: WebSocket[Any, Any, Any]) -> Principal | None:
        try:
            return await self._authentication.find(socket)
        except WirthforgeError:
            return None

    async def _push(self, socket: WebSocket[Any, Any, Any], principal: Principal, gone: asyncio.Task[None]) -> None:
        last, pushes = b"", 0
        while not gone.done():
            pushes += 1
            if pushes % PUSHES_PER_LOGIN_CHECK == 0 and await self._principal(socket) != principal:
                await socket.close(NOT_LOGGED_IN, "Log in again.")
                return
            try:
                share = await self._shares.of(principal)
            except Unavailable as error:
                await socket.close(AWAY, error.message)
                return
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
