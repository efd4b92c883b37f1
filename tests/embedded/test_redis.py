"""Redis on a laptop keeps the ledger."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import redis.asyncio

from server.clock import SystemClock
from server.embedded.paths import socket_dir
from server.embedded.redis import Redis
from server.embedded.supervisor import Part

Running = Callable[[Part], Awaitable[None]]


def server_of(data_dir: Path) -> psutil.Process:
    """The redis-server on `data_dir`."""
    wanted = str(socket_dir(data_dir))
    return next(
        one
        for one in psutil.process_iter(["name", "cmdline"])
        if one.info["name"] == "redis-server" and wanted in " ".join(one.info["cmdline"])
    )


async def test_a_key_survives_stop_and_start(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """A key is there after an orderly stop and a new start."""
    part = Redis(data_dir, clock)
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url) as client:
        await client.set("kept", "here")
    await part.stop()
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url) as client:
        assert await client.get("kept") == b"here"


async def test_a_torn_file_is_loaded(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """After kill -9 in the middle of a write, everything before that write is there."""
    part = Redis(data_dir, clock)
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url) as client:
        await client.set("kept", "here")
    server_of(data_dir).kill()
    assert await part.exited() == 137
    await part.stop()
    with (data_dir / "redis" / "appendonly.aof").open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url) as client:
        assert await client.get("kept") == b"here"


async def test_nothing_is_evicted(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """The ledger refuses before it forgets, has no port, and writes every command to its file."""
    part = Redis(data_dir, clock)
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url, decode_responses=True) as client:
        found = await client.config_get("*")
    wanted = {"maxmemory-policy": "noeviction", "port": "0", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    assert wanted.items() <= found.items()


async def test_an_orphan_is_ended_first(running: Running, data_dir: Path, clock: SystemClock) -> None:
    """A Redis that still holds the folder makes room, and what it knew is kept."""
    orphan, part = Redis(data_dir, clock), Redis(data_dir, clock)
    await running(orphan)
    async with redis.asyncio.Redis.from_url(orphan.url) as client:
        await client.set("kept", "here")
    await running(part)
    assert await orphan.exited() == 0
    async with redis.asyncio.Redis.from_url(part.url) as client:
        assert await client.get("kept") == b"here"


async def test_a_long_path_works(running: Running, long_data_dir: Path, clock: SystemClock) -> None:
    """A data folder whose path no socket could have is served all the same."""
    part = Redis(long_data_dir, clock)
    await running(part)
    async with redis.asyncio.Redis.from_url(part.url) as client:
        assert await client.ping()
