"""What tests of conversations share: a box, somebody on it, and a client that reads event streams."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import POLL_MS, Box, Person
from tests.stand_ins.openai_engine import MODEL


@dataclass
class Writer:
    """Somebody with a client."""

    box: Box
    person: Person
    http: httpx.AsyncClient

    async def begin(self, **fields: Any) -> str:
        """A new conversation's id."""
        answer = await self.http.post("/api/conversations", json=fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def read(self, conversation: str) -> dict[str, Any]:
        """A conversation."""
        answer = await self.http.get(f"/api/conversations/{conversation}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @asynccontextmanager
    async def asking(
        self, conversation: str, content: str, parent: str | None = None, model: str = MODEL, **options: Any
    ) -> AsyncIterator["Events"]:
        """Ask, and read the stream in the block."""
        body = {"parent_id": parent, "content": content, "model": model, "options": options}
        async with self.http.stream("POST", f"/api/conversations/{conversation}/messages", json=body) as answer:
            yield Events(answer)

    async def ask(
        self, conversation: str, content: str, parent: str | None = None, model: str = MODEL, **options: Any
    ) -> list[Any]:
        """Ask, and read to the end."""
        async with self.asking(conversation, content, parent, model, **options) as events:
            return await events.rest()

    async def settled(self) -> None:
        """Wait until the rows of all answers say that they have ended."""
        while any(each["running"] for each in (await self.http.get("/api/conversations")).json()["conversations"]):
            await self.box.clock.sleep_ms(POLL_MS)

    async def again(self, conversation: str, question: str, model: str = MODEL) -> list[Any]:
        """Have it answered once more."""
        place = f"/api/conversations/{conversation}/messages/{question}/answers"
        async with self.http.stream("POST", place, json={"model": model}) as answer:
            return await Events(answer).rest()

    @asynccontextmanager
    async def following(self, conversation: str, answer_id: str) -> AsyncIterator["Events"]:
        """Read the stream of an answer that runs."""
        place = f"/api/conversations/{conversation}/messages/{answer_id}/stream"
        async with self.http.stream("GET", place) as answer:
            yield Events(answer)

    async def stop(self, conversation: str, answer_id: str) -> None:
        """Stop an answer."""
        place = f"/api/conversations/{conversation}/messages/{answer_id}/stop"
        assert (await self.http.post(place)).status_code == 204


class Events:
    """The events of a stream: objects, comments as text, and [DONE]."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Any:
        """The next one; None at the end."""
        async for line in self._lines:
            if line.startswith(": "):
                return line
            if line.startswith("data: "):
                said = line.removeprefix("data: ")
                return said if said == "[DONE]" else json.loads(said)
        return None

    async def until(self, word: str) -> list[Any]:
        """Up to and with the event that holds the word."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
            if word in json.dumps(event):
                return found
        raise AssertionError(f"{word} is not among {found}")

    async def rest(self) -> list[Any]:
        """All that come."""
        if self.response.status_code != 200:
            raise AssertionError((self.response.status_code, await self.response.aread()))
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


def ids(events: list[Any]) -> tuple[str, str]:
    """Question and answer, as the first event names them."""
    named = events[0]["wirthforge"]["conversation"]
    return named["question_id"], named["answer_id"]


def said(events: list[Any]) -> str:
    """The answer's text."""
    chunks = [event for event in events if isinstance(event, dict) and event.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def writer_of(box: Box, name: str) -> Writer:
    """Somebody new."""
    person = await box.person(name)
    return Writer(box, person, box.http(headers=person.bearer))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Engines are held for as long as a test likes."""
    return replace(settings, engine_silence_ms_max=60_000)


@pytest.fixture
async def ann(box: Box) -> AsyncIterator[Writer]:
    """Somebody on a box with a stand-in engine."""
    writer = await writer_of(box, "ann")
    yield writer
    await writer.http.aclose()


@pytest.fixture
async def bob(box: Box) -> AsyncIterator[Writer]:
    """Somebody else."""
    writer = await writer_of(box, "bob")
    yield writer
    await writer.http.aclose()
