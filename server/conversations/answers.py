"""Answers that run in this replica: asked, followed, stopped, and finished when the server ends.

begin (rows) ─► task ─┬─ stream: councils ─► running ─► readers
├─ checkpoints ─► row
└─ end ─► row, until Postgres takes it
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from server.chat.pipeline import Identify
from server.chat.telling import error_event, fault_of, told
from server.clock import Clock
from server.conversations.ids import id_after
from server.conversations.recorder import Recorder
from server.conversations.running import Ending, Running
from server.council.service import Councils
from server.deadline import first_of
from server.errors import InvalidRequest, TooMany, Unavailable
from server.messages import ModelRequest, Principal, Surface

CHECKPOINT_MS = 2_000
RETRY_MS = 1_000
# How long a question waits for the row of the answer that it follows.
RECORDED_MS_MAX = 5_000
# Answers of one person that may run at a time, in one replica.
RUNNING_MAX = 8
# What the server sets itself, and what an answer that is stored as text cannot hold.
OURS = ("model", "messages", "stream", "stream_options")
# Of a conversation of which nothing may leave this box (server/privacy/modes.py).
PRIVATE = "private"
NOT_TEXT = ("tools", "functions", "audio", "logprobs", "top_logprobs")

log = structlog.get_logger(__name__)

Parse = Callable[[Surface, bytes, UUID], ModelRequest]


class Asked(Struct, frozen=True, kw_only=True):
    """A question as its person asks it.

    Attributes:
        parent_id: what it follows; without a text, the question that is to be answered once more.
        options: fields of a chat completion.
    """

    conversation_id: UUID
    parent_id: UUID | None
    question: str | None
    model: str
    options: Mapping[str, Any]


class Answers:
    """The answers of one replica.

    Args:
        parse: checks a body of /v1/chat/completions.
        grace_ms: how long answers may go on when the server is asked to end.
    """

    def __init__(self, councils: Councils, recorder: Recorder, *, parse: Parse, clock: Clock, grace_ms: int) -> None:
        self._councils = councils
        self._recorder = recorder
        self._parse = parse
        self._clock = clock
        self._grace_ms = grace_ms
        self._running: dict[UUID, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held: Counter[UUID] = Counter()
        self._is_closing = False

    async def ask(self, principal: Principal, identify: Identify, asked: Asked) -> Running:
        """Ask, and give the answer that has begun to run; it goes on whatever happens to the caller.

        Raises:
            TooMany: RUNNING_MAX answers of this person run.
            WirthforgeError: any fault of the request; later ones are the answer's end.
        """
        if self._is_closing:
            raise _closing()
        if self._held[principal.id] >= RUNNING_MAX:
            raise TooMany(
                f"{RUNNING_MAX} of your answers are running. Wait for one of them, or stop one.",
                code="too_many_answers",
                retry_after_s=5,
            )
        self._held[principal.id] += 1
        beginning = asyncio.create_task(self._begin(principal, identify, asked))
        self._tasks.add(beginning)
        beginning.add_done_callback(self._tasks.discard)
        return await asyncio.shield(beginning)

    async def _begin(self, principal: Principal, identify: Identify, asked: Asked) -> Running:
        """Write the rows, and start. Nobody cancels it: a row without its answer would look like one that runs."""
        conversation_id, parent_id = asked.conversation_id, asked.parent_id
        try:
            await self._wait_for_row(parent_id)
            messages, cloud = await self._recorder.context(principal.id, conversation_id, parent_id, asked.question)
            now, before = self._clock.now(), [each for each in (conversation_id, parent_id) if each is not None]
            question_id = parent_id if asked.question is None else id_after(now, *before)
            assert question_id is not None, "there is a question"
            answer_id = id_after(now, *before, question_id)
            running = Running(answer_id, question_id, conversation_id, principal.id, self._clock)
            request = self._parse("chat.completions", _body(asked.model, messages, asked.options), running.id)
            request = _of_conversation(request, conversation_id, cloud)
            await self._recorder.begin(running, asked.model, parent_id=parent_id, question=asked.question)
        except BaseException:
            self._release(principal.id)
            raise
        running.introduce()
        self._running[running.id] = running
        running.task = self._start(self._stream(running, principal.name, request, identify), name="answer")
        _ = self._start(self._drive(running, running.task), name="record")
        return running

    async def _wait_for_row(self, message_id: UUID | None) -> None:
        """What follows an answer that just came to its end is asked before its row says so."""
        before = None if message_id is None else self._running.get(message_id)
        if before is not None and before.ending is not None:
            await first_of(asyncio.ensure_future(before.is_recorded.wait()), self._clock, RECORDED_MS_MAX)

    async def _stream(self, running: Running, name: str, request: ModelRequest, identify: Identify) -> None:
        """The answer itself. Ends whenever it is cancelled, and says as what."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=str(running.id), user=name)
        try:
            async with AsyncExitStack() as stack:
                error = await told(running.write, lambda tell: self._councils.answer(request, identify, stack, tell))
        except asyncio.CancelledError:
            if running.cancelled_as == "interrupted":
                running.add(error_event(_closing()))
            running.end(running.cancelled_as, _closing().message if running.cancelled_as == "interrupted" else None)
            return
        if error is None:
            running.end("complete")
        else:
            running.add(error_event(error))
            running.end("failed", error.message)

    async def _drive(self, running: Running, streaming: asyncio.Task[None]) -> None:
        """Write it down while it runs, and at its end."""
        try:
            while not await first_of(streaming, self._clock, CHECKPOINT_MS):
                try:
                    if not await self._recorder.checkpoint(running):
                        running.cancel("stopped")
                except Exception as error:  # noqa: BLE001 (the answer goes on, and the next one may do)
                    log.warning("an answer's checkpoint was left out", answer=str(running.id), error=repr(error))
            if not streaming.cancelled() and (bug := streaming.exception()) is not None:
                running.add(error_event(fault := fault_of(bug)))
                running.end("failed", fault.message)
            elif running.ending is None:  # cancelled before it began to run
                running.end(running.cancelled_as)
            await self._written(running)
        finally:
            running.is_recorded.set()
            self._running.pop(running.id, None)
            self._release(running.user_id)

    async def _written(self, running: Running) -> None:
        """The last word, repeated until Postgres takes it."""
        is_away = False
        while not running.is_removed:
            try:
                await self._recorder.end(running)
            except Unavailable as error:
                if not is_away:
                    log.warning("an answer waits to be written", answer=str(running.id), reason=error.message)
                is_away = True
                if self._is_closing:
                    log.error("the end of an answer is lost", answer=str(running.id))
                    return
                await self._clock.sleep_ms(RETRY_MS)
            except Exception as error:  # noqa: BLE001
                # Nothing that a retry could mend: its row stays as the last checkpoint left it.
                log.error("an answer cannot be written", answer=str(running.id), error=type(error).__name__)
                return
            else:
                return

    def find(self, answer_id: UUID, user_id: UUID) -> Running | None:
        """One that runs here, if it is this person's."""
        running = self._running.get(answer_id)
        return None if running is None or running.user_id != user_id else running

    def conversations_of(self, user_id: UUID) -> set[UUID]:
        """Where answers of this person run."""
        return {each.conversation_id for each in self._running.values() if each.user_id == user_id}

    def running_in(self, user_id: UUID, conversation_id: UUID) -> dict[UUID, Running]:
        """The answers of a conversation that run here, by id."""
        found = [each for each in self._running.values() if each.conversation_id == conversation_id]
        return {each.id: each for each in found if each.user_id == user_id}

    async def remove(self, user_id: UUID, conversation_id: UUID) -> None:
        """Stop all answers of a conversation that is about to be removed; nothing more is written of them."""
        found = list(self.running_in(user_id, conversation_id).values())
        for running in found:
            running.is_removed = True
        await self._cancelled(found, "stopped")

    async def stop(self, running: Running) -> None:
        """Stop one, and wait until it has ended and its row says so. Its text stays."""
        await self._cancelled([running], "stopped")
        await first_of(asyncio.ensure_future(running.is_recorded.wait()), self._clock, RECORDED_MS_MAX)

    async def run(self) -> None:
        """Until the server is asked to end: then let answers end, as far as they can."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Let answers come to their end, for a while; then end them, and have their rows written."""
        self._is_closing = True
        streams = {each.task for each in self._running.values() if each.task is not None}
        if streams:
            whole = asyncio.ensure_future(asyncio.wait(streams))
            if not await first_of(whole, self._clock, self._grace_ms):
                log.warning("answers are interrupted by the end of the server", count=len(self._running))
            whole.cancel()
        while self._tasks:
            for running in self._running.values():
                running.cancel("interrupted")
            await asyncio.wait(set(self._tasks))

    async def _cancelled(self, found: list[Running], why: Ending) -> None:
        for running in found:
            running.cancel(why)
        if tasks := [each.task for each in found if each.task is not None]:
            await asyncio.wait(tasks)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _release(self, user_id: UUID) -> None:
        self._held[user_id] -= 1
        if self._held[user_id] <= 0:
            del self._held[user_id]


def _closing() -> Unavailable:
    return Unavailable("The server is being stopped. Try again soon.", code="shutting_down", retry_after_s=5)


def _of_conversation(request: ModelRequest, conversation_id: UUID, cloud: str | None) -> ModelRequest:
    """The request; of a private conversation a private one, whose way is another from the start."""
    wish = replace(request.cloud, conversation_id=conversation_id)
    return replace(request, cloud=replace(wish, mode=PRIVATE) if cloud == PRIVATE else wish)


def _body(model: str, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> bytes:
    """The request as /v1/chat/completions would get it. Raises InvalidRequest."""
    for name in OURS:
        if name in options:
            raise InvalidRequest(f"options: {name} is not among them; the server sets it.", param=f"options.{name}")
    for name in NOT_TEXT:
        if options.get(name):
            raise InvalidRequest(
                f"options: a conversation holds text; ask /v1/chat/completions for {name}.", param=f"options.{name}"
            )
    if options.get("n") not in {None, 1}:
        raise InvalidRequest("options: a question gets one answer at a time.", param="options.n")
    return msgspec.json.encode(
        {**options, "model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    )
