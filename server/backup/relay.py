"""A line to Postgres for programs that speak no TLS: pg_dump and pg_restore of our wheel, whose libpq has none.

They connect to a Unix socket in a folder that nobody else may enter; for each of their connections one is made to
Postgres, with the same trust as all of ours have (server/db/address.py), and bytes go back and forth. Authentication is
between them and Postgres, and a password that Postgres wants to read is sent to it inside TLS. One message is changed:
of what Postgres offers, the ways that are bound to TLS (SCRAM-SHA-256-PLUS) are left out, because libpq hangs up where
those are offered on a line that it knows to have none. What is left proves to both sides that the other one knows the
password, as with asyncpg, which knows no binding either. If there is no trust, no byte of theirs is sent, and they are
told why in Postgres' own form, so that their complaint is the reason.

Asking for TLS: https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SSL. The answer is read from the
bare socket as one byte: what somebody slips in behind it before TLS begins would otherwise count as said inside
(CVE-2021-23222).
"""

import asyncio
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.backup.tape import CHUNK_BYTES
from server.db.address import PROTOCOL, Address
from server.tls import Untrusted

# The name that libpq looks for in a folder, with the port that it is told.
PORT = 5432
CONNECT_S_MAX = 5
CLOSE_S_MAX = 1
# Of a message before anybody has said who they are; libpq's own bound is near (fe-connect.c).
FIRST_BYTES_MAX = 30_000
# https://www.postgresql.org/docs/18/protocol-message-formats.html (AuthenticationSASL)
SASL = struct.pack("!i", 10)
_ASKS_FOR_TLS = struct.pack("!ii", 8, 80877103)

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def relay(where: Address, host: str, port: int) -> AsyncIterator[Path]:
    """The folder of a socket that leads to Postgres, as long as the block lasts.

    Args:
        where: how far it is trusted; it has a `trust`.
        host: the one host of it.
        port: its port.
    """
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        # They went away, or the block has ended: neither is anybody's fault.
        with suppress(OSError, asyncio.CancelledError):
            await _serve((reader, writer), where, host, port)
        serving.discard(task)

    with tempfile.TemporaryDirectory(prefix="wirthforge-") as folder:
        path = Path(folder) / f".s.PGSQL.{PORT}"
        server = await asyncio.start_unix_server(serve, path)
        try:
            yield Path(folder)
        finally:
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


async def _serve(theirs: Line, where: Address, host: str, port: int) -> None:
    try:
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                ours = await _connect(where, host, port)
        except OSError as error:
            assert where.trust is not None
            theirs[1].write(_refusal(where.trust.reason(error, where.name)))
        else:
            await _exchange(theirs, ours)
    finally:
        theirs[1].close()


async def _exchange(theirs: Line, ours: Line) -> None:
    """Bytes back and forth, until one side is done; then the other has nobody to speak to."""
    ways = [asyncio.ensure_future(_pump(theirs, ours)), asyncio.ensure_future(_answer(ours, theirs))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # First what needs no waiting, since we may be cancelled in it. What was written still goes.
        for way in ways:
            way.cancel()
        ours[1].close()
        await asyncio.gather(*ways, return_exceptions=True)
        await _closed(ours)


async def _closed(line: Line) -> None:
    """Wait for what was written to go, but not for somebody who does not take it."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S_MAX):
            await line[1].wait_closed()


async def _answer(ours: Line, theirs: Line) -> None:
    """What Postgres says: its first messages, up to how it wants to know who we are, and then the rest as it comes."""
    with suppress(asyncio.IncompleteReadError):
        kind = b""
        while kind not in {b"R", b"E"}:
            head = await ours[0].readexactly(5)
            kind, size = head[:1], int.from_bytes(head[1:]) - 4
            if not 0 <= size <= FIRST_BYTES_MAX:
                return
            body = await ours[0].readexactly(size)
            theirs[1].write(_unbound(body) if kind == b"R" else head + body)
            await theirs[1].drain()
        await _pump(ours, theirs)


def _unbound(body: bytes) -> bytes:
    """AuthenticationSASL without ways that are bound to TLS; every other way of asking as it is."""
    if body.startswith(SASL):
        names = [name for name in body.removeprefix(SASL).split(b"\0") if name and not name.endswith(b"-PLUS")]
        body = SASL + b"".join(name + b"\0" for name in names) + b"\0"
    return b"R" + struct.pack("!i", len(body) + 4) + body


async def _pump(source: Line, target: Line) -> None:
    while chunk := await source[0].read(CHUNK_BYTES):
        target[1].write(chunk)
        await target[1].drain()


async def _connect(where: Address, host: str, port: int) -> Line:
    """Raises OSError, and Untrusted, which is one."""
    assert where.trust is not None
    context = where.trust.context(PROTOCOL)
    bare = await asyncio.to_thread(socket.create_connection, (host, port), CONNECT_S_MAX)
    try:
        bare.setblocking(False)  # noqa: FBT003 (socket's own)
        if where.is_direct or await _has_tls(bare, where):
            return await asyncio.open_connection(sock=bare, ssl=context, server_hostname=host)
        where.tell_open()
        return await asyncio.open_connection(sock=bare)
    except BaseException:
        bare.close()
        raise


async def _has_tls(bare: socket.socket, where: Address) -> bool:
    """Raises Untrusted where it has none and must."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(bare, _ASKS_FOR_TLS)
    answer = await loop.sock_recv(bare, 1)
    if answer == b"S":
        return True
    if answer != b"N":
        raise Untrusted(f"{where.name} does not speak as Postgres does")
    if where.mode != "prefer":
        raise Untrusted(f"{where.name} has no TLS, and sslmode={where.mode} asks for it")
    return False


def _refusal(reason: str) -> bytes:
    """Postgres' ErrorResponse: https://www.postgresql.org/docs/18/protocol-error-fields.html."""
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", "08001"), (b"M", reason))
    )
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"
