"""Models that do not fit together, from end to end: an Ollama that the server moves models on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import ollama_engine
from tests.stand_ins.ollama_engine import Model, Ollama

SMALL, LARGE = "small:latest", "large:latest"
FITS_ONE_BYTES = 1_500


@pytest.fixture
async def ollama() -> AsyncIterator[Ollama]:
    """Two models of 1000 bytes, and memory for one and a half."""
    ollama = Ollama([Model(SMALL), Model(LARGE)], memory_bytes=FITS_ONE_BYTES)
    async with ollama_engine.serve(ollama) as ollama.url:
        yield ollama


@pytest.fixture
async def box(make_box: MakeBox, settings: Settings, ollama: Ollama) -> Box:
    """A box on which an admin has registered it."""
    box = await make_box(replace(settings, models_memory_bytes=FITS_ONE_BYTES), engines=[])
    admin = await box.person("admin", "admin")
    spec = {"name": "o", "kind": "ollama", "url": ollama.url, "moves_models": True, "slots": 4}
    async with box.http(headers=admin.bearer) as client:
        answer = await client.post("/api/admin/engines", json=spec)
    assert answer.status_code == 201, answer.text
    # The test of the engine has loaded a model.
    ollama.loads.clear()
    return box


async def asked(box: Box, person: Person, model: str) -> int:
    """The status of a short question."""
    async with box.http(headers=person.bearer) as client:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        return (await client.post("/v1/chat/completions", json=body)).status_code


async def test_many_who_want_a_cold_model_cause_one_load(box: Box, ollama: Ollama) -> None:
    """It is loaded once, whoever asks, and all are answered; nobody holds a slot meanwhile."""
    people = [await box.person(name) for name in ("ann", "bob")]
    ollama.load.clear()
    questions = [asyncio.create_task(asked(box, person, LARGE)) for person in people * 3]
    async with asyncio.timeout(10):
        while LARGE not in ollama.loads:
            await box.clock.sleep_ms(10)
        async with box.http(headers=people[0].bearer) as client:
            share = (await client.get("/api/share")).json()
        ollama.load.set()
        assert await asyncio.gather(*questions) == [200] * 6
    assert ollama.loads == [LARGE]
    assert sum(engine["running"] for engine in share["engines"]) == 0


async def test_a_model_that_a_person_may_not_use_is_not_loaded_for_them(box: Box, ollama: Ollama) -> None:
    """The refusal comes before anything moves."""
    ann = await box.person("ann")
    await box.allow(ann, models=[SMALL])
    assert await asked(box, ann, LARGE) == 403
    assert LARGE not in ollama.loads


async def test_a_load_that_fails_is_told_to_all_who_waited(box: Box, ollama: Ollama) -> None:
    """A 503 with the time after which trying again is worth it; the other model goes on answering."""
    ann = await box.person("ann")
    ollama.models[1].fault = (500, "cudaMalloc failed: out of memory")
    assert await asyncio.gather(*(asked(box, ann, LARGE) for _ in range(3))) == [503] * 3
    assert await asked(box, ann, SMALL) == 200
