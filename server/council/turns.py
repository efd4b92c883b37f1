"""One call on its way: where it stands, what it has said, and how it ends.

A turn is over when the table says so, not when its task has ended: whoever is stopped is over at once, and what its
engine or its context still does no longer matters to anybody. So one that does not let go cannot hold up a council.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from server.clock import Clock
from server.council.calls import Answer, Ask, Call, Ended, Said, Used
from server.council.events import OVER, Event, Member, Report, State, Text, Usage
from server.errors import WirthforgeError

ANSWER_CHARACTERS_MAX = 1_000_000
REVOKED = "revoked"
REASON_CHARACTERS_MAX = 300

log = structlog.get_logger(__name__)


class Turn:
    """A call, while it is made.

    Args:
        tell: every event, in order.
        changed: called when it begins to answer and when it is over.
        on_text: gets each piece of the answer instead of a `Text` event, where this is the final answer.
    """

    def __init__(
        self,
        call: Call,
        *,
        clock: Clock,
        tell: Callable[[Event], None],
        changed: Callable[[], None],
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.call = msgspec.structs.replace(call, on_wait=self._wait)
        self.state: State = "waiting"
        self.reason: str | None = None
        self.usage: Usage | None = None
        self.is_leader = call.is_leader
        self.is_cut = False
        self.error: WirthforgeError | None = None
        self.began_ms: int | None = None
        # When it last stood in a queue.
        self.queued_ms: int | None = None
        self.first_token_ms: int | None = None
        self.total_ms: int | None = None
        self._pieces: list[str] = []
        self._characters = 0
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._on_text = on_text or partial(self._tell_text, is_thought=False)
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in OVER

    @property
    def has_begun(self) -> bool:
        """Whether its first token is there."""
        return self.first_token_ms is not None

    @property
    def text(self) -> str:
        """What was said so far, without thoughts."""
        return "".join(self._pieces)

    def announce(self, reason: str | None = None) -> None:
        """Tell where it stands."""
        self._tell(
            Member(
                label=self.call.seat.label,
                model=self.call.seat.model,
                role=self.call.role,
                state=self.state,
                reason=reason,
                is_leader=self.is_leader,
                usage=self.usage,
                first_token_ms=self.first_token_ms,
                total_ms=self.total_ms,
            )
        )

    def lead(self, reason: str) -> None:
        """It leads from now on."""
        self.is_leader = True
        if self.began_ms is None:
            self.call = msgspec.structs.replace(self.call, is_leader=True)
        self.announce(reason)

    def start(self, ask: Ask) -> asyncio.Task[None]:
        """Make the call, in a task of its own, which never raises."""
        self.began_ms = self._clock.monotonic_ms()
        self._task = asyncio.create_task(self._run(ask))
        return self._task

    def end(self, state: State, reason: str | None = None) -> None:
        """It is over, in this state; its task is stopped. The first end counts."""
        if self.is_over:
            return
        self.state = state
        self.reason = None if reason is None else reason[:REASON_CHARACTERS_MAX]
        if self.began_ms is not None:
            self.total_ms = self._clock.monotonic_ms() - self.began_ms
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.announce(self.reason)
        self._changed()

    def answer(self) -> Answer:
        """What came of it."""
        return Answer(
            seat=self.call.seat,
            role=self.call.role,
            text=self.text,
            state=self.state,
            reason=self.reason,
            is_cut=self.is_cut,
            usage=self.usage,
            first_token_ms=self.first_token_ms,
            total_ms=self.total_ms,
        )

    def report(self) -> Report:
        """As the whole answer lists it."""
        seat = self.call.seat
        return Report(
            label=seat.label,
            model=seat.model,
            engine=seat.engine,
            role=self.call.role,
            state=self.state,
            reason=self.reason,
            text=self.text,
            usage=self.usage,
            first_token_ms=self.first_token_ms,
            total_ms=self.total_ms,
        )

    def _wait(self) -> None:
        self.queued_ms = self._clock.monotonic_ms()

    async def _run(self, ask: Ask) -> None:
        try:
            async with ask(self.call) as parts:
                async for part in parts:
                    if self.is_over:
                        return
                    self._take(part)
        except WirthforgeError as error:
            self.error = error
            self.end("revoked" if error.code == REVOKED else "failed", error.message)
        except asyncio.CancelledError:
            # Stopped by the table, which has said so, or by somebody outside.
            self.end("dropped", "It was stopped.")
        except Exception as error:
            log.exception("council member broke", model=self.call.seat.model)
            self.end("failed", f"It broke ({type(error).__name__}).")
        else:
            if self.text.strip():
                self.end("done")
            else:
                self.end("failed", "Its answer is empty.")

    def _take(self, part: Said | Used | Ended) -> None:
        match part:
            case Said():
                self._say(part)
            case Used():
                self.usage = part.usage
            case Ended():
                self.is_cut = part.reason == "length"

    def _say(self, said: Said) -> None:
        if not said.text:
            return
        if self.began_ms is not None and self.first_token_ms is None:
            self.first_token_ms = self._clock.monotonic_ms() - self.began_ms
            self.state = "answering"
            self.announce()
            self._changed()
        self._characters += len(said.text)
        if self._characters > ANSWER_CHARACTERS_MAX:
            raise WirthforgeError(f"It said more than {ANSWER_CHARACTERS_MAX} characters.", code="answer_too_long")
        if said.is_thought:
            self._tell_text(said.text, is_thought=True)
        else:
            self._pieces.append(said.text)
            self._on_text(said.text)

    def _tell_text(self, text: str, *, is_thought: bool) -> None:
        self._tell(Text(label=self.call.seat.label, text=text, role=self.call.role, is_thought=is_thought))
