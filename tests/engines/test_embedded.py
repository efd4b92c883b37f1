"""The embedded engine: listed while it is cold, down only when it should run and does not."""

from dataclasses import dataclass, field

import pytest

from server.engines.embedded import Embedded
from server.engines.places import State
from server.errors import EngineFailed, NotFound, StartError
from server.messages import ServedModel
from tests.stand_ins import openai_engine

NOWHERE = "http://127.0.0.1:1/v1"
LISTED = (ServedModel(id="m", context_tokens=512),)


@dataclass
class Process:
    """Who starts and stops it.

    Attributes:
        fault: what comes of the next start.
    """

    moves: list[str] = field(default_factory=list)
    fault: str = ""

    async def start(self) -> None:
        """As the supervisor does."""
        self.moves.append("start")
        if self.fault:
            raise StartError(self.fault)

    async def stop(self) -> None:
        """As the supervisor does."""
        self.moves.append("stop")

    def engine(self, url: str, *, is_started: bool) -> Embedded:
        """An engine over it."""
        return Embedded(
            url,
            name="m",
            slots=2,
            context_tokens=512,
            silence_ms_max=1_000,
            stall_ms_max=1_000,
            api_key="",
            start=self.start,
            stop=self.stop,
            is_started=is_started,
        )


async def test_a_cold_one_is_listed_and_not_asked() -> None:
    """Nobody listens at its address, and yet it is well: it has its model, no metrics and no pressure."""
    engine = Process().engine(NOWHERE, is_started=False)
    assert await engine.probe() == LISTED
    assert (await engine.metrics(), await engine.pressure()) == (None, None)
    assert await engine.states() == {"m": State.COLD}
    await engine.close()


async def test_one_that_should_run_and_does_not_is_down() -> None:
    """A process that died is no cold model."""
    engine = Process().engine(NOWHERE, is_started=True)
    with pytest.raises(EngineFailed):
        await engine.probe()
    assert await engine.states() == {"m": State.RESIDENT}
    await engine.close()


async def test_loading_starts_it_once_and_unloading_stops_it(engine_url: str) -> None:
    """Both are harmless twice; while it runs, it speaks for itself."""
    process = Process()
    engine = process.engine(engine_url, is_started=False)
    await engine.load("m")
    await engine.load("m")
    assert process.moves == ["start"]
    assert [model.id for model in await engine.probe()] == [openai_engine.MODEL]
    await engine.unload("m")
    await engine.unload("m")
    assert process.moves == ["start", "stop", "stop"]
    assert await engine.probe() == LISTED
    await engine.close()


async def test_a_start_that_fails_leaves_it_cold() -> None:
    """And another model than its own it does not have."""
    process = Process(fault="no memory")
    engine = process.engine(NOWHERE, is_started=False)
    with pytest.raises(StartError):
        await engine.load("m")
    assert await engine.states() == {"m": State.COLD}
    for move in (engine.load, engine.unload):
        with pytest.raises(NotFound):
            await move("other")
    await engine.close()
