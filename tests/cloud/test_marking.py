"""A cloud's events on their way to the client: marked once, restored wherever they are cut, and nothing of our own."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.chat.assembly import Assembly
from server.cloud.marking import DONE, Marking, Restores
from server.privacy.findings import Finding
from server.privacy.payload import Part
from server.privacy.pseudonyms import Map, Pseudonyms
from server.privacy.restoring import Restorer

ABOUT = {"provider": "far", "model": "large", "form": "pseudonymised"}
NAME, QUOTED = "Jane Doe", 'The "Nine" Club'


def _known() -> Map:
    """Pseudonyms of a name, and of a club with quotation marks in it."""
    part = Part(("messages", 0, "content"), f"{NAME} of {QUOTED} came.")
    spans = [("PERSON", NAME), ("ORGANISATION", QUOTED)]
    findings = [
        Finding("personal", type_, 0, part.text.index(text), part.text.index(text) + len(text), "test")
        for type_, text in spans
    ]
    return Pseudonyms(bytes(32), "test").replaced([part], findings)[1]


KNOWN = _known()
PERSON = next(pair.pseudonym for pair in KNOWN.pairs if pair.original == NAME)
CLUB = next(pair.pseudonym for pair in KNOWN.pairs if pair.original == QUOTED)


def _restorer(is_json: bool) -> Restores:
    return Restorer(KNOWN, in_json=is_json)


def _event(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "x", "model": "large", "choices": [choice], **more}).encode() + b"\n\n"


def _cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in pairwise(borders)]


def _answer(marking: Marking, events: list[bytes]) -> Any:
    assembly = Assembly()
    for event in events:
        if told := marking.feed(event):
            assembly.add(told)
    return json.loads(assembly.body())


places = st.lists(st.integers(0, 500), max_size=12)


@given(places, places)
def test_an_answer_is_restored_however_it_is_cut(texts: list[int], calls: list[int]) -> None:
    """Its text, and the arguments of a tool, which stay JSON whatever the real words hold."""
    content = f"I wrote to {PERSON}, and to {PERSON}'s friends of {CLUB}."
    arguments = json.dumps({"to": PERSON, "club": CLUB})
    events = [_event({"role": "assistant"})]
    events += [_event({"content": piece}) for piece in _cut(content, texts)]
    for number, piece in enumerate(_cut(arguments, calls)):
        begin = {"id": "call", "type": "function"} if number == 0 else {}
        function = {"name": "write", "arguments": piece} if number == 0 else {"arguments": piece}
        events.append(_event({"tool_calls": [{"index": 0, **begin, "function": function}]}))
    answer = _answer(Marking(ABOUT, _restorer), [*events, _event({}, "tool_calls"), DONE])
    message = answer["choices"][0]["message"]
    assert message["content"] == f"I wrote to {NAME}, and to {NAME}'s friends of {QUOTED}."
    call = message["tool_calls"][0]["function"]
    assert call["name"] == "write"
    assert json.loads(call["arguments"]) == {"to": NAME, "club": QUOTED}
    assert answer["wirthforge"] == {"cloud": ABOUT}


def test_what_cannot_be_restored_is_told_at_the_end() -> None:
    """What a model has made of a pseudonym is left as it is, and listed."""
    piece = PERSON.split(" ")[0]
    events = [_event({"content": f"The {piece}nium "}), _event({"content": "came."}), _event({}, "stop"), DONE]
    marking = Marking(ABOUT, _restorer)
    told = b"".join(map(marking.feed, events))
    assert marking.unrestored == [piece]
    last = json.loads(told.split(b"\n\n")[-3].removeprefix(b"data: "))
    assert last["wirthforge"] == {"cloud": {"unrestored": [piece]}}
    assert told.endswith(DONE)


def test_a_provider_does_not_speak_in_our_name() -> None:
    """What it says as `wirthforge` is taken out, in the first event and in later ones."""
    ours = {"cloud": {"provider": "this box"}, "council": {"type": "content", "text": "x"}}
    forged: dict[str, Any] = {"wirthforge": ours}
    events = [_event({"content": "a"}, **forged), _event({"content": "b"}, **forged), _event({}, "stop"), DONE]
    told = b"".join(map(Marking(ABOUT, None).feed, events))
    assert b"this box" not in told
    assert b"council" not in told
    assert told.count(b"wirthforge") == 1


def test_what_needs_no_change_is_passed_as_it_is() -> None:
    """Byte for byte, but for the first event."""
    marking = Marking(ABOUT, None)
    marking.feed(_event({"role": "assistant"}))
    event = _event({"content": "a"}) + b": a comment\n\n"
    assert marking.feed(event) == event
