"""Server-sent events (WHATWG HTML, section 9.2), as they come: what each holds. No more is kept than one event."""

from typing import Any

import msgspec

# One event holds a few words; with a whole call of a tool some hundred kilobytes.
EVENT_BYTES_MAX = 1024 * 1024
END = b"\n\n"
# A provider that claims more is not believed.
TOKENS_MAX = 1 << 31


class StreamBroken(Exception):
    """A stream that cannot go on: says what the provider did, in words that follow its name."""


class Events:
    """Cuts one stream."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece; comments and names of events are left out.

        Raises:
            StreamBroken: an event does not end.
        """
        self._rest += piece.replace(b"\r", b"")
        found: list[bytes] = []
        begin = 0
        while (end := self._rest.find(END, max(begin, self._searched - 1))) >= 0:
            if data := _data(bytes(self._rest[begin:end])):
                found.append(data)
            begin = end + len(END)
        del self._rest[:begin]
        self._searched = len(self._rest)
        if len(self._rest) > EVENT_BYTES_MAX:
            raise StreamBroken("sent a line without an end")
        return found


def _data(event: bytes) -> bytes:
    """Its data. Lines are joined by a space: only between the parts of JSON can there be a line's end."""
    lines = (line.removeprefix(b"data:").strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return b" ".join(line for line in lines if line)


def read(data: bytes) -> dict[str, Any]:
    """The object that an event holds. Raises StreamBroken."""
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamBroken("sent an event that is not JSON") from error
    if not isinstance(message, dict):
        raise StreamBroken("sent an event that is no object")
    return message


def event(message: object) -> bytes:
    """An event with this data."""
    return b"data: " + msgspec.json.encode(message) + END


def count_of(fields: object, name: str) -> int | None:
    """A number of tokens, if it is one."""
    value = fields.get(name) if isinstance(fields, dict) else None
    # JSON's true is an int to Python.
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX
    return value if is_count else None
