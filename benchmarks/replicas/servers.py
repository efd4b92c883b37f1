"""Servers as real processes, each on a port of its own, on one Postgres, one Redis and one engine."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.stage import clock, free_port

START_MS_MAX = 120_000
POLL_MS = 20


class Replica:
    """One server, on the same port whenever it runs.

    Args:
        folder: for its log.
        environment: all of it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.log = folder / f"{self.port}.log"
        self._environment = {**environment, "WIRTHFORGE_PORT": str(self.port)}
        self._running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it is ready."""
        with self.log.open("ab") as said:
            self._running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", "serve"), stdout=said, stderr=said, env=self._environment
            )
        await self.until("ready")

    async def until(self, status: str) -> None:
        """Wait until it says so of itself."""
        deadline_ms = clock.monotonic_ms() + START_MS_MAX
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        said = (await answer.json())["status"]
                except (aiohttp.ClientError, TimeoutError):
                    said = "gone"
                if said == status:
                    return
                assert said != "gone" or self._is_running, self.log.read_text()
                assert clock.monotonic_ms() < deadline_ms, f"{said}, not {status}: {self.log.read_text()}"
                await clock.sleep_ms(POLL_MS)

    @property
    def _is_running(self) -> bool:
        return self._running is not None and self._running.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._running is not None
        self._running.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        assert self._running is not None
        return await self._running.wait()

    async def stop(self) -> None:
        """Leave nothing behind."""
        if self._running is not None and self._is_running:
            self._running.kill()
            await self._running.wait()


@asynccontextmanager
async def replicas(count: int, folder: Path, environment: Mapping[str, str]) -> AsyncIterator[list[Replica]]:
    """So many servers, started together, until the block ends."""
    servers = [Replica(folder, environment) for _ in range(count)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield servers
    finally:
        for server in servers:
            await server.stop()
