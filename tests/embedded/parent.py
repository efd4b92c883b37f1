"""A server's skeleton: starts all parts and says "up"; on Ctrl-C says whether they answer; stops at a line of input.

Run by the tests as `python parent.py DATA_DIR MODEL`.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import redis.asyncio

from server.clock import SystemClock
from server.embedded.llama import Llama
from server.embedded.paths import socket_dir
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis
from server.embedded.supervisor import Supervisor


async def main(data_dir: Path, model: Path) -> None:
    """Live until a line comes in."""
    clock = SystemClock()
    ledger = Redis(data_dir, clock)
    engine = Llama(model, name="tiny", slots=1, context_tokens=512, data_dir=data_dir, clock=clock)
    supervisor = Supervisor([Postgres(data_dir, clock), ledger, engine], clock)
    asked: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, asked.put_nowait, "interrupt")
    loop.add_reader(0, lambda: asked.put_nowait(os.read(0, 64).decode()))
    await supervisor.start()
    say("up")
    while await asked.get() == "interrupt":
        connection = await asyncpg.connect(
            host=str(socket_dir(data_dir)), port=5432, user="wirthforge", database="wirthforge"
        )
        await connection.close()
        async with redis.asyncio.Redis.from_url(ledger.url) as client:
            await client.ping()
        _, writer = await asyncio.open_connection("127.0.0.1", int(engine.base_url.split(":")[2].split("/")[0]))
        writer.close()
        say("all answer")
    await supervisor.stop()


def say(word: str) -> None:
    """Tell the test."""
    os.write(1, f"{word}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
