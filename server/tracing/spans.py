"""A span, as every part of the server sees it; this one is nothing, and is what there is while traces are off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, Self

from server.errors import WirthforgeError

Kind = Literal["server", "client", "internal"]
Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]

NO_HEADERS: Mapping[str, str] = {}


class Span:
    """Does nothing. As a context manager a span ends with its block, and fails with its fault.

    Attributes:
        is_on: whether anything of it is kept; what is only computed for it may be left out otherwise.
    """

    __slots__ = ()
    is_on = False

    def child(self, name: str, kind: Kind = "internal", attributes: Attributes | None = None) -> "Span":  # noqa: ARG002
        """A part of it that begins now. `name` is from a bounded set."""
        return self

    def past(self, name: str, took_ms: int, attributes: Attributes | None = None) -> None:
        """A part of it that took so long and ends now."""

    def note(self, name: str, value: Value) -> None:
        """Keep an attribute: one of names.py, and no text that anybody wrote."""

    def rename(self, name: str) -> None:
        """Call it so, once that is known."""

    def mark(self, name: str) -> None:
        """Keep that something happens now."""

    def fail(self, code: str) -> None:
        """It comes to no good end; `code` as of WirthforgeError."""

    def end(self) -> None:
        """It is over; a second time changes nothing, and so does all that is kept afterwards."""

    @property
    def age_s(self) -> float:
        """Seconds since it began."""
        return 0.0

    @property
    def headers(self) -> Mapping[str, str]:
        """What tells another program that it works for this span (W3C Trace Context)."""
        return NO_HEADERS

    @contextmanager
    def within(self) -> Iterator[None]:
        """Spans that are begun in the block, and in tasks that are, are parts of it. Not around a `yield`."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, WirthforgeError):
            self.fail(error.code)
        self.end()


NOTHING = Span()

_CURRENT: ContextVar[Span] = ContextVar("span", default=NOTHING)


def current() -> Span:
    """The span that what happens here is a part of."""
    return _CURRENT.get()
