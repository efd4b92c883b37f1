"""Looking through texts off the event loop, in pieces, through every view.

Regular expressions hold the interpreter while they match. So the work is done in a worker thread, on pieces so small
that the event loop gets its turn between them, and it stops at the next piece when nobody waits for it any more. Pieces
overlap by more than the longest form that is looked for, so that nothing is missed where the text was cut.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Event
from typing import TypeVar

from server.privacy.findings import Finding, Kind, Unclear
from server.privacy.normalised import TooWrapped, views
from server.privacy.payload import Part

T = TypeVar("T")

# Code points that one call looks at, and how many of them the next one sees again.
PIECE = 8192
OVERLAP = 1024
# More threads would only wait for the interpreter.
THREADS = 2


@dataclass(frozen=True, slots=True)
class Match:
    """Something found in one piece of text; positions are the piece's."""

    kind: Kind
    type: str
    start: int
    end: int
    score: float


Look = Callable[[str], Iterable[Match]]


class Stopped(Exception):
    """Nobody waits for the result any more."""


async def in_thread(work: Callable[[Event], T]) -> T:
    """What `work` returns; it runs in a thread, and its event is set when the caller goes away."""
    stop = Event()
    try:
        return await asyncio.get_running_loop().run_in_executor(_workers(), work, stop)
    finally:
        stop.set()


def looked_through(name: str, parts: Sequence[Part], look: Look, stop: Event) -> list[Finding]:
    """What `look` finds in all views of `parts`, at positions of the original.

    Raises:
        Unclear: something is wrapped too deeply; carries what was found.
        Stopped: `stop` was set meanwhile.
    """
    found: set[Finding] = set()
    reason: str | None = None
    for index, part in enumerate(parts):
        if stop.is_set():
            raise Stopped
        try:
            readings = views(part.text)
        except TooWrapped as fault:
            reason = str(fault)
            continue
        for view in readings:
            for offset, piece in pieces(view.text):
                if stop.is_set():
                    raise Stopped
                for match in look(piece):
                    start, end = view.span(offset + match.start, offset + match.end)
                    found.add(Finding(match.kind, match.type, index, start, end, name, match.score))
    if reason is not None:
        raise Unclear(reason, found)
    return sorted(found, key=lambda one: (one.part, one.start, one.end, one.type))


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """`text` in pieces that overlap, with their offsets; each is cut after white space where there is some."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        blank = max(text.rfind(sign, start + PIECE - OVERLAP // 2, end) for sign in (" ", "\n"))
        end = end if blank < 0 else blank + 1
        yield start, text[start:end]
        again = end - OVERLAP
        blank = max(text.find(sign, again, again + OVERLAP // 2) for sign in (" ", "\n"))
        start = again if blank < 0 else blank + 1
    yield start, text[start:]


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="privacy")
