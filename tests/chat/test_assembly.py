"""The assembly: a stream put together is the answer that the engine would have given in one piece."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tiny_model
from server.chat.assembly import Assembly
from tests.boxes import Box
from tests.stand_ins.openai_engine import event


def assemble(*chunks: dict[str, Any]) -> dict[str, Any]:
    """The answer that these chunks make."""
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assembly.add(b"data: [DONE]\n\n")
    answer: dict[str, Any] = json.loads(assembly.body())
    return answer


@given(st.lists(st.text(), min_size=1))
def test_text_is_joined_in_order(texts: list[str]) -> None:
    """Whatever the pieces, the content is their sum."""
    assembly = Assembly()
    assembly.add(event({"role": "assistant", "content": None}))
    for text in texts:
        assembly.add(event({"content": text}))
    assembly.add(event({}, "stop"))
    answer = json.loads(assembly.body())
    assert answer["object"] == "chat.completion"
    message = {"role": "assistant", "content": "".join(texts)}
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "message": message}]


def test_tool_calls_grow_by_their_index() -> None:
    """Arguments come in pieces, and two calls may grow at once."""

    def call(index: int, **function: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": function}]}}]}

    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
    answer = assemble(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [first]}}]},
        call(0, arguments='{"a"'),
        call(1, name="walk", arguments="{}"),
        call(0, arguments=":1}"),
    )
    (choice,) = answer["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
        {"function": {"name": "walk", "arguments": "{}"}},
    ]


def test_choices_stay_apart_and_usage_is_the_last() -> None:
    """With n > 1 the pieces come mixed; usage and timings are not added up."""
    answer = assemble(
        {"choices": [{"index": 1, "delta": {"content": "b"}}], "usage": {"completion_tokens": 1}},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": {"completion_tokens": 2}},
        {"choices": [{"index": 1, "delta": {"content": "B"}, "logprobs": {"content": [{"token": "B"}]}}]},
        {"choices": [], "usage": {"completion_tokens": 3}},
    )
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["a", "bB"]
    assert answer["choices"][1]["logprobs"] == {"content": [{"token": "B"}]}
    assert answer["usage"] == {"completion_tokens": 3}


async def test_it_is_what_llama_cpp_answers_in_one_piece(llama_box: Box, llama: Any) -> None:
    """Asked directly and not streamed, llama.cpp gives the same answer, field by field, for chat and text."""
    ann = await llama_box.person("ann")
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": [{"role": "user", "content": "What is a slot?"}], "logprobs": True},
        "completions": {"prompt": "A lease is"},
    }
    async with llama_box.http() as client:
        for path, body in bodies.items():
            body |= {"model": tiny_model.NAME, "seed": 7, "temperature": 0.5, "max_tokens": 12}
            ours = (await client.post(f"/v1/{path}", json=body, headers=ann.bearer)).json()
            bearer = {"Authorization": f"Bearer {llama.api_key}"}
            theirs = (await client.post(f"{llama.base_url}/{path}", json=body, headers=bearer)).json()
            for answer in (ours, theirs):
                for volatile in ("id", "created", "timings"):
                    del answer[volatile]
                # What ann's last question left in the slot is hers, and nobody else's.
                del answer["usage"]["prompt_tokens_details"]
            assert theirs == ours
