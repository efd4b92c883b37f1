"""The way from a council's call to a model: one ordinary request.

Each call has an id, a lease and a usage row of its own, in the asker's flow. All but the leader's may be taken back for
somebody who waits. What the asker wrote for the engine (temperature, stop strings, bounds) holds for every member;
what only makes sense in one answer does not get this far (service.py refuses it).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from quotas.forecast import Standing
from server.chat.pipeline import Identify, Way
from server.council.calls import Ask, Call, Ended, Message, Part, Said, Used
from server.council.events import Role, Usage
from server.errors import EngineFailed
from server.messages import ModelRequest
from server.sharing.lease import Tell
from server.tracing import names
from server.tracing.spans import Span, current

# Between the counts of an answer that still grows.
USED_EVERY = 16
# Of the asker's body: what names the answer's form, and what each call sets itself.
OURS = frozenset(
    {"model", "messages", "prompt", "stream", "stream_options", "wirthforge", "seed", "max_tokens", "n"}
    | {"max_completion_tokens", "user", "metadata", "store"}
)
# What would keep a ranking or a judgement from being written.
FORM = frozenset({"response_format", "stop", "grammar", "json_schema", "structured_outputs", "guided_json"})
COUNTED: frozenset[Role] = frozenset({"rank", "judge"})
# With the engine's default a second sample of a small model is often the first again.
SAMPLE_TEMPERATURE = 0.8
CHARACTERS_PER_TOKEN = 4


def ask_through(
    way: Way,
    request: ModelRequest,
    identify: Identify,
    *,
    new_id: Callable[[], UUID],
    tell: Tell | None,
    on_headers: Callable[[Mapping[str, str]], None],
) -> Ask:
    """Calls in the name of whoever sent `request`.

    Args:
        tell: told where the leader stands while it waits.
        on_headers: told once for each call that has begun, what an answer of its own would have as headers.
    """

    def ask(call: Call) -> AbstractAsyncContextManager[AsyncIterator[Part]]:
        @asynccontextmanager
        async def answering() -> AsyncIterator[AsyncIterator[Part]]:
            async with AsyncExitStack() as stack:
                member = _request_of(call, request, new_id())
                span = stack.enter_context(_span(call, member))
                with span.within():
                    answer = await way.answer(member, identify, stack, _telling(call, tell))
                on_headers(answer.headers)
                assert answer.stream is not None, "it was asked to stream"
                async with aclosing(_parts(answer.stream)) as parts:
                    yield parts

        return answering()

    return ask


def _span(call: Call, member: ModelRequest) -> Span:
    """The span of a call: who sits there is a model that is served, and what it is to do one of our words."""
    seat = call.seat
    return current().child(
        f"invoke_agent {seat.model}",
        attributes={
            names.OPERATION: "invoke_agent",
            names.AGENT: seat.model,
            names.SEAT: seat.label,
            names.ROLE: member.role,
            names.REQUEST_ID: str(member.id),
        },
    )


def _telling(call: Call, tell: Tell | None) -> Tell | None:
    """Who is told where the call stands while it waits: of the leader the table, and the client if it streams."""
    if not call.is_leader:
        return None

    async def telling(standing: Standing, headers: Mapping[str, str]) -> None:
        if call.on_wait is not None:
            call.on_wait()
        if tell is not None:
            await tell(standing, headers)

    return telling


def _request_of(call: Call, request: ModelRequest, request_id: UUID) -> ModelRequest:
    most = call.output_tokens_max or request.output_tokens_max
    left_out = OURS | FORM if call.role in COUNTED else OURS
    body: dict[str, Any] = {name: value for name, value in request.body.items() if name not in left_out}
    body |= {"model": call.seat.model, "messages": list(call.messages), "stream": True}
    body["stream_options"] = {"include_usage": True}
    if most is not None:
        body["max_tokens"] = most
    seed = request.body.get("seed")
    if call.seed is not None:
        body["seed"] = call.seed
        if body.get("temperature") is None:
            body["temperature"] = SAMPLE_TEMPERATURE
    elif seed is not None:
        body["seed"] = seed
    tokens = sum(_tokens(message) for message in call.messages)
    return ModelRequest(
        id=request_id,
        surface="chat.completions",
        model=call.seat.model,
        body=body,
        is_stream=True,
        wants_usage=True,
        input_tokens=tokens,
        longest_input_tokens=tokens,
        output_tokens_max=most,
        is_revocable=request.is_revocable or not call.is_leader,
        council_id=request.id,
        role="leader" if call.is_leader and call.role == "member" else call.role,
        # A consent is to one exact body, so it is none to a member's.
        cloud=replace(request.cloud, consent="", takes_events=False),
    )


def _tokens(message: Message) -> int:
    return -(-len(str(message.get("content") or "")) // CHARACTERS_PER_TOKEN)


async def _parts(stream: AsyncIterator[bytes]) -> AsyncGenerator[Part, None]:
    """What whole events of a stream say. Raises what the stream raises."""
    tokens = 0
    async for events in stream:
        for event in events.split(b"\n\n"):
            data = event.removeprefix(b"data:").strip()
            if not event.startswith(b"data:") or data == b"[DONE]":
                continue
            for part in _read(data):
                yield part
                if isinstance(part, Said):
                    tokens += 1
                    if tokens % USED_EVERY == 0:
                        yield Used(Usage(completion_tokens=tokens))


def _read(data: bytes) -> list[Part]:
    try:
        message = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed("The engine sent an event that is no JSON object.") from error
    parts: list[Part] = []
    choices = message.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta")
        said = delta if isinstance(delta, dict) else {}
        thought = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(thought, str):
            parts.append(Said(thought, is_thought=True))
        if isinstance(text := said.get("content"), str) and text:
            parts.append(Said(text))
        if isinstance(reason := choice.get("finish_reason"), str):
            parts.append(Ended(reason))
    if isinstance(usage := message.get("usage"), dict):
        parts.append(Used(_usage(usage)))
    return parts


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
