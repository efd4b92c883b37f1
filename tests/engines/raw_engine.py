"""An engine that answers with whatever bytes a test wants, in the packets a test wants."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.clock import SystemClock

# Between packets, so that they arrive as such.
PACKET_MS = 2


@dataclass
class Raw:
    """What it says, by path; anything else is a 404.

    Attributes:
        hold: after the last packet the connection stays open until it is set; set by default.
        gone: set when a client hangs up while the connection is held.
    """

    answers: dict[str, Sequence[bytes]] = field(default_factory=dict)
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.hold.set()

    def paths(self) -> list[str]:
        """Where it was asked."""
        return [head.split()[1] for head, _ in self.seen]


def reply(body: bytes, status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


MODELS = reply(b'{"object":"list","data":[{"id":"raw","object":"model"}]}')
# Ends where the connection ends, as in HTTP/1.0.
STREAM_BEGUN = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@asynccontextmanager
async def serve_raw(**answers: Sequence[bytes]) -> AsyncIterator[Raw]:
    """Run one; `models`, `props` and `chat` are its pages."""
    paths = {"models": "/v1/models", "props": "/props", "chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}
    raw = Raw({paths[name]: packets for name, packets in answers.items()})
    raw.answers.setdefault("/v1/models", [MODELS])
    clock = SystemClock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next((line for line in head.lower().split("\r\n") if line.startswith("content-length:")), ":0")
            raw.seen.append((head, await reader.readexactly(int(length.split(":")[1]))))
            for packet in raw.answers.get(head.split()[1], [reply(b"", "404 Not Found")]):
                writer.write(packet)
                await writer.drain()
                await clock.sleep_ms(PACKET_MS)
            await _held(raw, reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            raw.gone.set()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield raw
    finally:
        raw.hold.set()
        server.close()


async def _held(raw: Raw, reader: asyncio.StreamReader) -> None:
    if raw.hold.is_set():
        return
    holding = asyncio.create_task(raw.hold.wait())
    leaving = asyncio.create_task(reader.read(1))
    await asyncio.wait([holding, leaving], return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        raw.gone.set()
    for task in (holding, leaving):
        task.cancel()
    await asyncio.wait([holding, leaving])
