"""Slow clients, silent ones, and many of them: over real sockets, against the served application.

The bounds are made small here; what they are is in docs/security.md, which a test holds to the code.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.api import connections, scope
from server.api.connections import CONNECTIONS_MAX, BoundedHttp, connections_within
from server.settings import Settings
from server.web import pages
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox

# A test that fails must not hang.
PATIENCE_S = 15
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


class Line:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, words: bytes) -> None:
        """Send this, and nothing after it."""
        self.writer.write(words)
        await self.writer.drain()

    async def head(self) -> str:
        """The next answer's status line and headers."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def rest(self) -> bytes:
        """Everything until the server hangs up."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def _line(box: Box) -> AsyncIterator[Line]:
    where = urlsplit(box.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenths of seconds instead of many."""
    monkeypatch.setattr(connections, "HEADER_MS_MAX", 300)
    monkeypatch.setattr(scope, "GIVE_MS_MAX", 300)
    monkeypatch.setattr(scope, "TAKE_MS_MAX", 300)


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_never_ends(box: Box) -> None:
    """Slow loris: whoever says nothing, or never says all, is hung up on; with no answer, since there is no request."""
    for words in (b"", b"G", b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n"):
        async with _line(box) as line:
            await line.say(words)
            assert await line.rest() == b""


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_drips(box: Box) -> None:
    """A byte now and then buys no time."""
    async with _line(box) as line:
        ended = asyncio.create_task(line.rest())
        for byte in b"GET /health HTTP/1.1\r\nHost: " + b"x" * 10_000:
            if ended.done():
                break
            line.writer.write(bytes([byte]))
            await asyncio.wait([ended], timeout=0.02)
        assert ended.done()
        assert await ended == b""


@pytest.mark.usefixtures("hasty")
async def test_a_second_head_that_drips(box: Box) -> None:
    """Nor after an answer, where uvicorn alone would wait for ever once a byte came."""
    async with _line(box) as line:
        await line.say(HEALTH)
        assert "200 OK" in await line.head()
        await line.say(b"GET /hea")
        assert await line.rest() == b'{"status":"ok"}'


@pytest.mark.usefixtures("hasty")
async def test_a_rest_that_nobody_reads(box: Box) -> None:
    """A request that was refused before its body came does not hold its connection with the rest of it."""
    async with _line(box) as line:
        await line.say(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
        assert "401 Unauthorized" in await line.head()
        await line.say(b'"model')
        assert b"not_authenticated" in await line.rest()


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_drips(box: Box) -> None:
    """408 in the shape of the API, and the connection ends; also where nobody has to be known."""
    ann = await box.person("ann")
    for path, headers in (("/v1/chat/completions", ann.bearer), ("/api/login", {})):
        said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        async with _line(box) as line:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{said}Content-Length: 1000\r\n\r\n"
            await line.say(head.encode() + b'{"model":')
            answer = await line.head()
            assert answer.startswith("HTTP/1.1 408 Request Timeout")
            assert "connection: close" in answer
            assert b'"request_timeout"' in await line.rest()


async def test_a_body_that_comes_is_read(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given buys time: a body in pieces is read though all of it takes longer than the first time."""
    monkeypatch.setattr(scope, "GIVE_MS_MAX", 1_000)
    monkeypatch.setattr(scope, "GIVE_BYTES_PER_S_MIN", 1)
    await box.person("ann", password=PASSWORD)
    body = b'{"name":"ann","password":"' + PASSWORD.encode() + b'"}'
    async with _line(box) as line:
        await line.say(b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        for number in range(0, len(body), 6):
            await line.say(body[number : number + 6])
            await box.clock.sleep_ms(150)
        assert "200 OK" in await line.head()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        # Without an end: no parser would ever say anything.
        b"GET /health HTTP/1.1\r\nX-A: " + b"a" * 300_000,
        b"GET /health HTTP/1.1\r\n" + b"a" * 300_000,
    ],
    ids=["one header", "many headers", "address", "endless value", "endless name"],
)
async def test_a_head_that_is_too_large(box: Box, head: bytes) -> None:
    """431 and the end, before memory holds it."""
    async with _line(box) as line:
        line.writer.write(head)
        answer = await line.head()
        assert answer.startswith("HTTP/1.1 431 Request Header Fields Too Large")
        assert "x-content-type-options: nosniff" in answer
        await line.rest()


async def test_a_large_head_that_is_not_too_large(box: Box) -> None:
    """32 KiB of cookies, and a body in the same piece."""
    body = b'{"name":"ann","password":"' + b"x" * 50_000 + b'"}'
    async with _line(box) as line:
        await line.say(
            b"POST /api/login HTTP/1.1\r\nHost: x\r\nCookie: a=" + b"a" * 32_768 + b"\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert "401 Unauthorized" in await line.head()


class Open(set[object]):
    """Connections that are open; `ever`: how many were made."""

    ever = 0


@pytest.fixture
def open_now(monkeypatch: pytest.MonkeyPatch) -> Open:
    """The connections of all servers of this test that are open."""
    found = Open()
    made, lost = BoundedHttp.connection_made, BoundedHttp.connection_lost

    def _made(self: BoundedHttp, transport: asyncio.Transport) -> None:
        found.add(self)
        found.ever += 1
        made(self, transport)

    def _lost(self: BoundedHttp, exc: Exception | None) -> None:
        found.discard(self)
        lost(self, exc)

    monkeypatch.setattr(BoundedHttp, "connection_made", _made)
    monkeypatch.setattr(BoundedHttp, "connection_lost", _lost)
    return found


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("size_bytes", [300_000, 32 * 1024 * 1024])
async def test_nobody_takes_the_answer(
    box: Box, open_now: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """A file, which no task of ours watches: whoever asks for it and reads nothing is hung up on."""
    monkeypatch.setattr(pages, "STATIC", tmp_path)
    (tmp_path / "large.bin").write_bytes(b"x" * size_bytes)
    where = urlsplit(box.url)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect((where.hostname, where.port))
        raw.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            # What fits into the kernel may be gone before anybody looks.
            while not open_now.ever or open_now:
                await box.clock.sleep_ms(20)


@pytest.fixture
async def small(make_box: MakeBox, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A box that takes eight connections."""
    monkeypatch.setattr(connections, "connections_max", lambda: 8)
    return await make_box(settings)


async def test_silent_connections_keep_nobody_out(open_now: set[object], small: Box) -> None:
    """Hundreds that say nothing: whoever has something to say is served, and the oldest of the others go."""
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(_line(small)) for _ in range(200)]
        for _ in range(3):
            async with _line(small) as line:
                await line.say(HEALTH)
                assert "200 OK" in await line.head()
        assert await lines[0].rest() == b""
        assert len(open_now) <= 8


async def test_a_server_whose_connections_are_all_in_use(small: Box) -> None:
    """503 with Retry-After for one more; those in use go on, and when one is done there is room."""
    asked = b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(_line(small)) for _ in range(8)]
        for line in lines:
            await line.say(asked + b"{}")
        await small.clock.sleep_ms(300)
        async with _line(small) as late:
            answer = await late.head()
            assert answer.startswith("HTTP/1.1 503 Service Unavailable")
            assert "retry-after: 5" in answer
            await late.rest()
        await lines[0].say(b" " * 7)
        assert "400 Bad Request" in await lines[0].head()
        async with _line(small) as next_one:
            await next_one.say(HEALTH)
            assert "200 OK" in await next_one.head()


async def test_pipelined_requests_are_answered_in_turn(box: Box) -> None:
    """Several requests in one piece, and the start of another, are what they are."""
    async with _line(box) as line:
        await line.say(HEALTH * 3 + HEALTH[:20])
        for _ in range(3):
            assert "200 OK" in await line.head()
            await line.reader.readexactly(len(b'{"status":"ok"}'))
        await line.say(HEALTH[20:])
        assert "200 OK" in await line.head()


@pytest.mark.parametrize(
    ("files", "count"), [(20, 16), (1024, 384), (65_536, CONNECTIONS_MAX), (10**9, CONNECTIONS_MAX)]
)
def test_as_many_connections_as_files(files: int, count: int) -> None:
    """Each needs its own and its engine's; Postgres, Redis and the rest keep theirs."""
    assert connections_within(files) == count
