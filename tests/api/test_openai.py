"""OpenAI's surface, through OpenAI's own client, in front of a real llama.cpp."""

import asyncio
from typing import Any

import openai
import pytest

from benchmarks import tiny_model
from tests.boxes import Box, Person

MODEL = tiny_model.NAME
QUESTION: Any = [{"role": "user", "content": "What is a council?"}]


@pytest.fixture
async def ann(llama_box: Box) -> Person:
    """Somebody with a key."""
    return await llama_box.person("ann")


async def test_models_are_listed_and_retrieved(llama_box: Box, ann: Person) -> None:
    """The model that the engine serves is the one that a client sees."""
    async with llama_box.openai(ann) as client:
        listed = [model.id async for model in client.models.list()]
        found = await client.models.retrieve(MODEL)
    assert listed == [MODEL, "council:self"]
    assert found.id == MODEL


async def test_a_conversation_is_answered_in_one_piece(llama_box: Box, ann: Person) -> None:
    """An answer comes with the engine's count, which is also what Postgres holds."""
    async with llama_box.openai(ann) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=QUESTION, seed=1)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    (row,) = await llama_box.usage(1)
    assert (row.input_tokens, row.output_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (row.user_id, row.model, row.engine, row.outcome) == (ann.user.id, MODEL, MODEL, "completed")
    assert row.key_id is not None


async def test_the_built_in_models_answer_to_the_question(built_in_box: Box) -> None:
    """Three are listed; each says what a council is, and that it knows nothing else."""
    ben = await built_in_box.person("ben")
    other: Any = [{"role": "user", "content": "What is the capital of France?"}]
    async with built_in_box.openai(ben) as client:
        listed = [model.id async for model in client.models.list()]
        models, councils = listed[:3], listed[3:]
        assert models == ["wirthforge-large", "wirthforge-middle", "wirthforge-small"]
        assert councils == ["council", "council:self"]
        for model in models:
            known = await client.chat.completions.create(model=model, messages=QUESTION, seed=1)
            unknown = await client.chat.completions.create(model=model, messages=other, seed=1)
            assert "several models" in str(known.choices[0].message.content)
            assert "demonstration model" in str(unknown.choices[0].message.content)
            assert {known.choices[0].finish_reason, unknown.choices[0].finish_reason} == {"stop"}


async def test_a_stream_shows_usage_only_to_those_who_asked(llama_box: Box, ann: Person) -> None:
    """Usage is always asked of the engine, and shown as OpenAI does."""
    async with llama_box.openai(ann) as client:
        quiet = [
            chunk async for chunk in await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        ]
        asked = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
        ]
    assert all(chunk.usage is None and chunk.choices for chunk in quiet)
    assert asked[-1].usage is not None
    assert asked[-1].choices == []
    first, second = await llama_box.usage(2)
    assert first.output_tokens > 0
    assert second.output_tokens == asked[-1].usage.completion_tokens
    assert second.first_token_ms is not None


async def test_a_text_is_continued(llama_box: Box, ann: Person) -> None:
    """The older completions surface works, streamed and not."""
    async with llama_box.openai(ann) as client:
        whole = await client.completions.create(model=MODEL, prompt="The box is", max_tokens=5)
        pieces = [
            chunk.choices[0].text
            async for chunk in await client.completions.create(
                model=MODEL, prompt="The box is", max_tokens=5, stream=True
            )
        ]
    assert whole.choices[0].text
    assert "".join(pieces)
    rows = await llama_box.usage(2)
    assert {row.surface for row in rows} == {"completions"}
    assert all(0 < row.output_tokens <= 5 for row in rows)


async def test_an_engine_without_embeddings_says_so(llama_box: Box, ann: Person) -> None:
    """What an engine cannot do is a 404 in the caller's shape."""
    async with llama_box.openai(ann) as client:
        with pytest.raises(openai.NotFoundError, match="embeddings"):
            await client.embeddings.create(model=MODEL, input="x")


async def test_embeddings_come_from_an_engine_that_has_them(box: Box) -> None:
    """Vectors are passed on, and their tokens counted."""
    ann = await box.person("ann")
    async with box.openai(ann) as client:
        answer = await client.embeddings.create(model="stand-in", input="a text", encoding_format="float")
    assert answer.data[0].embedding == [0.25, 0.5]
    (row,) = await box.usage(1)
    assert (row.surface, row.input_tokens, row.output_tokens) == ("embeddings", 2, 0)


async def test_the_prompt_that_does_not_fit_is_refused_with_the_reason(llama_box: Box, ann: Person) -> None:
    """The engine's own sentence reaches the caller, with OpenAI's code."""
    async with llama_box.openai(ann) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a" * 9_000}])
    assert caught.value.code == "context_length_exceeded"


async def test_everybody_has_the_whole_surface_at_once(llama_box: Box, ann: Person) -> None:
    """More requests than slots are all answered, each with a row."""
    async with llama_box.openai(ann) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=8) for _ in range(24))
        )
    assert all(answer.choices for answer in answers)
    assert len(await llama_box.usage(24)) == 24
