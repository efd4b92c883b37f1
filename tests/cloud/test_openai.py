"""A request as it goes to an API like OpenAI's, and its answer."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.cloud import bodies
from server.cloud.client import Client, Waits, Wire
from server.cloud.openai import OpenAIProvider, Passing
from server.cloud.protocol import Counted, Provider
from server.errors import EngineFailed, InvalidRequest
from tests.clocks import FakeClock
from tests.cloud.wires import HELLO, LARGE, ask, composed, provider, request, said, told
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL, Cloud, openai_event

TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "Finds", "parameters": {"type": "object"}, "strict": True, "x": 1},
    "x": 1,
}
SCHEMA = {"name": "age", "schema": {"type": "object"}, "strict": True, "x": 1}
# What leaves of them is here; whatever else is in a request does not.
FULL: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "seed": 7,
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "stop": ["END"],
    "max_tokens": 50,
    "parallel_tool_calls": False,
    "tool_choice": {"type": "function", "function": {"name": "look_up"}},
    "reasoning_effort": "low",
}
# Extensions of engines, and fields that say who asks or where it is kept.
DROPPED = (
    *("cache_salt", "wirthforge", "user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "top_k", "min_p", "repetition_penalty", "ignore_eos", "return_token_ids", "id_slot"),
    *("cache_prompt", "priority", "request_id", "chat_template_kwargs", "extra_body", "stream_options"),
)
SECRET = "ann@example.com"


def far_at(url: str) -> OpenAIProvider:
    """One that is never asked."""
    return OpenAIProvider(Client("far", url, {}, wire=Wire(), clock=FakeClock(), waits=Waits()))


FAR = far_at("https://far.example/v1")


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """A provider's stand-in."""
    async with cloud_provider.serve() as running:
        yield running


@pytest.fixture
async def far(cloud: Cloud) -> AsyncIterator[Provider]:
    """What speaks to it."""
    async with provider(cloud.url) as found:
        yield found


def test_a_request_as_it_leaves() -> None:
    """The model's own name, streamed, with usage and a bound; fields that every provider knows as they are."""
    assert composed(FAR) == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent = composed(FAR, **FULL, tools=[TOOL], response_format={"type": "json_schema", "json_schema": SCHEMA})
    function = {"name": "look_up", "description": "Finds", "parameters": {"type": "object"}, "strict": True}
    assert sent == composed(FAR) | FULL | {
        "tools": [{"type": "function", "function": function}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "age", "schema": {"type": "object"}, "strict": True},
        },
    }


def test_messages_as_they_leave() -> None:
    """Text, calls of tools and their results; of a message nothing but what it says."""
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a", "x": 1}, {"type": "text", "text": "b"}],
            "name": "ann",
        },
        {"role": "assistant", "content": None, "tool_calls": [call | {"index": 0}], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "found", "name": "look_up"},
        {"role": "assistant", "content": "yes", "tool_call_id": "no"},
    ]
    assert composed(FAR, messages=messages)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "assistant", "content": "yes"},
    ]


def test_openai_itself_gets_its_own_names() -> None:
    """Its models refuse the older name of the bound, and know developers; nobody else gets these."""
    own = composed(far_at("https://api.openai.com/v1"), messages=[{"role": "developer", "content": "x"}])
    assert own["max_completion_tokens"] == 1000
    assert "max_tokens" not in own
    assert own["messages"][0]["role"] == "developer"
    other = composed(far_at("https://notopenai.com/v1"))
    assert other["max_tokens"] == 1000


@pytest.mark.parametrize(
    ("asked", "bound"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 5000}, 1000),
        ({"max_tokens": None}, 1000),
        ({"max_tokens": 0}, 1000),
        ({"max_tokens": True}, 1000),
        ({"max_tokens": "10"}, 1000),
    ],
)
def test_an_answer_has_a_bound(asked: dict[str, Any], bound: int) -> None:
    """What the request says, and never more than the model's."""
    assert composed(FAR, **asked)["max_tokens"] == bound


@pytest.mark.parametrize("name", DROPPED)
def test_what_only_an_engine_knows_stays(name: str) -> None:
    """Neither its name nor what is in it leaves."""
    body = HELLO | {name: {"deep": [SECRET]}}
    assert FAR.compose(request(body), body, LARGE) == FAR.compose(request(HELLO), HELLO, LARGE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(SECRET),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.text() | st.sampled_from([*DROPPED, *FULL]), JSON, max_size=5))
def test_no_field_that_nobody_knows_leaves(extra: dict[str, Any]) -> None:
    """Whatever a request holds beside its messages: the body's fields are those of the list, or it stays."""
    known = {"model", "messages", "max_tokens", "stream", "stream_options", "tools", "response_format", *FULL}
    body = extra | HELLO
    try:
        sent = json.loads(FAR.compose(request(body), body, LARGE))
    except InvalidRequest as error:
        assert error.code == bodies.NOT_FOR_CLOUD  # noqa: PT017 (a refusal is as good)
        return
    assert sent.keys() <= known
    unknown = {name: value for name, value in extra.items() if name not in known}
    assert FAR.compose(request(body), body, LARGE) == FAR.compose(
        request(body), {name: value for name, value in body.items() if name not in unknown}, LARGE
    )


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": {"text": "x"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": []},
        {"messages": "hi"},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "function": {"name": 1}}]},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}},
        {"response_format": {"type": "grammar"}},
        {"stop": [1]},
        {"stop": {"a": "b"}},
        {"guided_json": {"type": "object"}},
        {"structured_outputs": {"regex": "a"}},
        {"grammar": "root ::= x"},
        {"logit_bias": {"1": 2}},
        {"functions": [{"name": "x"}]},
        {"modalities": ["text", "audio"]},
        {"continue_final_message": True},
        {"temperature": float("nan"), "messages": [{"role": "user", "content": "\ud800"}]},
    ],
)
def test_what_would_be_lost_or_unseen_stays_local(fields: dict[str, Any]) -> None:
    """Pictures and files, into which nobody looks, and fields without which the answer would be another."""
    with pytest.raises(InvalidRequest) as found:
        composed(FAR, **fields)
    assert found.value.code == bodies.NOT_FOR_CLOUD
    assert "stays on the box" in found.value.message


def test_what_is_too_long_stays_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the model, or for any."""
    with pytest.raises(InvalidRequest, match="longer than"):
        FAR.compose(request(HELLO, input_tokens=100), HELLO, replace(LARGE, context_tokens=100))
    assert FAR.compose(request(HELLO, input_tokens=99), HELLO, replace(LARGE, context_tokens=100))
    monkeypatch.setattr(bodies, "BODY_BYTES_MAX", 50)
    with pytest.raises(InvalidRequest, match="no more than 50"):
        composed(FAR)


def test_only_chats_leave() -> None:
    """No completion and no embedding."""
    with pytest.raises(InvalidRequest, match="only chats"):
        FAR.compose(replace(request(HELLO), surface="embeddings"), HELLO, LARGE)


def test_a_model_gets_nothing_that_it_refuses() -> None:
    """What an admin named is left out, and the rest stays."""
    model = replace(LARGE, leaves_out=("temperature", "stream_options"))
    sent = composed(FAR, model, temperature=1, top_p=1)
    assert "top_p" in sent
    assert sent.keys().isdisjoint({"temperature", "stream_options"})


def test_composing_twice_gives_the_same_bytes() -> None:
    """What is examined is what is hashed is what is sent."""
    body = HELLO | FULL | {"tools": [TOOL]}
    assert len({FAR.compose(request(body), body, LARGE) for _ in range(5)}) == 1


async def test_a_stream_comes_as_it_is(far: Provider, cloud: Cloud) -> None:
    """With its usage, which is also told apart."""
    reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id="r")
    assert reply.usage is None
    events = await reply.read()
    assert said(events) == cloud.text
    assert reply.usage == Counted(7, 4)
    assert reply.body_bytes >= len(events)
    reply.close()


async def test_an_echo_is_an_answer(far: Provider, cloud: Cloud) -> None:
    """A provider may say what it was sent."""
    cloud.behaviour = cloud_provider.echoing
    text = "ä\u2028 <b>\\n data: [DONE]"
    assert said(await ask(far, messages=[{"role": "user", "content": text}])) == text


async def test_what_is_around_events_is_left_out(far: Provider, cloud: Cloud) -> None:
    """Comments, names of events, other line ends, several lines of data: clients get plain events."""
    begin = b': wait\r\n\r\nevent: x\r\ndata: {"choices": [{"index": 0,\r\ndata: "delta": {"content": "a"}}]}\r\n\r\n'
    rest = openai_event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]) + b"data:[DONE]\n\n"
    whole = begin + rest
    cloud.behaviour = cloud_provider.streaming(*(whole[at : at + 1] for at in range(len(whole))))
    assert said(await ask(far)) == "a"


async def test_a_whole_answer_may_lack_its_last_event(far: Provider, cloud: Cloud) -> None:
    """One that said how it ends is whole; it ends as all do."""
    cloud.behaviour = cloud_provider.streaming(
        openai_event(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}])
    )
    assert len(told(await ask(far))) == 1


async def test_what_comes_after_the_end_is_not_read(far: Provider, cloud: Cloud) -> None:
    """The last event ends it, whatever follows."""
    cloud.behaviour = cloud_provider.streaming(
        openai_event(choices=[]), b"data: [DONE]\n\n" + openai_event(choices=[{"delta": {"content": "more"}}])
    )
    assert said(await ask(far)) == ""


async def test_an_error_within_the_stream_is_a_fault(far: Provider, cloud: Cloud) -> None:
    """OpenRouter and others tell it so."""
    cloud.behaviour = cloud_provider.streaming(openai_event(error={"message": "x", "code": 502}))
    with pytest.raises(EngineFailed, match="far failed in the middle"):
        await ask(far)


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"completion_tokens": -1}, {"completion_tokens": True}, {"completion_tokens": 1 << 40}]
)
def test_a_count_that_is_none_is_not_believed(usage: object) -> None:
    """The answer goes on; nobody knows what it cost."""
    passing = Passing()
    passing.feed(json.dumps({"choices": [None, {}], "usage": usage}).encode())
    assert passing.usage is None
