"""The ledger: the shared record of queues, leases, budgets and what they cost, in Redis.

One method per script of `lua/`; nothing is decided here. Methods raise redis.RedisError when Redis is away, and every
one of them may be called again after that: the scripts do nothing twice.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from quotas.audit import Audit, read_audit
from quotas.policy import Limits
from quotas.view import View, read_view
from quotas.window import Window

SCRIPTS = Path(__file__).parent / "lua"
# Every script begins with these; each builds on those before it.
SHARED = ("keys", "budgets", "flows", "lately", "reserve", "recall", "turns")
USAGE_GROUP = "usage"
REAPED_MAX = 100
SCANNED_MAX = 1000
UNREADABLE_MAX = 10_000
VIEWED_MAX = 1000

State = Literal["running", "queued", "stale", "full", "crowded", "limited"]
Fact = Literal["running", "revoked", "paused", "lost", "missing"]
News = Literal["run", "revoke", "pause"]
# How a request enters: from its client, or, after Redis lost its state, as a stream that runs or is paused.
Enters = Literal["queued", "running", "paused"]
Requeued = Literal["queued", "running", "lost", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the ledger knows of a request: enough to rank and charge it, and to write its usage row without its replica.

    Attributes:
        user: whose flow it belongs to.
        input_tokens: an estimate.
        prompt_cost: what reading the prompt costs, in service units (cost.py).
        output_tokens_max: the longest answer that it may give, which its budget must afford.
        output_tokens_min: a shorter one with which it is content, should the budget not afford more.
        answers: how many it asks for; each takes a slot.
        is_revocable: whether its lease may be taken away for somebody who waits.
        council: the request of the council that it is a part of; empty for one of its own.
        role: what it does there.
    """

    id: str
    engine: str
    model: str
    surface: str
    user: str
    key: str
    input_tokens: int
    started_at_ms: int
    prompt_cost: int = 0
    output_tokens_max: int = 0
    output_tokens_min: int = 0
    answers: int = 1
    is_revocable: bool = False
    council: str = ""
    role: str = ""

    def usage_fields(self) -> dict[str, str | int]:
        """What goes into the usage row."""
        return {
            "model": self.model,
            "surface": self.surface,
            "user": self.user,
            "key": self.key,
            "input_tokens": self.input_tokens,
            "started_at_ms": self.started_at_ms,
            **({"council": self.council, "role": self.role} if self.council else {}),
        }

    def fields(self) -> list[str | int]:
        """Names and values, flat, as Redis takes them."""
        return [
            *(part for pair in self.usage_fields().items() for part in pair),
            *("prompt_cost", self.prompt_cost, "answers", self.answers, "revocable", int(self.is_revocable)),
            *("output_tokens_max", self.output_tokens_max, "output_tokens_min", self.output_tokens_min),
        ]


def _fields_of(limits: Limits) -> list[str | int]:
    """The limits that the scripts hold, where there are any."""
    amounts = {
        "weight": limits.weight,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "tokens_per_day": limits.tokens_per_day,
        "tokens_per_month": limits.tokens_per_month,
        "in_flight_max": limits.in_flight_max,
        "queue_length_max": limits.queue_length_max,
    }
    return [part for name, amount in amounts.items() if amount is not None for part in (name, amount)]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a flow has used in the windows of this moment, and when they end, in ms from now."""

    requests_per_minute: int
    tokens_per_minute: int
    tokens_per_day: int
    tokens_per_month: int
    minute_ends_ms: int
    day_ends_ms: int
    month_ends_ms: int


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a request stands after it entered.

    Attributes:
        limit: what was in the way: a name of quotas.policy.Limits, or the length of the queue that is full.
        ends_ms: when it will be out of the way, from now; 0: at no time that is known.
        granted: output tokens that the budget affords.
    """

    state: State
    limit: str
    ends_ms: int
    granted: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class Progress:
    """What one request has used so far, in totals.

    Attributes:
        first_token_ms: -1 until there is one, and again from a pause on until there is another.
        is_pausable: whether its answer could stop now, and go on later.
    """

    id: str
    output_tokens: int
    first_token_ms: int
    cost: int = 0
    is_pausable: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A settled request as read from the stream; `position` acknowledges it."""

    position: str
    fields: Mapping[str, str]


class Ledger:
    """The scripts of one box.

    Args:
        redis: a client that decodes replies to str.
        box: the machine or group that is shared as one; becomes the hash tag of every key.
        now_ms: virtual time for tests; None in production, where Redis' TIME rules.
    """

    def __init__(self, redis: Redis, box: str = "box", now_ms: int | None = None) -> None:
        self._redis = redis
        self._prefix = f"wf:{{{box}}}:"
        self.now_ms = now_ms
        shared = "\n".join((SCRIPTS / "shared" / f"{name}.lua").read_text() for name in SHARED)
        self._scripts = {
            path.stem: redis.register_script(f"{shared}\n{path.read_text()}") for path in SCRIPTS.glob("*.lua")
        }

    async def _run(self, script: str, *arguments: str | int) -> Any:  # noqa: ANN401 (the reply's shape is the script's)
        now = "" if self.now_ms is None else self.now_ms
        return await self._scripts[script](keys=[self._prefix], args=[now, *arguments])

    async def enqueue(
        self,
        entry: Entry,
        limits: Limits,
        *,
        replica: str,
        queue_length_max: int,
        version: str = "",
        enters: Enters = "queued",
        output_tokens: int = 0,
    ) -> Admission:
        """Enter a request.

        Args:
            queue_length_max: of the engine; that of the flow is one of its limits.
            version: the policy version that the limits were read under.
            enters: a stream whose record was lost with Redis' state always enters.
            output_tokens: of one that was paused.
        """
        state, limit, ends_ms, granted, *budget = await self._run(
            *("enqueue", entry.id, entry.engine, replica, queue_length_max, enters, version),
            *(*entry.fields(), *_fields_of(limits), "output_tokens", output_tokens),
        )
        return Admission(state, limit, int(ends_ms), int(granted), Budget(*map(int, budget)))

    async def dispatch(self, engine: str, window: Window) -> int:
        """Set how much `engine` takes at a time; returns how many requests still wait."""
        return int(await self._run("dispatch", engine, *window.fields()))

    async def charge(self, replica: str, progress: Iterable[Progress]) -> list[tuple[str, Fact]]:
        """Report on all requests of a replica, and renew its leases."""
        flat = [
            value
            for item in progress
            for value in (item.id, item.output_tokens, item.first_token_ms, item.cost, int(item.is_pausable))
        ]
        facts = cast("Sequence[str]", await self._run("charge", replica, *flat))
        return [(facts[at], cast("Fact", facts[at + 1])) for at in range(0, len(facts), 2)]

    async def finish(self, request: str, engine: str, event: Mapping[str, str | int], *, cost: int = 0) -> None:
        """End a lease: settle what it cost, and write the usage event (which holds both numbers of tokens)."""
        flat = [part for pair in event.items() for part in pair]
        await self._run("finish", request, engine, cost, *flat)

    async def requeue(self, request: str, engine: str, *, pause: int, output_tokens: int, cost: int) -> Requeued:
        """Give up a slot and wait again, to go on later.

        Args:
            engine: where it goes on, the same or another.
            pause: which one of this request, from 1 on.
            output_tokens, cost: so far.
        """
        return cast("Requeued", await self._run("requeue", request, engine, pause, output_tokens, cost))

    async def cancel(self, request: str) -> None:
        """Take back a request that has not begun."""
        await self._run("cancel", request)

    async def revoke(self, flow: str) -> int:
        """Have everything end that runs for a flow; returns how many of its requests run or wait."""
        return int(await self._run("revoke", flow))

    async def reap(self) -> list[str]:
        """Take back leases that nobody renewed; returns their requests."""
        return cast("list[str]", await self._run("reap", REAPED_MAX))

    async def trim(self, engine: str, *, waiting: int, preempted: int) -> int:
        """Let what an engine says of itself trim its slots; returns the slots in use."""
        return int(await self._run("trim", engine, waiting, preempted))

    async def view(self) -> View:
        """What there is: engines, running and queued requests, and where flows stand."""
        return read_view(await self._run("view", VIEWED_MAX))

    async def budget(self, flow: str) -> Budget:
        """What a flow has used in the windows of this moment."""
        return Budget(*map(int, await self._run("budget", flow)))

    async def audit(self, flows: Iterable[str]) -> Audit:
        """Budgets of these flows and of all that have requests here, and these requests, at one moment."""
        return read_audit(await self._run("audit", *flows))

    async def names(self, kind: Literal["budget", "request"]) -> set[str]:
        """Whose budgets there are, or which requests have a record; not at one moment."""
        start = f"{self._prefix}{kind}:"
        return {key.removeprefix(start) async for key in self._redis.scan_iter(f"{start}*", count=SCANNED_MAX)}

    async def news(self, replica: str, wait_ms: int) -> tuple[News, str] | None:
        """The next news for `replica`, a request that may run or has to end; waits at most `wait_ms`."""
        key = f"{self._prefix}go:{replica}"
        if wait_ms:
            reply = await self._redis.blpop([key], timeout=wait_ms / 1000)
            news = None if reply is None else cast("str", reply[1])
        else:
            news = cast("str | None", await cast("Any", self._redis.lpop(key)))
        if news is None:
            return None
        kind, _, request = news.partition(":")
        return cast("News", kind), request

    async def policy_version(self) -> str:
        """Changes with every change of a quota; empty where Redis knows none."""
        return cast("str | None", await self._redis.get(f"{self._prefix}policy_version")) or ""

    async def renew_policy_version(self) -> str:
        """Quotas have changed: whoever enters with older ones is told so. By the clock, since Redis may lose counts."""
        seconds, microseconds = cast("tuple[int, int]", await cast("Any", self._redis.time()))
        version = f"{seconds}.{microseconds:06}"
        await self._redis.set(f"{self._prefix}policy_version", version)
        return version

    async def pin(self, place: str, request: str, salt: str, slots: int) -> tuple[int, bool]:
        """A slot inside an engine, and whether what it holds is of this salt; -1: none, -2: none yet."""
        slot, is_own = await self._run("pin", place, request, salt, slots)
        return int(slot), bool(is_own)

    async def own(self, place: str, request: str, salt: str, slot: int) -> None:
        """What the slot holds is of this salt, if the request still has it."""
        await self._run("own", place, request, salt, slot)

    async def cache_key(self, fresh: str) -> str:
        """The box's key for the salts of prompt caches: what there is, else `fresh` from now on."""
        pipe: Any = self._redis.pipeline(transaction=False)
        async with pipe:
            pipe.setnx(f"{self._prefix}cache_key", fresh)
            pipe.get(f"{self._prefix}cache_key")
            _, key = await pipe.execute()
        return str(key)

    async def load(self, engine: str) -> tuple[int, int]:
        """How many requests of `engine` run and wait."""
        pipe: Any = self._redis.pipeline(transaction=False)
        async with pipe:
            pipe.zcard(f"{self._prefix}running:{engine}")
            pipe.zcard(f"{self._prefix}queue:{engine}")
            running, waiting = await pipe.execute()
        return int(running), int(waiting)

    async def ping(self) -> None:
        """Raise when Redis is away."""
        await cast("Any", self._redis.ping())

    @property
    def _settled(self) -> str:
        return f"{self._prefix}settled"

    async def open_events(self) -> None:
        """Make the reading group of the settled stream, unless it is there."""
        try:
            await self._redis.xgroup_create(self._settled, USAGE_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def events(self, reader: str, *, count_max: int, wait_ms: int) -> list[Event]:
        """New events for `reader`, which keeps them until it acknowledges them."""
        return await self._read(reader, ">", count_max=count_max, wait_ms=wait_ms)

    async def unwritten_events(self, reader: str, *, count_max: int) -> list[Event]:
        """Events that `reader` took earlier and did not acknowledge."""
        return await self._read(reader, "0", count_max=count_max, wait_ms=None)

    async def _read(self, reader: str, after: str, *, count_max: int, wait_ms: int | None) -> list[Event]:
        reply: Any = await self._redis.xreadgroup(
            USAGE_GROUP, reader, {self._settled: after}, count=count_max, block=wait_ms
        )
        return [Event(position, fields) for _, events in reply or [] for position, fields in events]

    async def forgotten_events(self, reader: str, *, count_max: int, idle_ms: int) -> AsyncIterator[list[Event]]:
        """Events that some reader took and did not acknowledge for `idle_ms`; it may have died."""
        start = "0-0"
        while True:
            start, events, *_ = await self._redis.xautoclaim(
                self._settled, USAGE_GROUP, reader, min_idle_time=idle_ms, start_id=start, count=count_max
            )
            if events:
                yield [Event(position, fields) for position, fields in events]
            if start == "0-0":
                return

    async def settled_events(self, last: str, *, count_max: int) -> AsyncIterator[list[Event]]:
        """The events up to the position `last` that no writer has acknowledged; takes nothing."""
        first = "-"
        while events := cast("Any", await self._redis.xrange(self._settled, first, last, count_max)):
            yield [Event(position, fields) for position, fields in events]
            first = f"({events[-1][0]}"

    async def unreadable_events(self, *, count_max: int) -> list[Event]:
        """The first events that were set aside."""
        events: Any = await self._redis.xrange(f"{self._prefix}unreadable", count=count_max)
        return [Event(position, fields) for position, fields in events]

    async def acknowledge(self, events: Sequence[Event], *, unreadable: Mapping[str, str] | None = None) -> None:
        """The events are in Postgres: forget them.

        Args:
            unreadable: positions of those that cannot be, and why; these are set aside.
        """
        positions = [event.position for event in events]
        pipe: Any = self._redis.pipeline(transaction=True)
        async with pipe:
            for event in events:
                if unreadable and event.position in unreadable:
                    aside = {**event.fields, "why": unreadable[event.position], "position": event.position}
                    pipe.xadd(f"{self._prefix}unreadable", aside, maxlen=UNREADABLE_MAX, approximate=True)
            pipe.xack(self._settled, USAGE_GROUP, *positions)
            pipe.xdel(self._settled, *positions)
            await pipe.execute()

    async def close_reader(self, reader: str) -> None:
        """Forget a reader that leaves nothing unacknowledged."""
        pending = await self._redis.xpending_range(self._settled, USAGE_GROUP, "-", "+", 1, consumername=reader)
        if not pending:
            await self._redis.xgroup_delconsumer(self._settled, USAGE_GROUP, reader)
