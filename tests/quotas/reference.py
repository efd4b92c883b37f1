"""What the Lua scripts should do, written to be obviously right instead of fast: lists, dictionaries, one machine.

The rules are those of quotas/lua/shared; so are the names.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from quotas.ledger import Entry
from quotas.policy import Limits
from quotas.window import Window

LEASE_MS = 5_000
ALIVE_MS = 5_000
SPARSE_REMEMBERED_MS = 600_000
ENGINE_REMEMBERED_MS = 60_000
UNREPORTED_TOKENS = 8
RESERVE_SAVED_MS = 60_000
PAUSE_APART_MS = 1_000
UNIT = 1_000
SPARSE_PART = 4
WINDOW_FORMATS = {"minute": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass
class Request:
    """One request that waits or runs."""

    entry: Entry
    replica: str
    granted: int
    reserved: int
    windows: dict[str, str]
    deadline_ms: int | None = None
    order: int = 0
    cost: int = 0
    output_tokens: int = 0
    prefill: int = 0
    kv: int = 0
    recalled: str = ""
    pauses: int = 0
    is_pausable: bool = False
    requeued_ms: int = 0
    paused_ms: int = 0

    @property
    def is_running(self) -> bool:
        """Whether it holds a lease."""
        return self.deadline_ms is not None

    @property
    def to_read(self) -> int:
        """Its prompt, and what it had written before a pause."""
        return self.entry.input_tokens + (self.output_tokens if self.pauses else 0)


@dataclass
class Flow:
    """One person's counters."""

    served: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    fresh: set[str] = field(default_factory=set)
    ranked: set[str] = field(default_factory=set)
    spent: int = 0
    spent_turn: int | None = None
    weight: int = 100
    in_flight_max: int | None = None


@dataclass
class Reserve:
    """What keeping slots of an engine may still cost, in hundredths of a slot times milliseconds."""

    credit: int | None = None
    withheld: int = 0
    at_ms: int = 0


@dataclass
class Box:
    """The state of one box, and every script as a method."""

    now_ms: int = 0
    windows: dict[str, Window] = field(default_factory=dict)
    told_ms: dict[str, int] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)  # in order of arrival
    flows: defaultdict[str, Flow] = field(default_factory=lambda: defaultdict(Flow))
    turn: int = 0
    lifted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sparse_seen: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    reserves: defaultdict[str, Reserve] = field(default_factory=lambda: defaultdict(Reserve))
    used: defaultdict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    alive: dict[str, int] = field(default_factory=dict)
    go: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    settled: list[str] = field(default_factory=list)
    reaped: dict[str, Request] = field(default_factory=dict)
    reaped_ms: int = 0
    dispatches: int = 0

    # Who waits and who runs.

    def queued(self, engine: str, flow: str | None = None) -> list[str]:
        """Requests that wait for an engine, in order of arrival."""
        return [
            name
            for name, request in self.requests.items()
            if not request.is_running and request.entry.engine == engine and flow in {None, request.entry.user}
        ]

    def own_queue(self, engine: str, flow: str) -> list[str]:
        """Requests of a flow that wait for an engine; those that may be stopped come last."""
        return sorted(self.queued(engine, flow), key=lambda name: self.requests[name].entry.is_revocable)

    def running(self, engine: str) -> list[str]:
        """Requests that run on an engine."""
        return [
            name for name, request in self.requests.items() if request.is_running and request.entry.engine == engine
        ]

    def holds(self, flow: str) -> list[str]:
        """Requests of a flow that run anywhere."""
        return [name for name, request in self.requests.items() if request.is_running and request.entry.user == flow]

    def ranking(self, engine: str) -> list[str]:
        """The flows that wait and may run, the next first; names decide where they stand equal."""
        ranked = [name for name, flow in self.flows.items() if engine in flow.ranked]
        return sorted(ranked, key=lambda name: (self._score(name, engine), name))

    def _score(self, name: str, engine: str) -> int:
        """Sparse flows stand a quantum ahead of their counter, unless what they wait for has time."""
        flow, quantum = self.flows[name], self.windows[engine].sparse_cost_max * UNIT
        queue = self.own_queue(engine, name)
        has_time = bool(queue) and self.requests[queue[0]].entry.is_revocable
        return flow.served[engine] - (quantum if flow.spent < quantum and not has_time else 0)

    def is_alive(self, replica: str) -> bool:
        """Whether it was heard of lately."""
        return self.alive.get(replica, 0) > self.now_ms

    # Counters.

    def _lift(self, name: str, engine: str) -> None:
        flow, others = self.flows[name], [self.flows[other] for other in self.ranking(engine)]
        poorest = min(others, key=lambda other: other.served[engine], default=None)
        if poorest is None:
            level = self.turn - UNIT
        elif engine in poorest.fresh:
            level = max(poorest.served[engine], self.lifted[engine]) + 1
        else:
            level = poorest.served[engine] - UNIT
        if flow.served[engine] <= level:
            flow.served[engine] = self.lifted[engine] = level
            flow.fresh.add(engine)

    def _recover(self, flow: Flow) -> None:
        seen = self.turn if flow.spent_turn is None else flow.spent_turn
        gained = (self.turn - seen) // SPARSE_PART
        if gained or flow.spent_turn is None:
            flow.spent, flow.spent_turn = max(flow.spent - gained, 0), self.turn

    def _rank(self, name: str) -> None:
        flow = self.flows[name]
        self._recover(flow)
        may_run = flow.in_flight_max is None or len(self.holds(name)) < flow.in_flight_max
        for engine in sorted(self.windows):
            if not may_run or not self.queued(engine, name):
                flow.ranked.discard(engine)
            elif engine not in flow.ranked:
                self._lift(name, engine)
                flow.ranked.add(engine)

    def _charge(self, name: str, cost: int) -> None:
        if cost:
            flow = self.flows[name]
            units = cost * UNIT * 100 // flow.weight
            self._recover(flow)
            flow.spent += units
            flow.fresh.clear()
            for engine in self.windows:
                flow.served[engine] += units

    def _rest(self, name: str) -> None:
        if all(request.entry.user != name for request in self.requests.values()):
            self.flows[name].spent = 0

    # Budgets.

    def names_of_windows(self) -> dict[str, str]:
        """The minute, day and month of this moment."""
        now = datetime.fromtimestamp(self.now_ms / 1000, UTC)
        return {window: now.strftime(pattern) for window, pattern in WINDOW_FORMATS.items()}

    def _affordable(self, entry: Entry, limits: Limits) -> int | None:
        windows, user = self.names_of_windows(), entry.user
        requests = self.used[user, "requests", windows["minute"]]
        if limits.requests_per_minute is not None and requests >= limits.requests_per_minute:
            return None
        granted = entry.output_tokens_max
        for window, name in windows.items():
            limit: int | None = getattr(limits, f"tokens_per_{window}")
            if limit is not None:
                granted = min(granted, limit - self.used[user, window, name] - entry.input_tokens)
        return granted if granted >= entry.output_tokens_min else None

    def _give_back(self, request: Request, tokens: int, *, never_ran: bool = False) -> None:
        user = request.entry.user
        for window, name in request.windows.items():
            self.used[user, window, name] += tokens - request.reserved
            self.used[user, "requests", name] -= never_ran

    # Turns.

    def _is_sparse(self, entry: Entry, window: Window) -> bool:
        return not entry.is_revocable and self.flows[entry.user].spent < window.sparse_cost_max * UNIT

    def closed_gate(self, name: str) -> str | None:
        """Why a request may not run now."""
        entry = self.requests[name].entry
        window, engine = self.windows[entry.engine], entry.engine
        running = [self.requests[other] for other in self.running(engine)]
        is_sparse = self._is_sparse(entry, window)
        kept = self._kept(entry, window, is_sparse=is_sparse)
        left = window.slots - kept - sum(request.entry.answers for request in running)
        if left < 1 or (running and left < entry.answers):
            return "slots"
        if not running:
            return None
        prefill = sum(request.prefill for request in running)
        prefill_max = window.prefill_tokens_max if prefill and not is_sparse else 0
        if prefill_max and prefill + self.requests[name].to_read > prefill_max:
            return "prefill"
        kv = sum(request.kv for request in running) + self._kv_need(self.requests[name], window)
        kv_max = window.kv_tokens if is_sparse else window.kv_tokens * 95 // 100
        if kv_max and kv + UNREPORTED_TOKENS * (len(running) + 1) > kv_max:
            return "kv"
        return None

    @staticmethod
    def _kv_need(request: Request, window: Window) -> int:
        half = window.answer_tokens // 2 * request.entry.answers
        if window.books_whole_answers:
            return request.entry.input_tokens + request.granted
        return max(request.to_read, min(request.to_read + half, request.entry.input_tokens + request.granted))

    def _start(self, name: str) -> None:
        request = self.requests[name]
        entry, window = request.entry, self.windows[request.entry.engine]
        request.deadline_ms = min(self.now_ms + LEASE_MS, self.alive[request.replica])
        request.prefill, request.kv = request.to_read, self._kv_need(request, window)
        if request.pauses:
            request.paused_ms += self.now_ms - request.requeued_ms
        else:
            request.cost = entry.prompt_cost
        self.dispatches += 1
        request.order = self.dispatches
        self.turn = max(self.turn, self.flows[entry.user].served[entry.engine])
        if not request.pauses:
            self._charge(entry.user, entry.prompt_cost)
        self._rank(entry.user)

    def _drop(self, name: str) -> None:
        if self.requests[name].pauses:
            self._abandon(name)
            return
        request = self.requests.pop(name)
        self._give_back(request, 0, never_ran=True)
        self._rank(request.entry.user)
        self._rest(request.entry.user)

    def _recall(self, engine: str, guest: str) -> None:
        running = [(name, self.requests[name]) for name in self.running(engine)]
        if any(request.recalled for _, request in running):
            return
        revocable = [(name, request) for name, request in running if request.entry.is_revocable]
        pausable = [(name, request) for name, request in running if self._gives_way(request, guest)]
        if revocable:
            name, request = max(
                revocable, key=lambda pair: (self.flows[pair[1].entry.user].served[engine], pair[1].order)
            )
            request.recalled = "revoked"
            self.go[request.replica].append(f"revoke:{name}")
        elif pausable:
            arrivals = list(self.requests)
            name, request = max(
                pausable,
                key=lambda pair: (
                    self.flows[pair[1].entry.user].served[engine],
                    -pair[1].entry.input_tokens - pair[1].output_tokens,
                    arrivals.index(pair[0]),
                ),
            )
            request.recalled = "paused"
            self.go[request.replica].append(f"pause:{name}")

    def _gives_way(self, request: Request, guest: str) -> bool:
        flow, window = request.entry.user, self.windows[request.entry.engine]
        is_sparse = self.flows[flow].spent < window.sparse_cost_max * UNIT
        is_rested = not request.pauses or self.now_ms - request.requeued_ms >= PAUSE_APART_MS
        held = len(self.holds(guest))
        keeps = held + 1 if is_sparse else min(held, 1)
        return request.is_pausable and flow != guest and is_rested and len(self.holds(flow)) > keeps

    def _pausable(self, engine: str) -> int:
        return sum(
            self.requests[name].is_pausable and not self.requests[name].recalled for name in self.running(engine)
        )

    def _kept(self, entry: Entry, window: Window, *, is_sparse: bool) -> int:
        engine = entry.engine
        reserved = max(min(window.reserved_slots, window.slots - 1), 0)
        if is_sparse:
            reserved = 0 if len(self.holds(entry.user)) < reserved else min(reserved, 1)
        if window.is_reserve_standing or not reserved:
            return reserved
        if (self.reserves[engine].credit or 0) <= 0:
            return 0
        guests = sum(
            at > self.now_ms - SPARSE_REMEMBERED_MS and self.flows[flow].spent < window.sparse_cost_max * UNIT
            for flow, at in self.sparse_seen[engine].items()
            if flow != entry.user
        )
        return max(min(reserved - self._pausable(engine), guests), 0)

    def _settle_reserve(self, engine: str) -> None:
        window, reserve = self.windows[engine], self.reserves[engine]
        if window.is_reserve_standing:
            return
        growth = window.slots * window.reserve_percent_max
        most = growth * RESERVE_SAVED_MS
        if reserve.credit is None:
            reserve.credit, reserve.at_ms = most, self.now_ms
        credit = reserve.credit + (self.now_ms - reserve.at_ms) * (growth - 100 * reserve.withheld)
        self.reserves[engine] = Reserve(min(credit, most), 0, self.now_ms)

    def _withhold(self, name: str, gate: str) -> None:
        entry = self.requests[name].entry
        window = self.windows[entry.engine]
        free = window.slots - sum(self.requests[other].entry.answers for other in self.running(entry.engine))
        if gate == "slots" and not window.is_reserve_standing and free >= entry.answers:
            self.reserves[entry.engine].withheld = free

    def _dispatch(self, engine: str, caller: str | None = None) -> None:
        self._settle_reserve(engine)
        while ranking := self.ranking(engine):
            name = self.own_queue(engine, ranking[0])[0]
            request = self.requests[name]
            if not self.is_alive(request.replica):
                self._drop(name)
                continue
            gate = self.closed_gate(name)
            if gate is not None:
                if self._is_sparse(request.entry, self.windows[engine]):
                    self._recall(engine, request.entry.user)
                self._withhold(name, gate)
                return
            self._start(name)
            if name != caller:
                self.go[request.replica].append(f"run:{name}")

    def _dispatch_after(self, engine: str, flow: str, caller: str | None = None) -> None:
        self._rank(flow)
        self._rest(flow)
        self._dispatch(engine, caller)
        for other in sorted(self.windows):
            if other != engine and other in self.flows[flow].ranked:
                self._dispatch(other, caller)

    # The scripts.

    def window(self, engine: str, window: Window) -> None:
        """An engine takes so much at a time."""
        self.windows[engine], self.told_ms[engine] = window, self.now_ms
        self._dispatch(engine)

    def enqueue(self, entry: Entry, limits: Limits, replica: str, length_max: int) -> str:
        """A request enters."""
        self.alive[replica] = self.now_ms + ALIVE_MS
        known = self.requests.get(entry.id)
        if known is None:
            waiting = sum(len(self.queued(engine, entry.user)) for engine in self.windows)
            if waiting and len(self.queued(entry.engine)) >= length_max:
                return "full"
            if limits.queue_length_max is not None and waiting >= limits.queue_length_max:
                return "crowded"
            granted = self._affordable(entry, limits)
            if granted is None:
                return "limited"
            reserved, windows = entry.input_tokens + granted, self.names_of_windows()
            for window, name in windows.items():
                self.used[entry.user, window, name] += reserved
                self.used[entry.user, "requests", name] += 1
            flow = self.flows[entry.user]
            flow.weight, flow.in_flight_max = limits.weight, limits.in_flight_max
            self._recover(flow)
            if self._is_sparse(entry, self.windows[entry.engine]):
                self.sparse_seen[entry.engine][entry.user] = self.now_ms
            known = self.requests[entry.id] = Request(entry, replica, granted, reserved, windows)
            self._rank(entry.user)
            self._dispatch(entry.engine, entry.id)
        return "running" if known.is_running else "queued"

    def finish(self, name: str, tokens: int, cost: int) -> None:
        """A lease ends; `tokens` of prompt and answer were used."""
        request = self.requests.pop(name)
        flow = request.entry.user
        self.settled.append(name)
        self._amend(name)
        self._charge(flow, cost - request.cost)
        self._give_back(request, tokens)
        self._dispatch_after(request.entry.engine, flow)

    def requeue(self, name: str, engine: str, pause: int, output_tokens: int, cost: int) -> str:
        """A request gives up its slot, to go on later."""
        request = self.requests.get(name)
        if request is None:
            return "lost" if name in self.reaped else "missing"
        if request.pauses < pause:
            self.alive[request.replica] = self.now_ms + ALIVE_MS
            before, flow = request.entry.engine, request.entry.user
            spent = cost - request.cost
            request.entry = replace(request.entry, engine=engine)
            request.deadline_ms, request.recalled, request.is_pausable = None, "", False
            request.pauses, request.requeued_ms = pause, self.now_ms
            request.output_tokens, request.cost, request.prefill, request.kv = output_tokens, cost, 0, 0
            self._charge(flow, spent)
            self._dispatch_after(before, flow, name)
        return "running" if request.is_running else "queued"

    def cancel(self, name: str) -> None:
        """A client leaves before its turn, or in the moment of its turn."""
        request = self.requests.get(name)
        if request is None:
            return
        if not request.is_running:
            self._drop(name)
            self._dispatch(request.entry.engine)
            return
        if request.pauses:
            self._abandon(name)
            self._dispatch_after(request.entry.engine, request.entry.user)
            return
        self.requests.pop(name)
        self._charge(request.entry.user, -request.cost)
        self._give_back(request, 0, never_ran=True)
        self._dispatch_after(request.entry.engine, request.entry.user)

    def charge(self, replica: str, progress: list[tuple[str, int, int, int, bool]]) -> list[tuple[str, str]]:
        """A replica reports (request, output tokens, first token, cost, whether it could be paused)."""
        self.alive[replica] = self.now_ms + ALIVE_MS
        facts: list[tuple[str, str]] = []
        grown: defaultdict[str, int] = defaultdict(int)
        moved: set[str] = set()
        for name, output_tokens, first_token_ms, cost, is_pausable in progress:
            request = self.requests.get(name)
            if request is None:
                facts.append((name, "lost" if name in self.reaped else "missing"))
            elif request.is_running:
                request.deadline_ms = self.now_ms + LEASE_MS
                grown[request.entry.user] += cost - request.cost
                request.kv = max(request.kv, request.entry.input_tokens + output_tokens)
                request.output_tokens, request.cost = output_tokens, cost
                if is_pausable:
                    if not request.is_pausable and not request.recalled:
                        request.is_pausable = True
                        moved.add(request.entry.engine)
                elif request.recalled == "paused":
                    request.recalled, request.is_pausable = "", False
                    moved.add(request.entry.engine)
                else:
                    request.is_pausable = False
                if first_token_ms >= 0 and request.prefill:
                    request.prefill = 0
                    moved.add(request.entry.engine)
                facts.append((name, request.recalled or "running"))
        for flow, cost in grown.items():
            self._charge(flow, cost)
        for engine in sorted(moved):
            self._dispatch(engine)
        return facts

    def reap(self) -> list[str]:
        """Leases run out."""
        last_ms, self.reaped_ms = self.reaped_ms, self.now_ms
        expired = [
            name
            for name, request in self.requests.items()
            if request.deadline_ms is not None and request.deadline_ms <= self.now_ms
        ]
        if self.now_ms - last_ms >= LEASE_MS // 2:
            for name in expired:
                self.requests[name].deadline_ms = self.now_ms + LEASE_MS
            return []
        dead = [replica for replica in self.alive if not self.is_alive(replica)]
        for replica in dead:
            del self.alive[replica]
            self.go[replica].clear()
        for engine in sorted(self.windows):
            orphans = [name for name in self.queued(engine) if not self.is_alive(self.requests[name].replica)]
            for name in orphans if dead else []:
                self._drop(name)
            ending = [name for name in expired if name in self.requests and self.requests[name].entry.engine == engine]
            for name in sorted(ending, key=lambda name: (self.requests[name].deadline_ms, name)):
                self._abandon(name)
        for engine in sorted(self.windows):
            self._dispatch(engine)
            is_used = any(request.entry.engine == engine for request in self.requests.values())
            if not is_used and self.now_ms - self.told_ms[engine] > ENGINE_REMEMBERED_MS:
                self._forget(engine)
        return expired

    def _abandon(self, name: str) -> None:
        request = self.requests.pop(name)
        tokens = request.entry.input_tokens + request.output_tokens
        self.settled.append(name)
        self._amend(name)
        self.reaped[name] = replace(request, reserved=tokens)
        self._give_back(request, tokens)
        self._rank(request.entry.user)
        self._rest(request.entry.user)

    def _amend(self, name: str) -> None:
        """One that had been abandoned, and had entered again, is settled anew."""
        before = self.reaped.pop(name, None)
        if before is not None:
            self._give_back(before, 0, never_ran=True)

    def _forget(self, engine: str) -> None:
        """Nobody speaks of it any more."""
        del self.windows[engine]
        for memory in (self.lifted, self.sparse_seen, self.reserves):
            memory.pop(engine, None)
