"""A stand-in for a cloud provider, which records every byte that arrives.

It speaks OpenAI's chat completions and Anthropic's Messages API (the events of anthropic-sdk-python 0.121's recorded
answers) over a real socket, with nothing between the socket and the record: bytes that never become a request are
recorded as well, and so is a connection on which nothing was said. It obeys orders: how to answer, when to pause, how
to fail.

    async with cloud_provider.serve(Cloud()) as cloud:
        ... cloud.url ...                  # http://127.0.0.1:PORT/v1
        assert cloud.connections == []     # nobody came
        assert cloud.received == b""       # nothing was said
        assert cloud.bodies == [body]      # exactly these bytes
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

MODEL = "stand-in-large"
PIECE_BYTES = 1 << 16
OPENAI_PATH, ANTHROPIC_PATH, MODELS_PATH = "/v1/chat/completions", "/v1/messages", "/v1/models"


@dataclass
class Connection:
    """One that was opened; `received` is all that came on it, as it came."""

    received: bytearray = field(default_factory=bytearray)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    grew: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Seen:
    """A request; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, read."""
        told: dict[str, Any] = json.loads(self.body)
        return told


Behaviour = Callable[["Cloud", Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Cloud:
    """What the next requests get, and what all have brought.

    Attributes:
        text: what it says, word by word; "" for nothing.
        usage: prompt and answer, as it counts them; None: it does not say.
        behaviour: instead of an answer; see the functions below.
        held_after: this many words; then they wait for `hold`, which is set by default.
        began: set when a whole request is there.
        gone: set when a client hangs up before the end of its answer.
        witness: awaited with each request that has arrived, before anything is answered: what was true then?
        on_connection: called for each connection, at once.
        model: which it lists.
        faults: mistakes of a behaviour or a witness; raised at the end of `serve`.
    """

    text: str = "Hello from far away"
    usage: tuple[int, int] | None = (7, 4)
    behaviour: Behaviour | None = None
    held_after: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    witness: Callable[[Seen], Awaitable[None]] | None = None
    on_connection: Callable[[], None] | None = None
    model: str = MODEL
    connections: list[Connection] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.hold.set()

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(bytes(connection.received) for connection in self.connections)

    @property
    def bodies(self) -> list[bytes]:
        """Of whole requests that brought one, in order."""
        return [seen.body for seen in self.seen if seen.body]


# How it answers


def head(status: str = "200 OK", kind: str = "text/event-stream", **headers: str) -> bytes:
    """Status and headers of an answer in chunks; `_` stands for `-` in names."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Transfer-Encoding: chunked", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunk(piece: bytes) -> bytes:
    """A piece of such an answer; an empty one ends it."""
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def words(text: str) -> list[str]:
    """What is said in one event each."""
    return [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))] if text else []


def openai_event(**fields: Any) -> bytes:
    """One event of a chat stream."""
    frame = {"id": "chatcmpl-far", "object": "chat.completion.chunk", "created": 1795410963, "model": MODEL}
    return b"data: " + json.dumps(frame | fields).encode() + b"\n\n"


def openai_events(text: str, usage: tuple[int, int] | None) -> list[bytes]:
    """A whole answer of OpenAI's API: the frame, a word each, the frame."""

    def choice(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return openai_event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])

    events = [choice({"role": "assistant", "content": ""})]
    events += [choice({"content": word}) for word in words(text)]
    events.append(choice({}, "stop"))
    if usage is not None:
        told = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        events.append(openai_event(choices=[], usage=told))
    return [*events, b"data: [DONE]\n\n"]


def anthropic_event(kind: str, **fields: Any) -> bytes:
    """One event of Anthropic's stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def anthropic_events(text: str, usage: tuple[int, int] | None) -> list[bytes]:
    """A whole answer of Anthropic's API: the frame, a word each, the frame."""
    read, written = usage or (0, 0)
    message = {"id": "msg_far", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    counts = {"input_tokens": read, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    ends = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        anthropic_event("message_start", message=message | {"stop_reason": None, "usage": counts}),
        anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        anthropic_event("ping"),
        *(
            anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in words(text)
        ),
        anthropic_event("content_block_stop", index=0),
        anthropic_event("message_delta", delta=ends, usage={"output_tokens": written}),
        anthropic_event("message_stop"),
    ]


def events_of(seen: Seen, text: str, usage: tuple[int, int] | None) -> list[bytes]:
    """A whole answer in the API that was asked."""
    return (anthropic_events if seen.path == ANTHROPIC_PATH else openai_events)(text, usage)


async def say(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Write, and wait until it is on its way."""
    writer.write(b"".join(pieces))
    await writer.drain()


async def _answer(cloud: Cloud, seen: Seen, writer: asyncio.StreamWriter, text: str) -> None:
    await say(writer, head())
    said = 0
    for event in events_of(seen, text, cloud.usage):
        is_word = b'"text_delta"' in event or (b'"content": "' in event and b'"content": ""' not in event)
        if is_word and said >= cloud.held_after:
            await cloud.hold.wait()
        said += is_word
        await say(writer, chunk(event))
    await say(writer, chunk(b""))


async def answering(cloud: Cloud, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Says `cloud.text`, as it is then. What it does without orders."""
    await _answer(cloud, seen, writer, cloud.text)


async def echoing(cloud: Cloud, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Says the last message that it was sent, with all that is in it."""
    content = seen.json["messages"][-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    await _answer(cloud, seen, writer, text)


async def hanging(cloud: Cloud, _seen: Seen, _writer: asyncio.StreamWriter) -> None:
    """Says nothing at all, until `hold` is set (clear it before) or the client leaves."""
    await cloud.hold.wait()


def breaking_off(after: int = 2) -> Behaviour:
    """Cuts the line after so many words."""

    async def answer(cloud: Cloud, seen: Seen, writer: asyncio.StreamWriter) -> None:
        # The frame before the words: one event of OpenAI's, three of Anthropic's.
        frame = 3 if seen.path == ANTHROPIC_PATH else 1
        pieces = events_of(seen, cloud.text, cloud.usage)[: frame + after]
        await say(writer, head(), *map(chunk, pieces))

    return answer


def refusing(status: str, body: object = None, **headers: str) -> Behaviour:
    """Answers with an error: `refusing("429 Too Many Requests", Retry_After="7")`."""

    async def answer(_cloud: Cloud, _seen: Seen, writer: asyncio.StreamWriter) -> None:
        told = b"" if body is None else json.dumps(body).encode()
        await say(writer, head(status, "application/json", **headers), *([chunk(told)] if told else []), chunk(b""))

    return answer


def redirecting(url: str, status: str = "307 Temporary Redirect") -> Behaviour:
    """Sends its clients elsewhere, body and all."""
    return refusing(status, Location=url)


def streaming(*pieces: bytes) -> Behaviour:
    """Says exactly these bytes as its event stream, one chunk each, and ends well."""

    async def answer(_cloud: Cloud, _seen: Seen, writer: asyncio.StreamWriter) -> None:
        await say(writer, head(), *map(chunk, pieces), chunk(b""))

    return answer


def raw(*packets: bytes) -> Behaviour:
    """Writes these bytes and hangs up; nothing of HTTP is added."""

    async def answer(_cloud: Cloud, _seen: Seen, writer: asyncio.StreamWriter) -> None:
        await say(writer, *packets)

    return answer


garbage = raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n\x00\xff")


def endless(piece: bytes) -> Behaviour:
    """Repeats a piece of its stream for as long as somebody listens: `endless(b"x")` is a line without end."""

    async def answer(_cloud: Cloud, _seen: Seen, writer: asyncio.StreamWriter) -> None:
        several = piece * max(1, PIECE_BYTES // len(piece))
        await say(writer, head())
        while True:
            await say(writer, chunk(several))

    return answer


# What it does with a connection


async def _pump(connection: Connection, reader: asyncio.StreamReader) -> None:
    """Write down what comes, for as long as anything can."""
    with suppress(ConnectionError):
        while piece := await reader.read(PIECE_BYTES):
            connection.received += piece
            connection.grew.set()
    connection.gone.set()
    connection.grew.set()


async def _request(connection: Connection) -> Seen | None:
    """The request on a connection, or None where it ends without one."""

    async def until(found: Callable[[], bool]) -> bool:
        while not found():
            if connection.gone.is_set():
                return False
            connection.grew.clear()
            await connection.grew.wait()
        return True

    got = connection.received
    if not await until(lambda: b"\r\n\r\n" in got):
        return None
    top, _, _ = bytes(got).partition(b"\r\n\r\n")
    start, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    begin = len(top) + len(b"\r\n\r\n")
    assert "transfer-encoding" not in headers, "its length was to be told"
    end = begin + int(headers.get("content-length", "0"))
    if not await until(lambda: len(got) >= end):
        return None
    method, path, _ = start.split(" ", 2)
    return Seen(method, path, headers, bytes(got[begin:end]))


async def _serve(cloud: Cloud, connection: Connection, writer: asyncio.StreamWriter) -> None:
    seen = await _request(connection)
    if seen is None:
        return
    cloud.seen.append(seen)
    if seen.method == "POST":
        cloud.began.set()
        if cloud.witness is not None:
            await cloud.witness(seen)
    behaviour = cloud.behaviour or answering
    if cloud.behaviour is None and seen.path.partition("?")[0] == MODELS_PATH:
        behaviour = refusing("200 OK", {"object": "list", "data": [{"id": cloud.model, "object": "model"}]})
    elif cloud.behaviour is None and seen.path not in {OPENAI_PATH, ANTHROPIC_PATH}:
        behaviour = refusing("404 Not Found", {"error": {"message": "Not Found"}})
    await behaviour(cloud, seen, writer)


@asynccontextmanager
async def serve(cloud: Cloud | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Cloud]:
    """Run one on a free port of the loopback; `tls` makes it https."""
    cloud = cloud or Cloud()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection()
        cloud.connections.append(connection)
        if cloud.on_connection is not None:
            cloud.on_connection()
        pumping = asyncio.create_task(_pump(connection, reader))
        serving = asyncio.create_task(_serve(cloud, connection, writer))
        leaving = asyncio.create_task(connection.gone.wait())
        mine: Sequence[asyncio.Task[Any]] = (pumping, serving, leaving)
        tasks.update(mine)
        try:
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                cloud.gone.set()
        finally:
            for task in mine:
                task.cancel()
            results = await asyncio.gather(*mine, return_exceptions=True)
            tasks.difference_update(mine)
            writer.close()
            if isinstance(results[1], ConnectionError):
                cloud.gone.set()
            elif isinstance(results[1], Exception):
                cloud.faults.append(results[1])

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    cloud.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield cloud
    finally:
        cloud.hold.set()
        server.close()
        for task in tuple(tasks):
            task.cancel()
    if cloud.faults:
        raise cloud.faults[0]
