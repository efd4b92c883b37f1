"""Chaos: whether usage stays exact while everything that can die dies.

    python -m benchmarks.chaos [--minutes 2] [--seed 1] [--clients 12]

Two servers, an engine (benchmarks/engine.py), Postgres and Redis run as processes of this one, on the loopback
interface and on Unix sockets. People ask without a pause, and leave in mid-answer now and then. Meanwhile one part
after the other is killed with SIGKILL, by its process id, and started again a moment later: which one, when and for how
long is drawn from the seed. Redis keeps its file. In the end the load stops, what was pending settles, and then

    seen      every answer of which a client saw a token has a usage row, and what was completed has as many tokens
    ledger    the check of `wirthforge doctor ledger` holds

Exit status 1 if one of the two does not.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

import aiohttp
import msgspec
import psutil
import uvloop
from sqlalchemy import select

from benchmarks.engine import MODEL
from benchmarks.stage import clock, free_port
from quotas.ledger import Ledger
from server import VERSION
from server.accounts.access import Access
from server.accounts.keys import ApiKeys
from server.accounts.passwords import Passwords
from server.accounts.users import Users
from server.db.migrate import migrate
from server.db.models import Usage
from server.db.session import Database
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis
from server.sharing.redis import connect_redis
from server.usage.invariants import LedgerCheck
from server.usage.verdict import Verdict

PEOPLE = ("ann", "bob", "cid")
SERVERS = 2
SLOTS = 8
LEAVES_PERCENT = 25
KILL_EVERY_MS = (2_000, 6_000)
AWAY_MS = (100, 3_000)
REFUSED_PAUSE_MS = 200
SETTLES_MS_MAX = 120_000
START_S_MAX = 120
SETTINGS = {
    "WIRTHFORGE_ENGINE_SLOTS": str(SLOTS),
    "WIRTHFORGE_CALIBRATES": "false",
    "WIRTHFORGE_PRELOADS": "false",
    "WIRTHFORGE_LOG_LEVEL": "error",
    "WIRTHFORGE_ENGINE_SILENCE_MS_MAX": "10000",
}


class Part(Protocol):
    """A part of the embedded stack."""

    async def start(self) -> None:
        """Return when it is of use."""

    async def exited(self) -> int:
        """Wait until it has ended."""

    async def stop(self) -> None:
        """End it."""


class Leashed:
    """Postgres or Redis: the program at the end of its leash is killed, as if by the kernel."""

    def __init__(self, part: Part, program: str) -> None:
        self._part = part
        self._program = program
        self._leash: psutil.Process | None = None

    async def start(self) -> None:
        """Start it, and note which process it is."""
        before = {process.pid for process in psutil.Process().children()}
        await self._part.start()
        leashes = [process for process in psutil.Process().children() if process.pid not in before]
        self._leash = next(leash for leash in leashes if self._programs(leash))

    def _programs(self, leash: psutil.Process) -> list[psutil.Process]:
        found = [each for each in leash.children(recursive=True) if each.name() == self._program]
        return sorted(found, key=lambda each: each.create_time())

    async def kill(self) -> None:
        """Its first process; the others of Postgres end when they see that."""
        assert self._leash is not None
        self._programs(self._leash)[0].kill()
        await self._part.exited()
        await self._part.stop()

    async def stop(self) -> None:
        """End it."""
        await self._part.stop()


class Program:
    """A Python program of ours on a port."""

    def __init__(self, session: aiohttp.ClientSession, path: str, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments: tuple[str, ...] = ()
        self._session = session
        self._path = path
        self._environment = environment
        self._running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        nowhere = asyncio.subprocess.DEVNULL
        self._running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *self.arguments),
            env={**os.environ, **self._environment},
            stdout=nowhere,
            stderr=nowhere,
        )
        async with asyncio.timeout(START_S_MAX):
            while not await self._answers():
                await clock.sleep_ms(50)

    async def _answers(self) -> bool:
        try:
            async with self._session.get(f"{self.url}{self._path}") as reply:
                return reply.ok
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """At once."""
        if self._running is not None and self._running.returncode is None:
            self._running.kill()
            await self._running.wait()

    stop = kill


Killable = Leashed | Program


@dataclass
class Tale:
    """What happened.

    Attributes:
        seen: by request of which a client saw a token, how many it saw, and whether it saw the end.
    """

    kills: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    seen: dict[UUID, tuple[int, bool]] = field(default_factory=dict)


async def ask(session: aiohttp.ClientSession, url: str, key: str, chance: random.Random, tale: Tale) -> None:
    """One request, which may be left in the middle."""
    tokens = chance.randrange(3, 60)
    leaves_after = chance.randrange(1, tokens) if chance.randrange(100) < LEAVES_PERCENT else None
    content = "word " * chance.randrange(1, 40)
    body = {"model": MODEL, "stream": True, "max_tokens": tokens, "pace_ms": 20}
    body["messages"] = [{"role": "user", "content": content}]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    seen, is_done, request = 0, False, None
    try:
        async with session.post(f"{url}/v1/chat/completions", data=msgspec.json.encode(body), headers=headers) as reply:
            if reply.status != 200:  # noqa: PLR2004 (OK)
                tale.clients[f"refused {reply.status}"] += 1
                await clock.sleep_ms(REFUSED_PAUSE_MS)
                return
            request = UUID(reply.headers["x-request-id"])
            async for line in reply.content:
                seen += line.count(b'" token"')
                is_done = is_done or line.startswith(b"data: [DONE]")
                if leaves_after is not None and seen >= leaves_after:
                    tale.clients["left"] += 1
                    return
            tale.clients["answered" if is_done else "cut off"] += 1
    except (aiohttp.ClientError, OSError, TimeoutError):
        tale.clients["cut off" if seen else "not reached"] += 1
        await clock.sleep_ms(REFUSED_PAUSE_MS)
    finally:
        if request is not None and seen:
            tale.seen[request] = seen, is_done


async def demand(count: int, servers: list[Program], keys: list[str], seed: int, tale: Tale) -> None:
    """So many clients, until cancelled."""

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        chance = random.Random(f"{seed} {number}")  # noqa: S311 (a schedule, no secret)
        while True:
            await ask(session, chance.choice(servers).url, keys[number % len(keys)], chance, tale)

    options = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(timeout=options[0], connector=options[1]) as session,
        asyncio.TaskGroup() as clients,
    ):
        for number in range(count):
            clients.create_task(client(number, session))


async def havoc(parts: Mapping[str, Killable], duration_ms: int, chance: random.Random, tale: Tale) -> None:
    """One death after the other."""
    deadline_ms = clock.monotonic_ms() + duration_ms
    names = list(parts)
    while clock.monotonic_ms() < deadline_ms:
        await clock.sleep_ms(chance.randrange(*KILL_EVERY_MS))
        if not (set(names) - set(tale.kills)):
            victim = chance.choice(names)
        else:
            # Everybody once, before somebody twice.
            victim = chance.choice([name for name in names if name not in tale.kills])
        away_ms = chance.randrange(*AWAY_MS)
        await parts[victim].kill()
        tale.kills[victim] += 1
        await clock.sleep_ms(away_ms)
        await parts[victim].start()
        left_s = (deadline_ms - clock.monotonic_ms()) / 1000
        print(f"  {left_s:6.1f} s left: {victim} was away for {away_ms} ms and its start", flush=True)


async def settled(check: LedgerCheck) -> Verdict:
    """The verdict when nothing is pending any more; or when that takes too long."""
    deadline_ms = clock.monotonic_ms() + SETTLES_MS_MAX
    while True:
        verdict = await check.run()
        if not (verdict.running or verdict.waiting or verdict.events) or clock.monotonic_ms() >= deadline_ms:
            return verdict
        await clock.sleep_ms(500)


async def compare(database: Database, tale: Tale) -> tuple[Counter[str], int, int, int]:
    """Rows by their outcome; seen answers without a row; completed ones with other tokens; seen ends that are not."""
    async with database.transaction(everybody=True) as session:
        query = select(Usage.request_id, Usage.outcome, Usage.output_tokens)
        rows = {row.request_id: (row.outcome, row.output_tokens) for row in await session.execute(query)}
    missing = [request for request in tale.seen if request not in rows]
    ended = {request: seen for request, (seen, is_done) in tale.seen.items() if is_done and request in rows}
    wrong = [request for request, seen in ended.items() if rows[request][0] == "completed" and rows[request][1] != seen]
    untold = [request for request in ended if rows[request][0] != "completed"]
    return Counter(outcome for outcome, _ in rows.values()), len(missing), len(wrong), len(untold)


def table(title: str, counts: Mapping[str, int]) -> None:
    """A few numbers."""
    cells = [f"{name} {count}" for name, count in sorted(counts.items())]
    print(f"{title:<9} {', '.join(cells) or 'none'}")


async def report(check: LedgerCheck, database: Database, tale: Tale) -> bool:
    """Tell what came of it; whether all is well."""
    verdict = await settled(check)
    outcomes, missing, wrong, untold = await compare(database, tale)
    table("killed", tale.kills)
    table("clients", tale.clients)
    table("rows", outcomes)
    print(f"seen      {len(tale.seen)} answers: {missing} without a row, {wrong} completed ones with other tokens;")
    print(f"          {untold} were seen whole, and their server was killed before it could tell")
    pending = f"{verdict.running} running, {verdict.waiting} waiting, {verdict.events} events not yet written"
    print(f"ledger    {'ok' if verdict.is_well else 'broken'}: {len(verdict.lines)} budgets compared, {pending}")
    for breach in verdict.broken:
        print(f"          {breach.sentence}")
    return verdict.is_well and not missing and not wrong


async def people_on(postgres: Postgres, redis: Redis) -> list[str]:
    """Their keys."""
    await migrate(postgres.owner_url)
    database, connection = Database(postgres.url, connections_max=1), connect_redis(redis.url)
    access, keys = Access(Ledger(connection), clock), []
    for name in PEOPLE:
        user = await Users(database, access, Passwords(), clock).add(name, "member")
        keys.append((await ApiKeys(database, access, clock).create(user.id, "chaos"))[1])
    await connection.aclose()
    await database.close()
    return keys


async def run(minutes: float, seed: int, clients: int) -> bool:
    """All of it."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    postgres, redis = Postgres(folder, clock), Redis(folder, clock)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def up(part: Killable) -> None:
            stack.push_async_callback(part.stop)
            await part.start()

        parts: dict[str, Killable] = {"postgres": Leashed(postgres, "postgres")}
        parts["redis"] = Leashed(redis, "redis-server")
        for part in parts.values():
            await up(part)
        keys = await people_on(postgres, redis)
        engine = Program(session, "/v1/models", {})
        engine.arguments = ("benchmarks.engine", str(engine.port), str(SLOTS))
        environment = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url, **SETTINGS}
        servers = [Program(session, "/readyz", environment) for _ in range(SERVERS)]
        for server in servers:
            server.arguments = ("server", "serve", "--port", str(server.port), "--engine", f"{engine.url}/v1")
        await up(engine)
        for server in servers:
            await up(server)
        parts |= {"engine": engine} | {f"server {number}": server for number, server in enumerate(servers, 1)}
        tale = Tale()
        load = asyncio.create_task(demand(clients, servers, keys, seed, tale))
        chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
        await havoc(parts, int(minutes * 60_000), chance, tale)
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        database, connection = Database(postgres.url, connections_max=1), connect_redis(redis.url)
        stack.push_async_callback(database.close)
        stack.push_async_callback(connection.aclose)
        return await report(LedgerCheck(Ledger(connection), database, clock), database, tale)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    given = parser.parse_args()
    print(f"wirthforge {VERSION}: {given.minutes} minutes, seed {given.seed}, {given.clients} clients")
    sys.exit(0 if uvloop.run(run(given.minutes, given.seed, given.clients)) else 1)


if __name__ == "__main__":
    main()
