"""One day through the ledger: questions are planned, councils sit, members come and go.

A council sits by the rules of server/council (table.py, floor.py, strategies/duo.py and council_k.py): the leader is
asked alone, the others at its first token; two first, the others on disagreement, then the chair; who takes longer than
1.5 times the leader, and 20 s at least, is late. Texts are not simulated: whether answers agree is a throw of dice,
which are the same for the same question whatever else goes on. Every call is a request of the asker's flow, revocable
but for the leader's.

Ways to choose a size, to compare:

    allocated   the allocator under the load of now, below steadiness, as server/council/planning.py asks it
    maximum     the allocator is told that the box is idle, always, as in shadow mode
    solo        one model answers
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from random import Random

from msgspec.structs import replace
from redis.asyncio import Redis

from benchmarks.councils.box import HARDWARE, NAME, Crowded, Expectations, VirtualClock, scene_of
from benchmarks.councils.council import Call, Council, Look, Played, Way
from benchmarks.councils.day import HABITS, LIGHT, WEIGHTS, Day, Habit, spread
from benchmarks.sharing.job import Job, Outcome, Record
from benchmarks.sharing.ledger_scheduler import LedgerScheduler
from benchmarks.sharing.ours import PAUSES_MAX, check_settled
from benchmarks.sharing.replay import REPORT_MS, Replay, Result, Workload
from benchmarks.sharing.workloads import chance
from quotas.window import window_of
from server.allocator.allocate import allocate, room
from server.allocator.contention import Contention
from server.allocator.steadiness import Steady
from server.allocator.terms import Allocation, Demand, Load, Placement, Policy
from server.council.briefing import idle
from server.council.floor import FIRST_TOKEN_MS_MAX, MEMBER_FACTOR, MEMBER_MS_LEAST
from server.council.planning import ANSWER_TOKENS, UNSEEN_MS, WATCH_MS
from server.council.strategies.council_k import FIRST, MORE_MAX
from server.council.table import CHAIRS_MAX

KIND = "open"
PROMPT_TOKENS = 512
# How often those who were asked so far agree.
AGREE = 0.5
# What a server sets where nobody says (server/settings.py).
RESERVE_PERCENT_MAX = 10
CONTENTION = Contention()


class CouncilReplay(Replay):
    """A replay whose clients ask councils."""

    def __init__(self, day: Day, scheduler: LedgerScheduler, way: Way, habits: Sequence[Habit]) -> None:
        workload = Workload(list(day.light_jobs()), (), day.ends_ms, WEIGHTS)
        super().__init__(workload, scheduler, HARDWARE, keeps_prefixes=True, seed=day.seed)
        for name, hardware in HARDWARE.items():
            self.engines[name] = Crowded(hardware, self.engines)
        self.day, self.way = day, way
        self.habits = [habit for habit in habits if habit.phase in day.phases]
        self.councils: list[Council] = []
        self.looks: list[Look] = []
        self.taken_back: list[tuple[float, Job]] = []
        self.waited: list[tuple[Record, bool]] = []
        clock = VirtualClock(self)
        self._expects = Expectations(clock)
        self._scene = scene_of(scheduler.ledger, clock, self._expects)
        self._routes = self._scene.routes(lambda _: True)
        self._steady = Steady()
        self._ceiling: int | None = None
        self._last: tuple[Load | None, int] = (None, 1)
        self._sittings: dict[str, tuple[Council, AsyncGenerator[None, None]]] = {}
        self._unseen: dict[str, tuple[float, tuple[Placement, ...]]] = {}
        self._asked: Counter[Habit] = Counter()

    async def run(self) -> Result:
        """The whole day."""
        self._open += 1
        for habit in self.habits:
            begins_ms, _ = self.day.span_ms(habit.phase)
            for _ in range(habit.depth):
                self._ask_later(habit, begins_ms)
        self.at(0.0, self._watch)
        return await super().run()

    # Askers.

    def _ask_later(self, habit: Habit, from_ms: float) -> None:
        number = self._asked[habit] = self._asked[habit] + 1
        council_id = f"{habit.user}-{habit.phase}-{number}"
        dice = chance((self.day.seed, council_id))
        at_ms = from_ms + (dice.expovariate(1 / habit.pause_ms) if habit.pause_ms else 0.0)
        if at_ms < self.day.span_ms(habit.phase)[1]:
            self.at(at_ms, lambda: self._ask(council_id, habit, dice))

    async def _ask(self, council_id: str, habit: Habit, dice: Random) -> None:
        prompt_tokens = spread(PROMPT_TOKENS, dice)
        demand = Demand(kind=KIND, prompt_tokens=prompt_tokens, answer_tokens=ANSWER_TOKENS)
        load = self._with_unseen(await self._scene.look(habit.user, KIND, self._routes))
        allocation, most = self._allocated(load, habit, demand)
        self._unseen[council_id] = self.now_ms, allocation.members
        council = Council(
            id=council_id,
            habit=habit,
            asked_ms=self.now_ms,
            allocation=allocation,
            size_max=most.size,
            others=len(self.flying) + len(self.queued) + len(self.paused),
            ceiling=self._ceiling,
            prompt_tokens=prompt_tokens,
            dice=dice,
        )
        self.councils.append(council)
        self._sittings[council_id] = council, self._sit(council, demand)
        await self._go_on(council_id)

    def _allocated(self, load: Load, habit: Habit, demand: Demand) -> tuple[Allocation, Allocation]:
        """What is chosen, and what would be on an idle box."""
        policy = Policy(size_wanted=1 if self.way == "solo" else habit.size_wanted)
        most = allocate(demand, idle(load), policy, CONTENTION)
        if self.way == "maximum":
            return most, most
        return allocate(demand, load, policy, CONTENTION, self._ceiling), most

    def _with_unseen(self, load: Load) -> Load:
        """The load with councils that were planned just now, which the outlook has not seen (as in planning.py)."""
        self._unseen = {key: each for key, each in self._unseen.items() if self.now_ms - each[0] < UNSEEN_MS}
        coming = Counter(place.engine for _, places in self._unseen.values() for place in places)
        if not coming:
            return load
        busy = load.busy_engines.get(NAME, frozenset()) | coming.keys()
        candidates = tuple(replace(each, running=each.running + coming[each.engine]) for each in load.candidates)
        return replace(load, candidates=candidates, busy_engines={NAME: busy})

    async def _watch(self) -> None:
        """Once a second: how large a council could be. Windows are told anew, also while nobody asks."""
        await self.scheduler.report((), self.now_ms)
        if self.way == "allocated":
            load = await self._scene.look("", KIND, self._routes)
            load = replace(load, expected_requests=0.0)
            if load != self._last[0]:
                self._last = load, room(load, Policy(), CONTENTION)
            self._steady, self._ceiling = self._steady.step(int(self.now_ms), self._last[1])
        waiting = len(self.queued) + len(self.paused)
        self.looks.append(Look(self.now_ms, len(self.flying), waiting, self._ceiling))
        self.at(self.now_ms + WATCH_MS, self._watch)

    # One council.

    async def _go_on(self, council_id: str) -> None:
        """Let a council do what it can do now."""
        if (known := self._sittings.get(council_id)) is None:
            return
        council, sitting = known
        try:
            await anext(sitting)
        except StopAsyncIteration:
            del self._sittings[council_id]
            self._unseen.pop(council_id, None)
            council.ended_ms = self.now_ms
            self._ask_later(council.habit, self.now_ms)

    def _wake(self, council_id: str, at_ms: float) -> None:
        if council_id in self._sittings:
            self.at(at_ms, lambda: self._go_on(council_id))

    async def _sit(self, council: Council, demand: Demand) -> AsyncGenerator[None, None]:
        """The strategies duo and council-k; each `yield` waits for something to happen."""
        for place in council.allocation.members:
            council.calls.append(Call("leader" if place.is_leader else "member", place.model, place.sample))
        leader = council.leader
        others = sorted(council.calls[1:], key=lambda call: call.model == leader.model)
        asked, left = [leader, *others[: FIRST - 1]], others[FIRST - 1 :]
        joins = MORE_MAX if len(council.calls) > FIRST else 1
        while asked:
            async for _ in self._answers(council, asked):
                yield
            if len(council.calls) == 1 or self._agree(council):
                return
            asked, left = left, []
            if not asked and joins:
                joins -= 1
                asked = await self._more(council, demand)
        async for _ in self._chaired(council):
            yield

    async def _answers(self, council: Council, calls: Sequence[Call]) -> AsyncGenerator[None, None]:
        """Ask these, the leader alone at first, and wait until each has answered, was taken back or is late."""
        others = list(calls)
        if council.leader.record is None:
            others.remove(council.leader)
            record = await self._enter(council, council.leader)
            alone_until_ms = self.now_ms + FIRST_TOKEN_MS_MAX
            self._wake(council.id, alone_until_ms)
            while others and not record.has_begun and record.outcome == "open" and self.now_ms < alone_until_ms:
                yield
        for call in others:
            await self._enter(council, call)
        while any(call.is_open for call in calls):
            yield
            for call in others:
                await self._end_if_late(council, call)

    async def _end_if_late(self, council: Council, call: Call) -> None:
        """Stop who takes too long beside the leader."""
        leader, record = council.leader.record, call.record
        if leader is None or record is None or not (council.leader.is_done and call.is_open):
            return
        times, parts = MEMBER_FACTOR
        due_ms = record.arrived_ms + max((leader.ended_ms - leader.arrived_ms) * times / parts, MEMBER_MS_LEAST)
        if due_ms > self.now_ms:
            self._wake(council.id, due_ms)
        else:
            council.late += 1
            await self._leave(record)

    async def _more(self, council: Council, demand: Demand) -> list[Call]:
        """One more than there are, if there is room."""
        load = await self._scene.look(council.habit.user, KIND, self._routes)
        allocation, _ = self._allocated(load, council.habit, demand)
        there = {(call.model, call.sample) for call in council.members}
        if allocation.size > len(there):
            fresh = [each for each in allocation.members if (each.model, each.sample) not in there]
            council.calls += [Call("member", each.model, each.sample) for each in fresh[:1]]
            return council.calls[-1:] if fresh else []
        return []

    async def _chaired(self, council: Council) -> AsyncGenerator[None, None]:
        """The chair joins the answers; the next one if it is taken back; a single answer needs none."""
        if len(council.done) < FIRST:
            return
        chairs = [council.allocation.chair or council.leader.model, council.leader.model, *HARDWARE]
        for model in list(dict.fromkeys(chairs))[:CHAIRS_MAX]:
            chair = Call("chair", model, 0)
            council.calls.append(chair)
            await self._enter(council, chair)
            while chair.is_open:
                yield
            if chair.is_done:
                return

    def _agree(self, council: Council) -> bool:
        return council.dice.random() < AGREE and len(council.done) >= FIRST

    async def _enter(self, council: Council, call: Call) -> Record:
        """One more request of the asker."""
        prompt_tokens = council.prompt_tokens
        if call.role == "chair":
            prompt_tokens += sum(each.record.output_tokens for each in council.done if each.record)
        job = Job(
            id=f"{council.id}/{council.calls.index(call)}",
            client=council.habit.user,
            arrival_ms=self.now_ms,
            prompt_tokens=prompt_tokens,
            output_tokens=spread(
                ANSWER_TOKENS, chance((self.day.seed, council.id, call.role, call.model, call.sample))
            ),
            engine=call.model,
            is_revocable=call.role != "leader",
        )
        self._open += 1
        await self._arrive(job)
        call.record = self.records[job.id]
        return call.record

    # What the replay tells.

    async def _arrive(self, job: Job) -> None:
        self._expects.saw(job)
        lent = [each for each in self.flying.values() if each.job.engine == job.engine and each.job.is_revocable]
        before = len(self.taken_back), sum(record.pauses for record in self.paused.values())
        await super()._arrive(job)
        record = self.records[job.id]
        after = len(self.taken_back), sum(record.pauses for record in self.paused.values())
        if job.client == LIGHT and (record.dispatched_ms < 0 or after != before):
            self.waited.append((record, bool(lent)))

    def _end(self, record: Record, outcome: Outcome) -> None:
        super()._end(record, outcome)
        self._wake(record.job.id.split("/")[0], self.now_ms)

    async def _end_step(self, name: str) -> None:
        alone = [council for council, _ in self._sittings.values() if len(council.calls) > 1 and _is_alone(council)]
        await super()._end_step(name)
        for council in alone:
            if council.leader.record and council.leader.record.has_begun:
                self._wake(council.id, self.now_ms)

    async def _stop(self, record: Record, outcome: Outcome) -> None:
        if outcome == "revoked" and record.outcome == "open":
            self.taken_back.append((self.now_ms, record.job))
        await super()._stop(record, outcome)

    async def _report(self) -> None:
        if self.flying or self.queued or self.paused:
            await super()._report()
        else:
            self.at(self.now_ms + REPORT_MS, self._report)


def _is_alone(council: Council) -> bool:
    """Whether its leader has been asked, and nothing has come from it yet."""
    record = council.leader.record
    return record is not None and not record.has_begun


async def play(redis: Redis, day: Day, way: Way, habits: Sequence[Habit] = HABITS) -> Played:
    """One day; nothing of it stays in Redis."""
    windows = {
        name: window_of(
            hardware.slots,
            prefill_chunk_tokens=hardware.chunk_tokens,
            kv_tokens=hardware.pool_tokens,
            reserve_percent_max=RESERVE_PERCENT_MAX,
        )
        for name, hardware in HARDWARE.items()
    }
    scheduler = LedgerScheduler(redis, windows, WEIGHTS, pauses_max=PAUSES_MAX)
    replay = CouncilReplay(day, scheduler, way, habits)
    try:
        result = await replay.run()
        check_settled(result.records, await scheduler.settled())
        for name in HARDWARE:
            running, queued = await scheduler.ledger.load(name)
            flying = [each for each in replay.flying.values() if each.job.engine == name]
            waiting = [each for each in (*replay.queued.values(), *replay.paused.values()) if each.job.engine == name]
            assert (running, queued) == (len(flying), len(waiting)), "the ledger and the box count the same"
    finally:
        await scheduler.close()
    assert not scheduler.errors, scheduler.errors
    return Played(day, way, result, replay.councils, replay.looks, replay.taken_back, replay.waited)
