"""A council's events as OpenAI's clients read them."""

import json
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from server.council.events import Allocated, Content, Event, Joined, Member, Seated, Text
from server.council.wire import Encoder
from server.messages import ModelRequest

REQUEST = ModelRequest(
    id=UUID(int=7), surface="chat.completions", model="council:2", body={}, is_stream=True, wants_usage=True,
    input_tokens=1, longest_input_tokens=1,
)  # fmt: skip
ALLOCATED = Allocated(
    id="7", strategy="duo", wanted=2, size=2, reason="2 of 2: as many as were asked for.", binding="wanted",
    members=tuple(Seated(label=label, model=label.lower(), engine="e") for label in "AB"),
)  # fmt: skip


def _deltas(*events: Event) -> list[dict[str, Any]]:
    encoder = Encoder(REQUEST, 0)
    raw = b"".join(encoder.event(event) for event in (ALLOCATED, *events))
    return [json.loads(part.removeprefix(b"data: "))["choices"][0]["delta"] for part in raw.split(b"\n\n") if part]


def _thoughts(*events: Event) -> str:
    return "".join(delta.get("reasoning_content", "") for delta in _deltas(*events))


def _text(label: str, text: str) -> Text:
    return Text(label=label, text=text)


def _done(label: str) -> Member:
    return Member(label=label, model=label.lower(), role="member", state="done", total_ms=5)


def test_texts_never_mix() -> None:
    """The leader's is live, another's waits, and nothing of it is lost when it becomes live itself."""
    found = _thoughts(_text("A", "a1 "), _text("B", "b1 "), _text("A", "a2"), _done("A"), _text("B", "b2"), _done("B"))
    assert found == "[A · a]\na1 a2\n\n[B · b]\nb1 b2"


def test_who_ended_before_the_live_one_comes_as_a_block() -> None:
    """As soon as that one has ended; somebody who joined later has a name too."""
    joined = Joined(label="C", model="c", engine="e", reason="the first two disagree")
    found = _thoughts(_text("A", "a"), _text("B", "b"), _done("B"), joined, _done("A"), _text("C", "c"), _done("C"))
    assert found == "[A · a]\na\n\n[B · b]\nb\n\n[C · c]\nc"


def test_an_answer_that_begins_again_says_so() -> None:
    """Clients cannot take back what they have shown."""
    deltas = _deltas(Content(text="half an"), Content(text="whole", is_restart=True))
    content = "".join(delta.get("content", "") for delta in deltas)
    assert content.startswith("half an")
    assert "begins again" in content
    assert content.endswith("whole")


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["x", "y", "z "])), max_size=40), st.randoms())
def test_nothing_is_lost_or_mixed(said: list[tuple[str, str]], chance: Any) -> None:
    """However texts interleave: each member's whole text stands once, in one block, when all have ended."""
    labels = ["A", "B", "C"]
    chance.shuffle(labels)
    events: list[Event] = [_text(*each) for each in said]
    found = _thoughts(*events, *(_done(label) for label in labels))
    for label in labels:
        whole = "".join(text for speaker, text in said if speaker == label)
        if whole:
            assert found.count(f"[{label} · ") == 1
            assert f"]\n{whole}" in found
