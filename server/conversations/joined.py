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
from server.upkeep.restoring import Archive


@dataclass(frozen=True, slots=True)
class Joined:
    """What handlers ask for by name, and what runs as the server does; it is stopped before all that it needs."""

    parts: dict[str, object]
    run: Callable[[], Coroutine[Any, Any, None]]


def conversations_of(
    councils: Councils, parse: Parse, archive: Archive, *, database: Database, clock: Clock, settings: Settings
) -> Joined:
    """The conversations of one replica.

    Args:
        parse: checks a body of /v1/chat/completions.
        archive: where old messages are; a conversation's are brought back before it is read.
    """
    recorder = Recorder(database, clock, archive, context_bytes_max=settings.request_bytes_max)
    answers = Answers(councils, recorder, parse=parse, clock=clock, grace_ms=settings.shutdown_grace_ms)
    parts = {
        "answers": answers,
        "conversations": Conversations(database, answers, recorder, archive, clock),
        "exporter": Exporter(database, archive),
        "importer": Importer(database, clock),
        "listing": Listing(database),
    }
    return Joined(parts, answers.run)
