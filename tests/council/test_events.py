"""Events as they stand on the wire, and the summary at the end."""

import msgspec

from server.council.events import Allocated, Event, Member, Seated, Summary, Text, Usage, summary_of
from server.council.strategies import BUILT_IN
from tests.council.scripts import Council, broken

ALLOCATED = Allocated(
    id="4b1c",
    strategy="duo",
    wanted=5,
    size=3,
    reason="3 of 5: somebody waits.",
    binding="waiting",
    steps=("smaller_council",),
    members=(Seated(label="A", model="m-one", engine="e", is_leader=True),),
    chair="m-one",
)


def test_an_event_is_an_object_that_says_its_type() -> None:
    """As the contract of the wire has it."""
    assert msgspec.to_builtins(ALLOCATED) == {
        "type": "allocated",
        "id": "4b1c",
        "strategy": "duo",
        "wanted": 5,
        "size": 3,
        "reason": "3 of 5: somebody waits.",
        "binding": "waiting",
        "steps": ("smaller_council",),
        "members": ({"label": "A", "model": "m-one", "engine": "e", "is_leader": True, "sample": 0},),
        "chair": "m-one",
    }
    assert msgspec.to_builtins(Text(label="A", text="x")) == {
        "type": "text",
        "label": "A",
        "text": "x",
        "role": "member",
        "is_thought": False,
    }
    line = Member(label="A", model="m", role="chair", state="done", usage=Usage(prompt_tokens=1, completion_tokens=2))
    assert msgspec.to_builtins(line) == {
        "type": "member",
        "label": "A",
        "model": "m",
        "role": "chair",
        "state": "done",
        "reason": None,
        "is_leader": False,
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cached_tokens": 0},
        "first_token_ms": None,
        "total_ms": None,
    }


async def test_what_is_told_can_be_read_again() -> None:
    """By whoever knows the types."""
    council = Council({"B": broken("half an")})
    await council.play(BUILT_IN["council-k"])
    assert {type(event).__name__ for event in council.events} == {"Member", "Text", "Content", "Verdict"}
    for event in council.events:
        assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


async def test_the_summary_adds_up_all_that_was_used() -> None:
    """Also by members that failed, and by the chair; texts are in it only where they are wanted."""
    council = Council({"A": broken("half an"), "chair": broken()}, ["m-one", "m-two"])
    conclusion = await council.play(BUILT_IN["council-k"])
    whole = summary_of(ALLOCATED, council.table.reports, conclusion.verdict, with_texts=True)
    assert whole.usage == Usage(prompt_tokens=20, completion_tokens=4)
    assert [(report.label, report.state, report.text) for report in whole.members] == [
        ("A", "failed", "half an "),
        ("B", "done", "Answer: 42 "),
    ]
    brief = summary_of(ALLOCATED, council.table.reports, conclusion.verdict, with_texts=False)
    assert [report.text for report in brief.members] == [None, None]
    assert isinstance(msgspec.json.decode(msgspec.json.encode(brief), type=Summary), Summary)
