"""The local model that looks for personal data, asked as an ordinary request of whoever's text it is.

It goes through the pipeline like any other: in the asker's flow and within their limits, with a lease and a usage row
of its own. On the engine that is full it would wait behind the request that it is asked for, and time out; so it is of
use on another one (docs/cloud.md).
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from server.chat.assembly import answer_object
from server.chat.pipeline import Identify, Way
from server.clock import Clock
from server.cloud.deciding import ByModel
from server.errors import EngineFailed
from server.messages import CloudWish, ModelRequest
from server.privacy.detectors.model import ModelDetector
from server.privacy.findings import Detector

ROLE = "privacy"
# As many as spans of a long text take.
OUTPUT_TOKENS_MAX = 1024
CHARACTERS_PER_TOKEN = 4

Ask = Callable[[list[dict[str, str]], Mapping[str, Any]], Awaitable[str]]


def looking(plain: Way, clock: Clock, new_id: Callable[[], UUID]) -> ByModel:
    """Makes the detector for one request.

    Args:
        plain: the pipeline; what is looked for must not leave on the way.
    """

    def detector(model: str, timeout_ms: int, request: ModelRequest, identify: Identify) -> Detector:
        return ModelDetector(asking(plain, model, request, identify, new_id), model, timeout_ms, clock)

    return detector


def asking(plain: Way, model: str, request: ModelRequest, identify: Identify, new_id: Callable[[], UUID]) -> Ask:
    """Asks a model of this box in the name of whoever sent `request`; whoever cancels it ends its request."""

    async def ask(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> str:
        async with AsyncExitStack() as stack:
            answer = await plain.answer(_request(model, messages, schema, request, new_id()), identify, stack)
            return _content(answer.body, model)

    return ask


def _request(
    model: str, messages: list[dict[str, str]], schema: Mapping[str, Any], request: ModelRequest, request_id: UUID
) -> ModelRequest:
    tokens = sum(-(-len(message["content"]) // CHARACTERS_PER_TOKEN) for message in messages)
    form = {"type": "json_schema", "json_schema": {"name": "spans", "strict": True, "schema": dict(schema)}}
    body = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": OUTPUT_TOKENS_MAX,
        "response_format": form,
    }
    return ModelRequest(
        id=request_id,
        surface="chat.completions",
        model=model,
        body=body,
        is_stream=False,
        wants_usage=True,
        input_tokens=tokens,
        longest_input_tokens=tokens,
        output_tokens_max=OUTPUT_TOKENS_MAX,
        council_id=request.council_id,
        role=ROLE,
        cloud=CloudWish(mode="private"),
    )


def _content(body: bytes, model: str) -> str:
    """What it said. Raises EngineFailed."""
    choices = answer_object(body, model).get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise EngineFailed("The detection model gave no text.")
    return content
