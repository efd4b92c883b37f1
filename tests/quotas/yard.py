"""A ledger in virtual time with people who ask of it, for scenes and for long runs."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from quotas.cost import Cost
from quotas.ledger import Admission, Entry, Fact, Ledger, News, Progress
from quotas.policy import Limits
from quotas.window import Window

BEGINNING_MS = 1_000_000_000
COST = Cost()
ENGINE = "a"
REPLICA = "one"
# Of a replica that reports: it stays alive, and so do its leases.
REPORT_EVERY_MS = 2_000


class Yard:
    """One box; requests are named in order of arrival."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.prefix = f"wf:{{{uuid4().hex}}}:"
        self.ledger = Ledger(redis, self.prefix[4:-2], now_ms=BEGINNING_MS)
        self.entries: dict[str, Entry] = {}
        self.output_tokens: defaultdict[str, int] = defaultdict(int)

    @property
    def now_ms(self) -> int:
        """Virtual time."""
        assert self.ledger.now_ms is not None
        return self.ledger.now_ms

    async def window(self, engine: str = ENGINE, **gates: Any) -> int:
        """Set the window of an engine, without anything for sparse flows unless it is said; tells how many wait."""
        return await self.ledger.dispatch(engine, Window(**{"sparse_cost_max": 0, "answer_tokens": 0, **gates}))

    async def enter(
        self,
        user: str,
        *,
        engine: str = ENGINE,
        prompt: int = 10,
        answer: int = 10,
        answer_min: int | None = None,
        limits: Limits | None = None,
        **more: Any,
    ) -> tuple[str, Admission]:
        """A request; its name, and what became of it."""
        entry = Entry(
            id=f"r{len(self.entries):04}",
            engine=engine,
            model="m",
            surface="completions",
            user=user,
            key=more.pop("key", ""),
            input_tokens=prompt,
            started_at_ms=1,
            prompt_cost=COST.of(prompt, 0),
            output_tokens_max=answer,
            output_tokens_min=answer if answer_min is None else answer_min,
            answers=more.pop("answers", 1),
            is_revocable=more.pop("is_revocable", False),
        )
        self.entries[entry.id] = entry
        more = {"replica": REPLICA, "queue_length_max": 1_000, **more}
        return entry.id, await self.ledger.enqueue(entry, limits or Limits(queue_length_max=None), **more)

    async def ask(self, user: str, **more: Any) -> str:
        """A request that enters; its name."""
        name, admission = await self.enter(user, **more)
        assert admission.state in {"running", "queued"}, admission
        return name

    async def running(self, engine: str = ENGINE) -> list[str]:
        """What runs, in order of arrival."""
        found: Any = await self.redis.zrange(f"{self.prefix}running:{engine}", 0, -1)
        return sorted(found)

    async def queued(self, engine: str = ENGINE) -> list[str]:
        """What waits, in order of arrival."""
        found: Any = await self.redis.zrange(f"{self.prefix}queue:{engine}", 0, -1)
        return list(found)

    async def users(self, engine: str = ENGINE) -> list[str]:
        """Whose requests run, by name."""
        return sorted(self.entries[name].user for name in await self.running(engine))

    async def stream(self, name: str, tokens: int, *, first_token_ms: int = 5) -> Fact:
        """So many more tokens of an answer; what the ledger says to it."""
        self.output_tokens[name] += tokens
        total = self.output_tokens[name]
        cost = COST.of(self.entries[name].input_tokens, total)
        ((_, fact),) = await self.ledger.charge(REPLICA, [Progress(name, total, first_token_ms if total else -1, cost)])
        return fact

    async def end(self, name: str, *, outcome: str = "completed", **event: int) -> None:
        """The request ends with what it has streamed."""
        entry, tokens = self.entries[name], self.output_tokens[name]
        times = {"queue_ms": 0, "first_token_ms": 5, "total_ms": 100} | event
        counts = {"input_tokens": entry.input_tokens, "output_tokens": tokens}
        cost = COST.of(entry.input_tokens, tokens)
        await self.ledger.finish(name, entry.engine, {"id": name, "outcome": outcome, **counts, **times}, cost=cost)

    async def turns(self, tokens: int = 10) -> list[str]:
        """Let everything run to its end, the longest first; whose turn it was, in this order."""
        order = []
        while names := [name for engine in await self._engines() for name in await self.running(engine)]:
            name = names[0]
            order.append(self.entries[name].user)
            await self.stream(name, tokens)
            await self.end(name)
        return order

    async def _engines(self) -> list[str]:
        found: Any = await self.redis.smembers(f"{self.prefix}engines")
        return sorted(found)

    async def news(self, replica: str = REPLICA) -> list[tuple[News, str]]:
        """What a replica was told and has not taken."""
        found = []
        while (news := await self.ledger.news(replica, 0)) is not None:
            found.append(news)
        return found

    async def pass_ms(self, duration_ms: int, *, reaps: bool = True) -> None:
        """Let time pass while the replica reports and reaps, as it does."""
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.ledger.now_ms = min(self.now_ms + REPORT_EVERY_MS, end_ms)
            await self._report()
            if reaps:
                await self.ledger.reap()

    async def _report(self) -> None:
        names = [name for engine in await self._engines() for name in await self.running(engine)]
        totals = [(name, self.output_tokens[name]) for name in names]
        progress = [
            Progress(name, total, 5 if total else -1, COST.of(self.entries[name].input_tokens, total))
            for name, total in totals
        ]
        await self.ledger.charge(REPLICA, progress)

    async def served(self, user: str, engine: str = ENGINE) -> int:
        """A flow's counter."""
        return int(await self.redis.hget(f"{self.prefix}flow:{user}", f"served:{engine}") or 0)

    async def held(self, kind: str, engine: str = ENGINE) -> int:
        """What runs holds of the prefill or of the memory."""
        return int(await self.redis.hget(f"{self.prefix}live:{engine}", kind) or 0)


Sizes = Sequence[tuple[int, int]]


class Race:
    """Flows that always wait for one engine, each with its own sizes of requests; counts what everybody got.

    Args:
        sizes: prompt and answer of a flow's requests, in turn.
        chance: which running answer goes on next, and how far.
    """

    # So deep a queue does not run dry before it is filled up again.
    DEPTH = 2

    def __init__(self, yard: Yard, sizes: Mapping[str, Sizes], chance: random.Random) -> None:
        self.yard = yard
        self.limits: dict[str, Limits] = {}
        self.keys: dict[str, Iterator[str]] = {}
        self.service: defaultdict[str, int] = defaultdict(int)
        self.cost_max = max(COST.of(*size) for several in sizes.values() for size in several)
        self.resting: set[str] = set()
        self._sizes = {flow: cycle(several) for flow, several in sizes.items()}
        self._known: set[str] = set()
        self._length: dict[str, int] = {}
        self._chance = chance

    async def begin(self, **gates: Any) -> None:
        """Everybody waits before anybody runs, so that they start level."""
        await self.yard.window(**{**gates, "slots": 0})
        await self._fill()
        await self.yard.window(**gates)

    async def _fill(self) -> None:
        waiting = [self.yard.entries[name].user for name in await self.yard.queued()]
        for flow in self._sizes:
            for _ in range(0 if flow in self.resting else self.DEPTH - waiting.count(flow)):
                await self.ask(flow)

    async def ask(self, flow: str) -> str:
        """One more request of a flow."""
        prompt, answer = next(self._sizes[flow])
        limits = self.limits.get(flow, Limits(queue_length_max=None))
        name = await self.yard.ask(
            flow, prompt=prompt, answer=answer, limits=limits, key=next(self.keys.get(flow, iter("k")), "")
        )
        self._length[name] = answer
        return name

    async def step(self) -> None:
        """Some answer grows, and may come to its end; queues are filled up."""
        await self._fill()
        running = await self._note()
        name = self._chance.choice(running)
        left = self._length[name] - self.yard.output_tokens[name]
        tokens = self._chance.randint(0, left)
        self.service[self.yard.entries[name].user] += COST.of(0, tokens)
        if tokens == left:
            self.yard.output_tokens[name] += tokens
            await self.yard.end(name)
        else:
            await self.yard.stream(name, tokens)
        await self._note()

    async def _note(self) -> list[str]:
        """Prompts are charged when they begin."""
        running = await self.yard.running()
        for name in running:
            if name not in self._known:
                self._known.add(name)
                self.service[self.yard.entries[name].user] += self.yard.entries[name].prompt_cost
        return running
