"""A request as it goes to Anthropic's API, and its answer."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.chat.assembly import Assembly
from server.cloud import bodies
from server.cloud.anthropic import VERSION, AnthropicProvider, Translating
from server.cloud.client import Client, Waits, Wire
from server.cloud.events import Events, StreamBroken
from server.cloud.protocol import Counted, Provider
from server.errors import EngineFailed, InvalidRequest
from tests.clocks import FakeClock
from tests.cloud.wires import HELLO, KEY, LARGE, ask, composed, provider, request, said, told
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL, Cloud, anthropic_event, anthropic_events

FAR = AnthropicProvider(Client("far", "https://far.example/v1", {}, wire=Wire(), clock=FakeClock(), waits=Waits()))
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Finds", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """A provider's stand-in."""
    async with cloud_provider.serve() as running:
        yield running


@pytest.fixture
async def far(cloud: Cloud) -> AsyncIterator[Provider]:
    """What speaks to it."""
    async with provider(cloud.url, "anthropic") as found:
        yield found


def text(words: str) -> list[dict[str, str]]:
    """A message's content."""
    return [{"type": "text", "text": words}]


def test_a_request_as_it_leaves() -> None:
    """The bound of the answer is required there, the rest is the same by other names."""
    assert composed(FAR) == {
        "model": MODEL,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": text("hi")}],
        "stream": True,
    }
    sent = composed(FAR, temperature=1.5, top_p=0.5, stop="END", max_completion_tokens=5, seed=1, user="ann", top_k=3)
    assert sent == composed(FAR) | {"max_tokens": 5, "temperature": 1.0, "stop_sequences": ["END"]}
    assert composed(FAR, top_p=0.5)["top_p"] == 0.5
    assert "temperature" not in composed(FAR, replace(LARGE, leaves_out=("temperature",)), temperature=1)


def test_messages_as_they_leave() -> None:
    """System messages are one field; results of tools are one turn; nothing is sent that has no text."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}], "name": "ann"},
        {"role": "assistant", "content": "Look:", "tool_calls": [CALL, CALL | {"id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        {"role": "developer", "content": text("Be kind.")},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "b"},
    ]
    sent = composed(FAR, messages=messages)
    assert sent["system"] == "Be brief.\n\nBe kind."
    used = {"type": "tool_use", "name": "look_up", "input": {"a": 1}}
    assert sent["messages"] == [
        {"role": "user", "content": text("a")},
        {"role": "assistant", "content": [*text("Look:"), used | {"id": "c1"}, used | {"id": "c2"}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": text("one")},
                {"type": "tool_result", "tool_use_id": "c2", "content": []},
            ],
        },
        {"role": "user", "content": text("b")},
    ]


CHOICES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({}, None),
    ({"tool_choice": "auto"}, {"type": "auto"}),
    ({"tool_choice": "none"}, {"type": "none"}),
    ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ({"tool_choice": "required"}, {"type": "any"}),
    ({"tool_choice": {"type": "function", "function": {"name": "look_up"}}}, {"type": "tool", "name": "look_up"}),
    ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
    ({"parallel_tool_calls": True}, None),
]


@pytest.mark.parametrize(("fields", "choice"), CHOICES)
def test_tools_as_they_leave(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    """Functions are tools with a schema, and who chooses among them is told."""
    sent = composed(FAR, tools=[TOOL], **fields)
    schema = {"type": "object", "properties": {}}
    assert sent["tools"] == [{"name": "look_up", "description": "Finds", "input_schema": schema}]
    assert sent.get("tool_choice") == choice


def test_the_form_of_the_answer_as_it_leaves() -> None:
    """A schema and an effort go into its own field for both."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    sent = composed(FAR, response_format=form, reasoning_effort="minimal")
    assert sent["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}},
        "effort": "low",
    }
    assert "output_config" not in composed(FAR, reasoning_effort="none", response_format={"type": "text"})


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"stop": [" \n"]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "system", "content": "alone"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "x", "arguments": "{"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "x", "arguments": "[]"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example"}}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"logit_bias": {"1": 1}},
    ],
)
def test_what_it_cannot_do_stays_local(fields: dict[str, Any]) -> None:
    """Instead of being left out without a word."""
    with pytest.raises(InvalidRequest) as found:
        composed(FAR, **fields)
    assert found.value.code == bodies.NOT_FOR_CLOUD


NAMES = ("user", "metadata", "thinking", "container", "inference_geo", "service_tier", "mcp_servers", "cache_control")


@given(
    extra=st.dictionaries(
        st.text() | st.sampled_from(NAMES), st.text() | st.integers() | st.lists(st.text()), max_size=5
    )
)
def test_no_field_that_nobody_knows_leaves(extra: dict[str, Any]) -> None:
    """Whatever a request holds beside its messages, also fields of Anthropic's own: it gets what is on the list."""
    body = extra | HELLO
    mapped = {"max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "reasoning_effort"}
    try:
        sent = FAR.compose(request(body), body, LARGE)
    except InvalidRequest as error:
        assert error.code == bodies.NOT_FOR_CLOUD  # noqa: PT017 (a refusal is as good)
        return
    assert sent == FAR.compose(request(HELLO), HELLO, LARGE) or extra.keys() & mapped


async def test_the_key_and_the_version_are_headers(far: Provider, cloud: Cloud) -> None:
    """As its API has them, at its path."""
    await ask(far)
    [seen] = cloud.seen
    assert (seen.method, seen.path) == ("POST", "/v1/messages")
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, VERSION)
    assert "authorization" not in seen.headers


async def test_a_stream_becomes_openais(far: Provider) -> None:
    """Text by text, how it ended, and what was counted: once, at the end, and as its provider counted it."""
    reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id="r")
    chunks = told(await reply.read())
    reply.close()
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " from"},
        {"content": " far"},
        {"content": " away"},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("msg_far", MODEL, "chat.completion.chunk")
    }
    assert all(chunk["created"] > 1_700_000_000 for chunk in chunks)
    assert reply.usage == Counted(7, 4)


THINKING = [
    anthropic_event(
        "message_start",
        message={
            "id": "msg_1",
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 200,
                "cache_read_input_tokens": 3000,
                "output_tokens": 1,
            },
        },
    ),
    anthropic_event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
    anthropic_event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm, "}),
    anthropic_event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "well"}),
    anthropic_event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "AAAA"}),
    anthropic_event("content_block_stop", index=0),
    anthropic_event("content_block_start", index=1, content_block={"type": "redacted_thinking", "data": "AAAA"}),
    anthropic_event("content_block_start", index=2, content_block={"type": "text", "text": "I "}),
    anthropic_event("content_block_delta", index=2, delta={"type": "text_delta", "text": "look."}),
    anthropic_event("content_block_delta", index=2, delta={"type": "citations_delta", "citation": {}}),
    anthropic_event("something_new", index=7),
    anthropic_event(
        "content_block_start", index=3, content_block={"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}
    ),
    anthropic_event("content_block_delta", index=3, delta={"type": "input_json_delta", "partial_json": ""}),
    anthropic_event("content_block_delta", index=3, delta={"type": "input_json_delta", "partial_json": '{"a"'}),
    anthropic_event("content_block_delta", index=3, delta={"type": "input_json_delta", "partial_json": ": 1}"}),
    anthropic_event(
        "content_block_start", index=4, content_block={"type": "tool_use", "id": "t2", "name": "other", "input": {}}
    ),
    anthropic_event(
        "message_delta",
        delta={"stop_reason": "tool_use"},
        usage={"output_tokens": 900, "output_tokens_details": {"thinking_tokens": 800}},
    ),
    anthropic_event("message_stop"),
]


async def test_thoughts_and_calls_are_told_apart(far: Provider, cloud: Cloud) -> None:
    """Each where OpenAI's clients look for it; a prompt's tokens are all that were read, cached or not."""
    cloud.behaviour = cloud_provider.streaming(*THINKING)
    events = await ask(far)
    assembly = Assembly()
    assembly.add(events)
    answer = msgspec.json.decode(assembly.body())
    assert answer["choices"] == [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": "hm, well",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}},
                    {"id": "t2", "type": "function", "function": {"name": "other", "arguments": ""}},
                ],
            },
        }
    ]
    assert answer["usage"]["prompt_tokens"] == 3210
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3000}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 800}
    assert b"AAAA" not in events


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("of a later version", "stop"),
    ],
)
def test_how_an_answer_ended(reason: str, finish: str) -> None:
    """Every reason has one of OpenAI's."""
    translating = Translating(0)
    translating.feed(b'{"type": "message_start", "message": {}}')
    data = msgspec.json.encode({"type": "message_delta", "delta": {"stop_reason": reason}})
    assert f'"finish_reason":"{finish}"'.encode() in translating.feed(data)
    assert translating.usage is None


@given(cuts=st.lists(st.integers(1, 40), max_size=60))
def test_where_a_stream_is_cut_changes_nothing(cuts: list[int]) -> None:
    """Packets end anywhere; what is told is the same."""
    whole = b"".join(anthropic_events("Grüße aus der Ferne", (7, 4)))

    def translated(pieces: list[bytes]) -> bytes:
        events, translating = Events(), Translating(5)
        return b"".join(translating.feed(data) for piece in pieces for data in events.feed(piece))

    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    assert translated([*pieces, whole[at:]]) == translated([whole])
    assert said(translated([whole])) == "Grüße aus der Ferne"


@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_nothing_that_is_said_breaks_more_than_the_stream(data: bytes) -> None:
    """Rubbish is told as such, whatever it is."""
    try:
        assert Translating(0).feed(data) == b""
    except StreamBroken as error:
        assert "sent an event" in str(error)  # noqa: PT017 (nothing is as good)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda each: (
        st.lists(each, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "message",
                    "delta",
                    "usage",
                    "index",
                    "content_block",
                    "text",
                    "output_tokens",
                    "stop_reason",
                    "id",
                ]
            ),
            each | st.sampled_from(["text", "text_delta", "message_start", "tool_use", "input_json_delta"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)
KINDS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "error",
    "ping",
)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.dictionaries(
                st.sampled_from(["message", "delta", "usage", "index", "content_block", "error"]), ODD, max_size=4
            ),
        ),
        max_size=6,
    )
)
def test_events_of_odd_shapes_are_events_or_faults(events: list[tuple[str, dict[str, Any]]]) -> None:
    """What comes out is whole events of OpenAI's form."""
    translating = Translating(0)
    out = b""
    try:
        for kind, fields in events:
            out += translating.feed(msgspec.json.encode(fields | {"type": kind}))
    except StreamBroken:
        pass
    assert not out or (out.startswith(b"data: ") and out.endswith(b"\n\n"))


async def test_an_error_within_the_stream_says_which(far: Provider, cloud: Cloud) -> None:
    """By its name."""
    error = anthropic_event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    cloud.behaviour = cloud_provider.streaming(*anthropic_events("a b", None)[:4], error)
    with pytest.raises(EngineFailed, match=r"far failed in the middle of its answer \(overloaded_error\)"):
        await ask(far)


async def test_an_answer_without_its_end_is_not_whole(far: Provider, cloud: Cloud) -> None:
    """Also where the line is closed as it should be."""
    cloud.behaviour = cloud_provider.streaming(*anthropic_events("a b", (1, 1))[:-1])
    with pytest.raises(EngineFailed, match="stopped in the middle"):
        await ask(far)
