"""Redis for one server: the shared record of queue, leases and service.

It listens on a Unix socket only. Every write goes to the append-only file, which reaches the disk once a second: a
power cut may cost the last second of the ledger, and the server then starts level (design: everybody starts level after
a loss). A file that was cut in the middle of its last command is loaded up to there. Nothing is ever evicted: a ledger
that forgets quietly is worse than one that refuses.
"""

import asyncio
from pathlib import Path
from urllib.parse import quote

from server.clock import Clock
from server.embedded.binaries import redis_bin
from server.embedded.child import POLL_MS, Child
from server.embedded.paths import REDIS_SOCKET, private_dir, socket_dir
from server.errors import StartError

START_MS_MAX = 30_000
GRACE_MS_MAX = 10_000
ORPHAN_MS_MAX = 10_000
# What Redis says of a file that it cannot read beyond its last command.
DAMAGED = "Bad file format reading the append only file"

CONFIGURATION = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    # To its standard output, which is the part's log.
    "logfile": "",
    "loglevel": "notice",
}


class Redis:
    """A part (see supervisor.py): Redis on DATA/redis."""

    name = "redis"

    def __init__(self, data_dir: Path, clock: Clock) -> None:
        """Name the folder; nothing starts yet.

        Args:
            data_dir: the data folder, whose lock the caller holds.
            clock: measures waiting.
        """
        self._data_dir = data_dir.resolve()
        self._clock = clock
        self._child = Child(self.name, data_dir=self._data_dir, clock=clock, grace_ms_max=GRACE_MS_MAX)

    @property
    def url(self) -> str:
        """For redis-py."""
        return f"unix://{quote(str(self._socket))}?db=0"

    async def start(self) -> None:
        """Return when Redis has loaded its file and answers.

        Raises:
            StartError: Redis does not start; nothing is left running.
        """
        private_dir(self._data_dir)
        private_dir(socket_dir(self._data_dir))
        folder = private_dir(self._data_dir / "redis")
        await self._end_orphan()
        command = [str(redis_bin("redis-server")), "--dir", str(folder), "--unixsocket", str(self._socket)]
        for setting, value in CONFIGURATION.items():
            command += [f"--{setting}", value]
        await self._child.launch(command)
        try:
            await self._child.until(self._ready, start_ms_max=START_MS_MAX)
        except StartError:
            if not any(DAMAGED in line for line in self._child.last_lines()):
                raise
            raise StartError(
                f"Redis' file in {folder} is damaged. Move the folder away and start again: queue and budgets then "
                "begin anew, and nothing else is in it."
            ) from None

    async def exited(self) -> int:
        """Wait until Redis has ended; its exit status."""
        return await self._child.exited()

    async def stop(self) -> None:
        """End Redis; its file is complete on the disk then."""
        await self._child.stop()

    @property
    def _socket(self) -> Path:
        return socket_dir(self._data_dir) / REDIS_SOCKET

    async def _ready(self) -> bool:
        # While it loads its file it answers -LOADING.
        return (await self._ask("PING")).startswith(b"+PONG")

    async def _end_orphan(self) -> None:
        """End a Redis that lost its leash: a second one would write into the same file."""
        deadline_ms = self._clock.monotonic_ms() + ORPHAN_MS_MAX
        while await self._ask("PING"):
            await self._ask("SHUTDOWN")
            if self._clock.monotonic_ms() >= deadline_ms:
                raise StartError(f"Another Redis answers at {self._socket} and does not end: end it.")
            await self._clock.sleep_ms(POLL_MS)

    async def _ask(self, command: str) -> bytes:
        """The first line of the answer; empty when nobody answers. No client library: it would retry by itself."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return b""
        try:
            writer.write(f"{command}\r\n".encode())
            return await reader.readline()
        except OSError:
            return b""
        finally:
            writer.close()
