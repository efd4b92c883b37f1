"""A year of four people: what it takes, and what the archive makes of it."""

import random
from datetime import timedelta

import asyncpg
from sqlalchemy import text

from benchmarks.storage.box import Filled, filling
from benchmarks.storage.rows import EXCHANGES, Batch, Lengths, converse
from benchmarks.storage.words import Words
from server.clock import SystemClock
from server.upkeep.archiving import archive
from server.upkeep.jobs import Turn
from server.upkeep.restoring import Archive

PEOPLE = ("ann", "bob", "cem", "dee")
DAYS = 365
# Of seven days people use it five.
WORKDAYS = 5
HOURS_A_DAY = 3
ARCHIVE_AFTER_DAYS = 90
OPENED = 40
MB = 1_000_000
SESSION = ("conversations", "messages", "member_answers")
METRICS = ("hardware_samples",)
COUNTED = ("usage", "council_runs")
SAMPLES = """
INSERT INTO hardware_samples (at, device_id, used_mib, used_mib_max, power_mw, energy_mj, utilisation_percent,
                              temperature_c, throttled_percent, xid)
SELECT at, 1, 61000 + (random() * 900)::int, 62000, 90000 + (random() * 300000)::int, 3000000 + (random() * 9e6)::int,
       (random() * 100)::int, 40 + (random() * 40)::int, 0, NULL
FROM generate_series(date_bin('30 seconds', now(), '2000-01-01') - $1::interval, now(), interval '30 seconds') AS at
"""
DEVICE = "INSERT INTO hardware_devices (id, uuid, kind, name) VALUES (1, 'GPU-0', 'cuda', 'NVIDIA H100')"
# With its partitions and all their indexes.
SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
    " WHERE oid = to_regclass($1) OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1))"
)
TEXT = (
    "SELECT (SELECT sum(octet_length(content)) FROM messages) + (SELECT sum(octet_length(content)) FROM member_answers)"
)


async def year(days: int, seed: int) -> None:
    """Fill, measure, archive, measure, open."""
    clock = SystemClock()
    async with filling() as filled:
        hours = await _fill(filled, days, seed)
        before = await _sizes(filled)
        months = days / 365 * 12
        session, metrics = sum(before[one] for one in SESSION), sum(before[one] for one in METRICS)
        counted = sum(before[one] for one in COUNTED)
        print(f"{len(PEOPLE)} people, {days} days, {hours:.0f} hours of use; MB are 10^6 bytes, with indexes")
        for table, size in before.items():
            print(f"  {table:<18} {size / MB:>9.1f} MB")
        print(f"  session data     {session / hours / MB:>7.3f} MB an hour of use     (the seed: ~1)")
        print(f"  metrics          {metrics / days / 24 / 1000:>7.1f} kB an hour, one device  (the seed: ~100)")
        print(
            f"  a person         {(session + counted) / len(PEOPLE) / months / MB:>7.2f} MB a month"
            "             (the seed: ~10)"
        )
        await _archived(filled, clock, before)
        await _opened(filled, clock, random.Random(seed))  # noqa: S311


async def _fill(filled: Filled, days: int, seed: int) -> float:
    """Returns the hours of use."""
    dice, words, lengths = random.Random(seed), Words(seed), Lengths(seed)  # noqa: S311
    clock, used = SystemClock(), timedelta()
    people = [await filled.person(name) for name in PEOPLE]
    async with filled.writing() as connection:
        await connection.execute(DEVICE)
        await connection.execute(SAMPLES, timedelta(days=days), timeout=900)
        batch, first = Batch(), clock.now() - timedelta(days=days)
        for day in range(days):
            if day % 7 >= WORKDAYS:
                continue
            for who in people:
                at = first + timedelta(days=day, minutes=dice.uniform(0, 600))
                until = at + timedelta(hours=HOURS_A_DAY)
                while at < until:
                    ended = converse(batch, who, at, dice.randint(*EXCHANGES), dice=dice, words=words, lengths=lengths)
                    used += ended - at
                    at = ended + timedelta(minutes=dice.uniform(1, 20))
            await batch.write(connection)
        await connection.execute("VACUUM ANALYZE", timeout=900)
    return used.total_seconds() / 3600


async def _sizes(filled: Filled) -> dict[str, int]:
    connection = await asyncpg.connect(filled.url)
    sizes = {table: await connection.fetchval(SIZE, table) for table in (*SESSION, *COUNTED, *METRICS)}
    await connection.close()
    return sizes


async def _archived(filled: Filled, clock: SystemClock, before: dict[str, int]) -> None:
    whole, texts = await _whole(filled), await _asked(filled, TEXT)
    async with filled.owner.alone() as connection:
        assert connection is not None, "nobody else is there"
        began_ms = clock.monotonic_ms()
        await archive(Turn(connection, clock, lambda _: None), filled.shelf, ARCHIVE_AFTER_DAYS)
        took_s = (clock.monotonic_ms() - began_ms) / 1000
        async with connection.begin():
            rows = int(await connection.scalar(text("SELECT sum(rows) FROM archives")) or 0)
    files = sum(path.stat().st_size for path in (filled.folder / "archive").glob("*.parquet"))
    after = await _sizes(filled)
    left = {table: before[table] - after[table] for table in before}
    gone = sum(left.values())
    print(f"archived after {ARCHIVE_AFTER_DAYS} days: {rows} rows in {took_s:.1f} s ({rows / took_s:.0f} rows/s)")
    texts -= await _asked(filled, TEXT)
    print(f"  {gone / MB:.0f} MB of tables (with indexes; {texts / MB:.0f} MB of it text) became {files / MB:.1f} MB:")
    print(f"  {gone / max(files, 1):.1f} to 1, the text alone {texts / max(files, 1):.1f} to 1")
    print(f"  on the disk, all of it: {whole / MB:.0f} MB before, {await _whole(filled) / MB:.0f} MB after")


async def _whole(filled: Filled) -> int:
    """The database and the archive, without the log that Postgres writes ahead."""
    size = await _asked(filled, "SELECT pg_database_size(current_database())")
    return size + sum(path.stat().st_size for path in filled.folder.glob("archive/*"))


async def _asked(filled: Filled, query: str) -> int:
    connection = await asyncpg.connect(filled.url)
    number: int = await connection.fetchval(query, timeout=300)
    await connection.close()
    return number


async def _opened(filled: Filled, clock: SystemClock, dice: random.Random) -> None:
    """Open old conversations, each for the first time."""
    connection = await asyncpg.connect(filled.url)
    old = await connection.fetch(
        "SELECT user_id, id FROM conversations WHERE created_at < now() - $1::interval ORDER BY id",
        timedelta(days=ARCHIVE_AFTER_DAYS + 40),
    )
    await connection.close()
    archived, times, rows = Archive(filled.database, filled.shelf, clock), [], 0
    for row in dice.sample(old, min(OPENED, len(old))):
        began_ms = clock.monotonic_ms()
        rows += await archived.restore(row["user_id"], row["id"])
        times.append(clock.monotonic_ms() - began_ms)
    times.sort()
    if times:
        print(
            f"an old conversation comes back in {times[len(times) // 2]} ms (p50), {times[-1]} ms (the longest of"
            f" {len(times)}): {rows * 1000 / max(sum(times), 1):.0f} rows/s"
        )
