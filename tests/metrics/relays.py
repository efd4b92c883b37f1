"""A relay in front of Postgres or Redis, which can be cut: to whoever comes through it the service is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy.engine import make_url

CHUNK_BYTES = 1 << 16


class Relay:
    """One, on a free port of the loopback interface.

    Args:
        upstream: the path of a Unix socket, or a host and a port.
    """

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self.port = 0
        # Cleared, nothing comes through, and nobody is told why.
        self.flows = asyncio.Event()
        self.flows.set()

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Take none any more, and end those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            if isinstance(self._upstream, str):
                answers, there = await asyncio.open_unix_connection(self._upstream)
            else:
                answers, there = await asyncio.open_connection(*self._upstream)
            ways = {asyncio.create_task(self._copy(reader, there)), asyncio.create_task(self._copy(answers, writer))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the line is over
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
            self._lines.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self.flows.wait()
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def before_postgres(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and the URL that goes through it."""
    known = make_url(url)
    folder = str(known.query.get("host") or "")
    port = int(str(known.query.get("port") or known.port or 5432))
    relay = Relay(f"{folder}/.s.PGSQL.{port}" if folder.startswith("/") else (known.host or folder, port))
    await relay.open()
    through = known.set(host="127.0.0.1", port=relay.port, query={})
    try:
        yield relay, through.render_as_string(hide_password=False)
    finally:
        await relay.cut()


@asynccontextmanager
async def before_redis(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """The same for Redis."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        upstream: str | tuple[str, int] = unquote(parts.path)
        database = parse_qs(parts.query).get("db", ["0"])[0]
    else:
        upstream, database = (parts.hostname or "127.0.0.1", parts.port or 6379), parts.path.strip("/") or "0"
    relay = Relay(upstream)
    await relay.open()
    try:
        yield relay, f"redis://127.0.0.1:{relay.port}/{database}"
    finally:
        await relay.cut()
