"""The ledger: the shared record of queues, leases and what they cost, in Redis.

One method per script of `lua/`; nothing is decided here. Methods raise redis.RedisError when Redis is away, and every
one of them may be called again after that: the scripts do nothing twice.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

SCRIPTS = Path(__file__).parent / "lua"
USAGE_GROUP = "usage"
REAPED_MAX = 100

State = Literal["running", "queued", "full"]
Fact = Literal["running", "lost", "missing"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger knows of a request: enough to write its usage row when its replica cannot."""

    id: str
    engine: str
    model: str
    surface: str
    user: str
    key: str
    input_tokens: int
    started_at_ms: int

    def fields(self) -> list[str | int]:
        """Names and values, flat, as Redis takes them."""
        return [
            *("model", self.model, "surface", self.surface, "user", self.user, "key", self.key),
            *("input_tokens", self.input_tokens, "started_at_ms", self.started_at_ms),
        ]


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a request stands after it entered; `ahead` counts the queued requests before it."""

    state: State
    ahead: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What one request has used so far; `first_token_ms` is -1 until there is one."""

    id: str
    output_tokens: int
    first_token_ms: int


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
        prelude = (SCRIPTS / "prelude.lua").read_text()
        self._scripts = {
            path.stem: redis.register_script(f"{prelude}\n{path.read_text()}")
            for path in SCRIPTS.glob("*.lua")
            if path.stem != "prelude"
        }

    async def _run(self, script: str, *arguments: str | int) -> Any:  # noqa: ANN401 (the reply's shape is the script's)
        now = "" if self.now_ms is None else self.now_ms
        return await self._scripts[script](keys=[self._prefix], args=[now, *arguments])

    async def enqueue(self, entry: Entry, *, replica: str, queue_length_max: int, running: bool = False) -> Admission:
        """Enter a request; `running` re-enters a stream whose record was lost with Redis' state."""
        state, ahead = await self._run(
            *("enqueue", entry.id, entry.engine, replica, queue_length_max),
            *("running" if running else "queued", *entry.fields()),
        )
        return Admission(state, int(ahead))

    async def dispatch(self, engine: str, window: int) -> int:
        """Set how many requests `engine` takes at a time; returns how many still wait."""
        return int(await self._run("dispatch", engine, window))

    async def charge(self, replica: str, progress: Iterable[Progress]) -> list[tuple[str, Fact]]:
        """Report on all requests of a replica, and renew its leases."""
        flat = [value for item in progress for value in (item.id, item.output_tokens, item.first_token_ms)]
        facts = cast("Sequence[str]", await self._run("charge", replica, *flat))
        return [(facts[at], cast("Fact", facts[at + 1])) for at in range(0, len(facts), 2)]

    async def finish(self, request: str, engine: str, event: Mapping[str, str | int]) -> None:
        """End a lease and write the usage event."""
        flat = [part for pair in event.items() for part in pair]
        await self._run("finish", request, engine, *flat)

    async def cancel(self, request: str, engine: str) -> None:
        """Take back a request that has not begun."""
        await self._run("cancel", request, engine)

    async def reap(self) -> list[str]:
        """Take back leases that nobody renewed; returns their requests."""
        return cast("list[str]", await self._run("reap", REAPED_MAX))

    async def granted(self, replica: str, wait_ms: int) -> str | None:
        """Wait for the next request of `replica` that may run, at most `wait_ms`."""
        reply = await self._redis.blpop([f"{self._prefix}go:{replica}"], timeout=wait_ms / 1000)
        return None if reply is None else cast("str", reply[1])

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

    async def acknowledge(self, events: Sequence[Event]) -> None:
        """The events are in Postgres: forget them."""
        positions = [event.position for event in events]
        pipe: Any = self._redis.pipeline(transaction=True)
        async with pipe:
            pipe.xack(self._settled, USAGE_GROUP, *positions)
            pipe.xdel(self._settled, *positions)
            await pipe.execute()

    async def close_reader(self, reader: str) -> None:
        """Forget a reader that leaves nothing unacknowledged."""
        pending = await self._redis.xpending_range(self._settled, USAGE_GROUP, "-", "+", 1, consumername=reader)
        if not pending:
            await self._redis.xgroup_delconsumer(self._settled, USAGE_GROUP, reader)
