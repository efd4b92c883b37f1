"""The meter: whatever the network does to the bytes, what is forwarded and what is counted stay the same."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.meter import DONE, Meter
from server.errors import EngineFailed
from tests.stand_ins.openai_engine import event, usage_event

USAGE = {"prompt_tokens": 11, "completion_tokens": 5}
# Texts that look like what the meter searches for.
TEXTS = st.sampled_from([" word", '"usage":{', "data: [DONE]", "\n\n", "\r\n", '{"error":1}', "ü€😀", ""])


def stream(texts: list[str]) -> list[bytes]:
    """A whole stream of these texts, event by event."""
    words = [event({"content": text}) for text in texts]
    return [event({"role": "assistant", "content": None}), *words, event({}, "stop"), usage_event(USAGE), DONE]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


@given(st.lists(TEXTS, max_size=8), st.lists(st.integers(min_value=0), max_size=30), st.booleans(), st.booleans())
def test_bytes_pass_unchanged_however_they_are_cut(
    texts: list[str], cuts: list[int], shows_usage: bool, has_carriage_returns: bool
) -> None:
    """The client gets every event but the hidden one, whole; counts are the engine's."""
    events = stream(texts)
    data = b"".join(events)
    if has_carriage_returns:
        data = data.replace(b"\n\n", b"\r\n\r\n")
    meter = Meter(shows_usage=shows_usage)
    forwarded = [meter.feed(piece) for piece in pieces(data, cuts)]
    forwarded.append(meter.end())
    assert b"".join(each for each in events if shows_usage or b'"choices": []' not in each) == b"".join(forwarded)
    assert all(part.endswith(b"\n\n") for part in forwarded if part)
    assert (meter.input_tokens, meter.output_tokens) == (11, 5)
    assert meter.has_first_token == any(texts)
    assert meter.is_complete


@given(st.lists(st.text(min_size=1), max_size=20), st.lists(st.integers(min_value=0), max_size=30))
def test_a_stream_that_is_cut_has_counted_its_tokens(texts: list[str], cuts: list[int]) -> None:
    """Without the engine's report, every event from the first token on is one token."""
    data = b"".join([event({"role": "assistant", "content": None}), *(event({"content": text}) for text in texts)])
    meter = Meter(shows_usage=False)
    for piece in pieces(data, cuts):
        meter.feed(piece)
    assert len(texts) == meter.output_tokens
    with pytest.raises(EngineFailed, match="middle"):
        meter.end()


@given(st.binary(max_size=300))
def test_rubbish_is_an_engine_fault_and_nothing_else(data: bytes) -> None:
    """Any bytes are forwarded or blamed on the engine; no other exception comes out."""
    meter = Meter(shows_usage=False)
    meter.feed(data)
    try:
        meter.end()
    except EngineFailed:
        return
    assert meter.is_complete


@pytest.mark.parametrize(
    "delta",
    [{"content": "x"}, {"reasoning_content": "x"}, {"reasoning": "x"}, {"tool_calls": [{"index": 0}]}],
)
def test_thoughts_and_tool_calls_are_first_tokens_too(delta: dict[str, object]) -> None:
    """The first token is whatever the model says first."""
    meter = Meter(shows_usage=False)
    meter.feed(event({"role": "assistant"}))
    assert not meter.has_first_token
    meter.feed(event(delta))
    assert meter.has_first_token
    assert meter.output_tokens == 1


def test_comments_are_forwarded_and_not_counted() -> None:
    """Keep-alive comments reach the client and are no tokens."""
    meter = Meter(shows_usage=False)
    ping = b": ping\n\n"
    meter.feed(event({"content": "x"}))
    assert meter.feed(ping + event({"content": "y"}) + ping) == ping + event({"content": "y"}) + ping
    assert meter.output_tokens == 2


def test_an_error_event_ends_the_stream() -> None:
    """An engine that reports an error in mid-stream has failed."""
    meter = Meter(shows_usage=False)
    meter.feed(event({"content": "x"}))
    last = event({"content": "y"})
    assert meter.feed(last + b'data: {"error":{"message":"out of memory"}}\n\n') == last
    with pytest.raises(EngineFailed, match="failed in the middle"):
        meter.end()


def test_done_is_added_where_an_engine_forgets_it() -> None:
    """A stream with a finish reason is complete, and ends for the client as OpenAI's do."""
    for is_at_once in (True, False):
        meter = Meter(shows_usage=False)
        events = [event({"content": "x"}), event({"content": "y"}), event({}, "length")]
        for piece in [b"".join(events)] if is_at_once else events:
            meter.feed(piece)
        assert meter.end() == DONE


def test_an_endless_event_is_not_collected() -> None:
    """Memory is bounded: an engine that never ends an event has failed."""
    meter = Meter(shows_usage=False)
    fed = 0
    while meter.fault is None:
        meter.feed(b"data: " + b"x" * (1 << 20))
        fed += 1
    assert fed == 4


@pytest.mark.parametrize("count", [-1, 1 << 40, "7", None, 1.5, True])
def test_absurd_counts_are_not_believed(count: object) -> None:
    """Our own count stays where the engine's is no count, and it stays a number."""
    meter = Meter(shows_usage=True)
    for _ in range(3):
        meter.feed(event({"content": "x"}))
    details = {"cached_tokens": count}
    usage = {"completion_tokens": count, "prompt_tokens": count, "prompt_tokens_details": details}
    meter.feed(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    assert (meter.output_tokens, meter.input_tokens, meter.cached_tokens) == (3, None, 0)
    assert type(meter.output_tokens) is int
