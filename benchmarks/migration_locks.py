"""How long people wait while migration 0010 divides a `usage` of a million rows, and while it is taken back.

A real Postgres is filled at revision 0009. While the migration runs, one connection writes rows and one reads them, as
fast as they can, each in transactions of its own; the longest that either had to wait is what the migration's locks
cost. `python -m benchmarks.migration_locks --rows 1000000` prints it.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.clock import SystemClock, uuid7
from server.db.migrate import MIGRATIONS
from server.embedded.postgres import Postgres

FILL = """
INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, first_token_ms,
                   total_ms, outcome, started_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
        || substr(hash, 4, 15))::uuid,
       md5((n % 4)::text)::uuid, 'chat.completions', 'llama-3.3-70b-instruct', 'vllm', 1200, 340, 12, 300, 9000,
       'completed', at
FROM generate_series(1, $1) AS n, LATERAL (SELECT md5(n::text) AS hash, now() - n * interval '30 seconds' AS at) AS made
"""
WRITE = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at) VALUES ($1, $1, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed', now())"
)
READ = "SELECT count(*) FROM usage WHERE user_id = $1 AND started_at > now() - interval '1 hour'"


class Waits:
    """The longest wait of one who asks again and again."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.longest_us = 0
        self.count = 0

    async def until(self, done: asyncio.Event, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask until it is done."""
        while not done.is_set():
            began_us = self.clock.monotonic_us()
            await ask()
            self.longest_us = max(self.longest_us, self.clock.monotonic_us() - began_us)
            self.count += 1


async def alembic(engine: AsyncEngine, action: Callable[[Config], None]) -> None:
    """One of Alembic's commands, in one transaction."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        action(config)

    async with engine.begin() as connection:
        await connection.run_sync(run)


async def measure(url: str, name: str, migrate: Callable[[], Awaitable[None]] | None) -> None:
    """Migrate beside somebody who writes and somebody who reads; None: as long as a migration takes, without one."""
    clock, done = SystemClock(), asyncio.Event()
    writer, reader = await asyncpg.connect(url), await asyncpg.connect(url)
    writes, reads, who = Waits(), Waits(), uuid4()
    async with asyncio.TaskGroup() as group:
        group.create_task(writes.until(done, lambda: writer.execute(WRITE, uuid7(clock.now()))))
        group.create_task(reads.until(done, lambda: reader.fetchval(READ, who)))
        began_ms = clock.monotonic_ms()
        if migrate is None:
            await clock.sleep_ms(2_000)
        else:
            await migrate()
        took_ms = clock.monotonic_ms() - began_ms
        done.set()
    await writer.close()
    await reader.close()
    print(
        f"{name:<22} {took_ms:>8} {writes.longest_us / 1000:>18.0f} {reads.longest_us / 1000:>18.0f}"
        f" {writes.count + reads.count:>10}",
        flush=True,
    )


async def main(rows: int) -> None:
    """Fill, forth, back, forth."""
    with tempfile.TemporaryDirectory(prefix="wf-") as folder:
        postgres = Postgres(Path(folder), SystemClock())
        await postgres.start()
        engine = create_async_engine(postgres.owner_url)
        plain = make_url(postgres.owner_url).set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            await alembic(engine, lambda config: command.upgrade(config, "0009"))
            connection = await asyncpg.connect(plain)
            await connection.execute(FILL, rows, timeout=600)
            await connection.execute("VACUUM ANALYZE usage", timeout=600)
            size = await connection.fetchval("SELECT pg_total_relation_size('usage')")
            await connection.close()
            print(f"{rows} rows in usage, {size / 2**20:.0f} MiB")
            print(f"{'':<22} {'took, ms':>8} {'longest write, ms':>18} {'longest read, ms':>18} {'asked':>10}")
            await measure(plain, "without a migration", None)
            for _ in range(2):
                await measure(plain, "0009 to 0010", lambda: alembic(engine, lambda to: command.upgrade(to, "0010")))
                await measure(plain, "0010 to 0009", lambda: alembic(engine, lambda to: command.downgrade(to, "0009")))
            async with engine.begin() as owner:
                kept = await owner.scalar(text("SELECT count(*) FROM usage"))
            print(f"{kept} rows afterwards, {kept - rows if kept else 0} of them written meanwhile")
        finally:
            await engine.dispose()
            await postgres.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().rows))
