"""How long the list, a conversation and a search take, at more and more messages of one person."""

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from benchmarks.storage.box import Filled, filling
from benchmarks.storage.rows import Batch, Lengths, converse
from benchmarks.storage.words import Words
from server.clock import SystemClock
from server.conversations.answers import Answers
from server.conversations.listing import Listing
from server.conversations.recorder import Recorder
from server.conversations.store import Conversations
from server.upkeep.restoring import Archive

EXCHANGES_EACH = 10
BATCH_ROWS = 20_000
WARM = 30
SPAN = timedelta(days=360)


class Pool(Words):
    """One text for each length: as long to read, and a million of them are there in minutes."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._texts: dict[int, str] = {}

    def text(self, tokens: int) -> str:
        """One of that length."""
        if tokens not in self._texts:
            self._texts[tokens] = super().text(tokens)
        return self._texts[tokens]


async def pace(counts: list[int], asked: int, seed: int) -> None:
    """Print a line for each count."""
    dice, words, lengths = random.Random(seed), Pool(seed), Lengths(seed)  # noqa: S311
    clock = SystemClock()
    async with filling() as filled:
        who = await filled.person("ann")
        began, chats, count = clock.now() - SPAN, [], 0
        step = SPAN / (counts[-1] / (2 * EXCHANGES_EACH))
        print(f"{'messages':>9} {'MiB':>6}   {'list':>13} {'open':>13} {'search':>13}   p50 / p99 ms of {asked}")
        for goal in counts:
            async with filled.writing() as connection:
                batch = Batch()
                while count + batch.count < goal:
                    # Conversations of all months, whatever the number.
                    at = began + step * dice.randrange(int(SPAN / step))
                    converse(batch, who, at, EXCHANGES_EACH, dice=dice, words=words, lengths=lengths)
                    chats.append(cast("UUID", batch.rows["conversations"][-1][0]))
                    if batch.count >= BATCH_ROWS:
                        count += batch.count
                        await batch.write(connection)
                count += batch.count
                await batch.write(connection)
                # As autovacuum leaves it.
                await connection.execute("VACUUM ANALYZE", timeout=900)
                size = await connection.fetchval("SELECT pg_database_size(current_database())")
            figures = await _figures(filled, who, chats, asked, dice, clock)
            print(f"{count:>9} {size / 2**20:>6.0f}   " + " ".join(f"{one:>13}" for one in figures), flush=True)


async def _figures(
    filled: Filled, who: UUID, chats: list[UUID], asked: int, dice: random.Random, clock: SystemClock
) -> list[str]:
    """The list's first page, any conversation, a search for two words."""
    archive = Archive(filled.database, filled.shelf, clock)
    # Nothing runs: the answers that are asked for are those of the tables.
    idle = cast("Answers", SimpleNamespace(running_in=lambda *_: {}))
    recorder = Recorder(filled.database, clock, archive, context_bytes_max=1 << 20)
    listing, conversations = Listing(filled.database), Conversations(filled.database, idle, recorder, archive, clock)

    async def opened() -> object:
        return await conversations.open(who, dice.choice(chats))

    async def found() -> object:
        return await listing.page(who, search=dice.choice(("council leader", "postgres archive", "waiting engine")))

    return [
        await _measured(clock, asked, lambda: listing.page(who, count_max=40)),
        await _measured(clock, asked, opened),
        await _measured(clock, max(asked // 10, 3), found),
    ]


async def _measured(clock: SystemClock, count: int, ask: Callable[[], Awaitable[Any]]) -> str:
    times = []
    for number in range(count + min(WARM, count)):
        began_us = clock.monotonic_us()
        await ask()
        if number >= min(WARM, count):
            times.append(clock.monotonic_us() - began_us)
    times.sort()
    return f"{times[len(times) // 2] / 1000:.1f} / {times[int(len(times) * 0.99)] / 1000:.1f}"
