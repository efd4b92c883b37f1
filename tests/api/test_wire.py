"""What the server reads of a request."""

from uuid import uuid4

import msgspec
import pytest

from server.api.wire import ANSWERS_MAX, parse
from server.errors import InvalidRequest
from server.messages import Surface


@pytest.mark.parametrize(
    ("surface", "field", "content", "total", "longest"),
    [
        ("embeddings", "input", "a" * 400, 100, 100),
        ("embeddings", "input", ["a" * 400] * 32, 3_200, 100),
        ("embeddings", "input", [1, 2, 3], 3, 3),
        ("completions", "prompt", [[1, 2, 3], [4]], 4, 3),
        ("completions", "prompt", ["a" * 40, "b" * 80], 30, 20),
        ("chat.completions", "messages", [{"role": "user", "content": "a" * 400}] * 2, 200, 200),
    ],
)
def test_a_batch_is_as_long_as_its_longest_text(
    surface: Surface, field: str, content: object, total: int, longest: int
) -> None:
    """All of it is accounted for, and each text by itself must fit the context."""
    request = parse(surface, msgspec.json.encode({"model": "m", field: content}), uuid4())
    assert (request.input_tokens, request.longest_input_tokens) == (total, longest)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["a"] * (ANSWERS_MAX + 1)},
        {"prompt": "a", "best_of": ANSWERS_MAX + 1},
        {"prompt": ["a", "b"], "n": ANSWERS_MAX},
    ],
)
def test_one_slot_is_no_crowd(body: dict[str, object]) -> None:
    """A request that would fill the engine by itself is refused, with the number it may have."""
    with pytest.raises(InvalidRequest, match=f"one request may have {ANSWERS_MAX}"):
        parse("completions", msgspec.json.encode({"model": "m", **body}), uuid4())


def test_names_of_pictures_do_not_reach_engines() -> None:
    """By such a name a request could see a picture that somebody else has sent."""
    picture = {"type": "image_url", "uuid": "theirs", "image_url": {"url": "data:,", "content_hash": "theirs"}}
    message = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, picture]}
    request = parse("chat.completions", msgspec.json.encode({"model": "m", "messages": [message]}), uuid4())
    part = request.body["messages"][0]["content"][1]
    assert part == {"type": "image_url", "image_url": {"url": "data:,"}}
