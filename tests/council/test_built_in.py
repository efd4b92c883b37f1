"""Councils of the built-in models in a real llama.cpp: what a stranger sees in the first minute."""

import asyncio
from typing import Any

import pytest

from server.embedded.llama import Llama
from tests.boxes import Box, Person
from tests.conftest import MakeBox, adapter

COUNCIL: Any = [{"role": "user", "content": "What is a council?"}]
PORT: Any = [{"role": "user", "content": "Which port does it use?"}]
MODELS = ("wirthforge-large", "wirthforge-middle", "wirthforge-small")


async def _ask(box: Box, person: Person, model: str, messages: Any) -> Any:
    async with box.openai(person) as client:
        return await client.chat.completions.create(model=model, messages=messages, max_tokens=64)


async def test_three_models_say_it_in_their_own_words_and_agree(built_in_box: Box) -> None:
    """The answer is right, nobody was asked twice, and no demonstration model is made a chair."""
    ann = await built_in_box.person("ann")
    answer = await _ask(built_in_box, ann, "council", COUNCIL)
    council = answer.wirthforge["council"]
    assert "several models" in answer.choices[0].message.content
    assert council["size"] == 3
    assert "3 models" in council["reason"]
    assert council["chair"] is None
    said = [each["text"] for each in council["members"] if each["state"] == "done"]
    assert len(said) >= 2
    assert len({each["model"] for each in council["members"]}) == len(council["members"]) == 3


async def test_a_checkable_question_comes_to_the_right_answer(built_in_box: Box) -> None:
    """All three know the port."""
    ann = await built_in_box.person("ann")
    answer = await _ask(built_in_box, ann, "council:3", PORT)
    assert "8000" in answer.choices[0].message.content
    assert answer.wirthforge["council"]["verdict"]["agreement"] > 0.5


@pytest.fixture
async def four(make_box: MakeBox, built_in: dict[str, Llama], wandering: Llama) -> Box:
    """Four models: three that know this server, and one that wanders for as long as it may."""
    engines = [adapter(llama, name=name) for name, llama in built_in.items()]
    return await make_box(engines=[*engines, adapter(wandering, name="w")])


async def test_four_people_ask_councils_of_four_models_at_once(four: Box) -> None:
    """Everybody is answered, by a council that fits, and every member's request has a row."""
    people = [await four.person(f"person{number}") for number in range(4)]
    questions = [
        [{"role": "user", "content": text}]
        for text in ("What is a council?", "What is a slot?", "How do I add a real model?", "Which port does it use?")
    ]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(
            *(_ask(four, person, "council:4", question) for person, question in zip(people, questions, strict=True))
        )
    calls = 0
    for answer in answers:
        council = answer.wirthforge["council"]
        assert answer.choices[0].message.content
        assert 1 <= council["size"] <= 4
        assert council["reason"].startswith(f"{council['size']} of 4: ")
        calls += sum(each["usage"] is not None for each in council["members"])
    rows = await four.usage(calls)
    assert len({row.council_id for row in rows}) == 4
    assert sum(row.role == "leader" for row in rows) == 4
