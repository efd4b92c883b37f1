"""Stand-ins that listen and keep every byte: what a thief on the line would have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

# https://www.postgresql.org/docs/18/protocol-message-formats.html (SSLRequest)
ASKS_FOR_TLS = bytes.fromhex("0000000804d2162f")


class Listener:
    """One on a port of its own.

    Attributes:
        port: where it listens.
        heard: all that was sent to it, one entry for a connection.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.port = 0
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer, and hang up when they go on with anything but their wish for TLS."""
        index = len(self.heard)
        self.heard.append(b"")
        with suppress(OSError):
            while chunk := await reader.read(4096):
                self.heard[index] += chunk
                writer.write(self._answer)
                if self.heard[index] != ASKS_FOR_TLS:
                    break
        writer.close()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[Listener]:
    """Listen, and say `answer` to whatever comes first."""
    listener = Listener(answer)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
