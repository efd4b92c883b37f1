"""What the Lua scripts should do, written to be obviously right instead of fast: lists, dictionaries, one machine."""

from collections import defaultdict
from dataclasses import dataclass, field

LEASE_MS = 5_000
ALIVE_MS = 5_000


@dataclass
class Reference:
    """The state of one box, and every script as a method."""

    now_ms: int = 0
    windows: dict[str, int] = field(default_factory=dict)
    queues: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    deadlines: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    replica_of: dict[str, str] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)
    go: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    settled: list[str] = field(default_factory=list)
    reaped: set[str] = field(default_factory=set)
    reaped_ms: int = 0

    def _is_alive(self, replica: str) -> bool:
        return self.alive.get(replica, 0) > self.now_ms

    def _stay_alive(self, replica: str) -> None:
        self.alive[replica] = self.now_ms + ALIVE_MS

    def _dispatch(self, engine: str, caller: str | None = None) -> None:
        while self.queues[engine] and len(self.deadlines[engine]) < self.windows.get(engine, 0):
            request = self.queues[engine].pop(0)
            replica = self.replica_of[request]
            if self._is_alive(replica):
                self.deadlines[engine][request] = self.now_ms + LEASE_MS
                if request != caller:
                    self.go[replica].append(request)
            else:
                del self.replica_of[request]

    def window(self, engine: str, slots: int) -> None:
        """An engine takes `slots` at a time."""
        self.windows[engine] = slots
        self._dispatch(engine)

    def enqueue(self, request: str, engine: str, replica: str, length_max: int) -> str:
        """A request enters."""
        self._stay_alive(replica)
        if request not in self.replica_of:
            if len(self.queues[engine]) >= length_max:
                return "full"
            self.replica_of[request] = replica
            self.queues[engine].append(request)
            self._dispatch(engine, request)
        if any(request in running for running in self.deadlines.values()):
            return "running"
        return "queued"

    def finish(self, request: str, engine: str) -> None:
        """A lease ends."""
        self.deadlines[engine].pop(request, None)
        self.replica_of.pop(request, None)
        self.settled.append(request)
        self._dispatch(engine)

    def cancel(self, request: str, engine: str) -> None:
        """A client leaves before its turn."""
        if request in self.queues[engine]:
            self.queues[engine].remove(request)
        self.deadlines[engine].pop(request, None)
        self.replica_of.pop(request, None)
        self._dispatch(engine)

    def charge(self, replica: str, requests: list[str]) -> list[tuple[str, str]]:
        """A replica reports."""
        self._stay_alive(replica)
        facts = []
        for request in requests:
            for running in self.deadlines.values():
                if request in running:
                    running[request] = self.now_ms + LEASE_MS
                    facts.append((request, "running"))
            if request not in self.replica_of:
                facts.append((request, "lost" if request in self.reaped else "missing"))
        return facts

    def reap(self) -> list[str]:
        """Leases run out."""
        last_ms, self.reaped_ms = self.reaped_ms, self.now_ms
        expired = [
            (engine, request)
            for engine in self.windows
            for request, deadline_ms in self.deadlines[engine].items()
            if deadline_ms <= self.now_ms
        ]
        if self.now_ms - last_ms >= LEASE_MS // 2:
            for engine, request in expired:
                self.deadlines[engine][request] = self.now_ms + LEASE_MS
            return []
        for replica in [replica for replica in self.alive if not self._is_alive(replica)]:
            del self.alive[replica]
            self.go[replica].clear()
        for engine, request in expired:
            del self.deadlines[engine][request]
            del self.replica_of[request]
            self.settled.append(request)
            self.reaped.add(request)
        for engine in self.windows:
            self._dispatch(engine)
        return [request for _, request in expired]
