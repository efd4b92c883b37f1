"""Walking the whole of a body."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.privacy.payload import DEPTH_MAX, Part, TooDeep, parts_of, with_texts

BODY: dict[str, Any] = {
    "model": "some-model",
    "seed": 1234567890,
    "messages": [
        {"role": "system", "content": "You answer Petra."},
        {"role": "user", "name": "Petra", "content": [{"type": "text", "text": "Hello"}]},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"who": "Otto"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Otto lives next door."},
        {"role": "user", "content": [{"type": "file", "file": {"filename": "letter to Otto.pdf"}}]},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "description": "Finds neighbours of Petra",
                "parameters": {
                    "type": "object",
                    "properties": {"petra_phone": {"type": "string", "default": 491701234567}},
                },
            },
        }
    ],
}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_every_place_of_a_body_is_walked() -> None:
    """System prompt, history, names, tool calls, tool results, descriptions, keys, file names and long numbers."""
    texts = {part.text for part in parts_of(BODY)}
    assert {
        "some-model", "You answer Petra.", "Petra", "Hello", "look_up", '{"who": "Otto"}', "Otto lives next door.",
        "letter to Otto.pdf", "Finds neighbours of Petra", "petra_phone", "491701234567", "c1",
    } == texts  # fmt: skip


def test_words_of_the_wire_format_are_no_parts() -> None:
    """Roles, types and settings hold nothing of anybody's; the same words elsewhere do."""
    assert parts_of({"messages": [{"role": "user", "content": "user"}], "seed": 12345678}) == (
        Part(("messages", 0, "content"), "user"),
    )
    assert parts_of({"role": "boss of Otto"}) == (Part(("role",), "boss of Otto"),)


@given(body=st.dictionaries(st.text(), _JSON, max_size=4))
def test_no_string_is_left_out_but_those_of_the_format(body: dict[str, Any]) -> None:
    """Whatever the body, replacing all parts by nothing leaves only prescribed words and short numbers."""
    parts = parts_of(body)
    changed = with_texts(body, parts, [f"#{index}" for index in range(len(parts))])
    assert all(part.is_key or part.text.startswith("#") for part in parts_of(changed))


@given(body=st.dictionaries(st.text(), _JSON, max_size=4))
def test_unchanged_texts_give_the_same_body(body: dict[str, Any]) -> None:
    """Putting back what was taken out changes nothing."""
    parts = parts_of(body)
    assert with_texts(body, parts, [part.text for part in parts]) == body


def test_texts_are_put_back_where_they_came_from() -> None:
    """A changed text, key or number stands at its place; a changed number becomes a string."""
    parts = parts_of(BODY)
    changed = with_texts(
        BODY, parts, [part.text.replace("Petra", "P1").replace("petra", "p1").replace("49", "0") for part in parts]
    )
    text = json.dumps(changed)
    assert "etra" not in text
    assert changed["messages"][1]["name"] == "P1"
    assert changed["tools"][0]["function"]["parameters"]["properties"]["p1_phone"]["default"] == "01701234567"
    assert changed["seed"] == BODY["seed"]


def test_two_keys_never_become_one() -> None:
    """Where a replacement would make two fields the same, it is refused instead of losing one."""
    body = {"arguments": {"Anna": 1, "Berta": 2}}
    with pytest.raises(ValueError, match="same name"):
        with_texts(body, parts_of(body), ["X", "X"])


def test_a_body_without_end_is_refused() -> None:
    """Nesting beyond the bound is a fault, not a recursion error."""
    body: dict[str, Any] = {}
    for _ in range(DEPTH_MAX + 2):
        body = {"x": body}
    with pytest.raises(TooDeep):
        parts_of(body)


def test_what_is_no_json_is_refused() -> None:
    """Bytes, sets and objects cannot be in a body; overlooking them would be worse."""
    with pytest.raises(TypeError):
        parts_of({"content": b"Petra"})
