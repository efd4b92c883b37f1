"""Everything that conversations need, joined: for the composition root (server/app.py)."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from server.clock import Clock
from server.conversations.answers import Answers, Parse
from server.conversations.exporting import Exporter
from server.conversations.importing import Importer
from server.conversations.listing import Listing
from server.conversations.recorder import Recorder
from server.conversations.store import Conversations
from server.council.service import Councils
from server.db.session import Database
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Joined:
    """What handlers ask for by name, and what runs as the server does; it is stopped before all that it needs."""

    parts: dict[str, object]
    run: Callable[[], Coroutine[Any, Any, None]]


def conversations_of(
    councils: Councils, parse: Parse, *, database: Database, clock: Clock, settings: Settings
) -> Joined:
    """The conversations of one replica.

    Args:
        parse: checks a body of /v1/chat/completions.
    """
    recorder = Recorder(database, clock, context_bytes_max=settings.request_bytes_max)
    answers = Answers(councils, recorder, parse=parse, clock=clock, grace_ms=settings.shutdown_grace_ms)
    parts = {
        "answers": answers,
        "conversations": Conversations(database, answers, recorder, clock),
        "exporter": Exporter(database),
        "importer": Importer(database, clock),
        "listing": Listing(database),
    }
    return Joined(parts, answers.run)
