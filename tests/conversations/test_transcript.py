"""What is taken out of the bytes of a stream."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.conversations.transcript import Transcript


def _data(message: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def _chunk(delta: dict[str, Any], reason: str | None = None, **ours: Any) -> bytes:
    more = {"wirthforge": ours} if ours else {}
    return _data({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def _told(event: dict[str, Any], text: str = "") -> bytes:
    delta = {"content": text} if text else {"reasoning_content": "once more"}
    return _chunk(delta, council=event)


ALLOCATED = {
    "type": "allocated",
    "id": "c",
    "strategy": "council-k",
    "wanted": 2,
    "size": 2,
    "reason": "2 of 2.",
    "binding": "wanted",
    "steps": [],
    "members": [{"label": "A", "model": "a", "engine": "e"}, {"label": "B", "model": "b", "engine": "f"}],
    "chair": "a",
}


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(), min_size=1), max_size=8), st.integers(1, 5))
def test_the_text_is_the_same_however_it_is_fed(texts: list[str], pieces: int) -> None:
    """Whole events in any number at a time; what Postgres cannot hold is replaced."""
    events = [_chunk({"content": text}) for text in texts]
    transcript = Transcript()
    for begin in range(0, len(events), pieces):
        transcript.read(b": a comment\n\n" + b"".join(events[begin : begin + pieces]), 5)
    whole = "".join(texts)
    assert "\0" not in transcript.content
    transcript.content.encode()
    if not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in whole):
        assert transcript.content == whole
    assert transcript.output_tokens == len(texts)


def test_it_keeps_what_the_end_tells() -> None:
    """Usage, why it ended, when the first token came; thoughts by themselves."""
    transcript = Transcript()
    transcript.read(_chunk({"role": "assistant", "content": None}), 3)
    transcript.read(_chunk({"reasoning_content": "hm"}), 7)
    transcript.read(_chunk({"content": "yes"}) + _chunk({}, "stop"), 9)
    transcript.read(_data({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}), 10)
    transcript.read(b"data: [DONE]\n\n", 10)
    assert (transcript.content, transcript.thinking, transcript.finish_reason) == ("yes", "hm", "stop")
    assert (transcript.first_token_ms, transcript.input_tokens, transcript.output_tokens) == (7, 11, 4)
    assert transcript.council is None


@settings(deadline=None)
@given(st.binary(max_size=200), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_nothing_that_an_engine_sends_breaks_it(raw: bytes, value: Any) -> None:
    """What cannot be read is left out."""
    transcript = Transcript()
    transcript.read(b"data: " + raw.replace(b"\n\n", b"") + b"\n\n", 1)
    for shape in ({"choices": value}, {"choices": [value]}, {"choices": [{"delta": value}]}, {"usage": value}):
        transcript.read(_data(shape), 1)
    for event in (value, {"type": value}, {"type": "text", "label": value}, {"type": "allocated", "members": value}):
        transcript.read(_told(event), 1)
    transcript.read(_chunk({"content": "well"}), 2)
    assert transcript.content.endswith("well")


def test_a_council_is_kept_as_its_summary_says() -> None:
    """Before there is one, in the same shape; texts of members are parts of their own."""
    transcript = Transcript()
    transcript.read(_told(ALLOCATED), 1)
    for label, state in (("A", "waiting"), ("B", "answering")):
        told = {"type": "member", "label": label, "model": label.lower(), "role": "member", "state": state}
        transcript.read(_told(told), 1)
    transcript.read(_told({"type": "text", "label": "B", "role": "member", "text": "bee"}), 2)
    transcript.read(_told({"type": "text", "label": "B", "role": "member", "text": "hm", "is_thought": True}), 2)
    council = transcript.council
    assert council is not None
    assert (council["type"], council["size"], council["verdict"]) == ("summary", 2, None)
    assert [(each["label"], each["state"]) for each in council["members"]] == [("A", "waiting"), ("B", "answering")]
    assert [(part.label, part.model, part.text) for part in transcript.parts] == [("A", "a", ""), ("B", "b", "bee")]
    assert transcript.thinking == ""
    verdict = {"type": "verdict", "method": "vote", "agreement": 1.0, "opinions": [], "reason": "All say so."}
    summary = {**ALLOCATED, "type": "summary", "verdict": verdict, "members": [], "usage": {}}
    transcript.read(_told(summary), 3)
    council = transcript.council
    assert council is not None
    assert (council["verdict"]["method"], council["members"], council["type"]) == ("vote", [], "summary")


def test_an_answer_that_begins_again_is_the_second_one() -> None:
    """As our client shows it."""
    transcript = Transcript()
    transcript.read(_told(ALLOCATED), 1)
    transcript.read(_chunk({"content": "the first"}) + _chunk({"content": "\n\n[The answer broke off.]\n\n"}), 2)
    again = {"type": "content", "text": "the second", "is_restart": True}
    transcript.read(_told(again, "the second"), 3)
    assert transcript.content == "the second"


def test_a_member_may_speak_again() -> None:
    """In another round it is another part; an answer is given once."""
    transcript = Transcript()
    transcript.read(_told(ALLOCATED), 1)
    for text in ("once", "twice"):
        for told in (
            {"type": "member", "state": "answering"},
            {"type": "text", "text": text},
            {"type": "member", "state": "done", "usage": {"completion_tokens": 2}},
        ):
            transcript.read(_told({**told, "label": "A", "model": "a", "role": "debate"}), 1)
    assert [(part.text, part.state, part.output_tokens) for part in transcript.parts] == [
        ("once", "done", 2),
        ("twice", "done", 2),
    ]
