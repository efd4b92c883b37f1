"""The pool: engines that come, go and change, and which of them is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from server.clock import SystemClock
from server.engines.openai_compatible import OpenAICompatible
from server.engines.pool import PROBE_AWAY_EVERY_MS, PROBE_EVERY_MS, Pool
from server.errors import NotFound, Unavailable
from tests.clocks import FakeClock
from tests.engines.raw_engine import Raw, reply, serve_raw


def models(*names: str) -> list[bytes]:
    """A model list."""
    data = ",".join(f'{{"id":"{name}"}}' for name in names)
    return [reply(f'{{"data":[{data}]}}'.encode())]


@asynccontextmanager
async def pool_of(*urls: str, clock: FakeClock | None = None) -> AsyncIterator[tuple[Pool, dict[str, int]]]:
    """A pool, and the windows it tells."""
    windows: dict[str, int] = {}
    engines = [OpenAICompatible(url, slots=4, silence_ms_max=500) for url in urls]
    pool = Pool(
        engines,
        clock=clock or FakeClock(),
        on_probed=lambda engine: windows.__setitem__(engine.name, engine.slots),
        on_pressure=lambda *_: None,
    )
    try:
        yield pool, windows
    finally:
        await pool.close()


def served(pool: Pool) -> dict[str, str]:
    """Which engine serves which model."""
    return {route.model.id: route.engine.name for route in pool.routes()}


def name_of(raw: Raw) -> str:
    """As users see it."""
    return raw.url.split("/")[2]


async def test_models_may_change_while_the_engine_runs() -> None:
    """The newest list counts: what was taken away is not found any more, what came is."""
    async with serve_raw(models=models("old")) as raw, pool_of(raw.url) as (pool, windows):
        await pool.probe_all()
        assert pool.routes_to("old")[0].engine.slots == 4
        raw.answers["/v1/models"] = models("new")
        raw.answers["/props"] = [reply(b'{"total_slots":2}')]
        await pool.probe_all()
        assert pool.routes_to("new")[0].engine.slots == 2
        with pytest.raises(NotFound):
            pool.routes_to("old")
        assert windows == {name_of(raw): 2}


async def test_of_two_engines_with_one_model_the_one_that_is_up_is_asked() -> None:
    """The first in the settings serves while it is there; the second when it is not, and the first again."""
    async with (
        serve_raw(models=models("m")) as one,
        serve_raw(models=models("m", "n")) as two,
        pool_of(one.url, two.url) as (pool, _),
    ):
        await pool.probe_all()
        assert served(pool) == {"m": name_of(one), "n": name_of(two)}
        one.answers["/v1/models"] = [reply(b"<html>502</html>", "502 Bad Gateway", "text/html")]
        await pool.probe_all()
        assert served(pool) == {"m": name_of(two), "n": name_of(two)}
        assert pool.is_ready
        one.answers["/v1/models"] = models("m")
        await pool.probe_all()
        assert served(pool)["m"] == name_of(one)


async def test_an_engine_without_models_is_up_and_serves_nothing() -> None:
    """An empty list, or none, is no fault of the engine."""
    for body in (b'{"data":[]}', b'{"object":"list","data":null}'):
        async with serve_raw(models=[reply(body)]) as raw, pool_of(raw.url) as (pool, _):
            await pool.probe_all()
            assert pool.is_ready
            with pytest.raises(NotFound):
                pool.routes_to("m")


async def test_before_any_engine_answered_nobody_knows_the_models() -> None:
    """Then the caller is asked to come again, instead of being told that there is no such model."""
    async with pool_of("http://127.0.0.1:9/v1") as (pool, windows):
        await pool.probe_all()
        assert not pool.is_ready
        assert windows == {}
        with pytest.raises(Unavailable):
            pool.routes_to("m")


async def test_one_engine_that_hangs_does_not_keep_the_others_from_being_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A probe ends after its time, and is a failure then."""
    monkeypatch.setattr("server.engines.openai_compatible.PROBE_MS_MAX", 200)
    async with serve_raw(models=[b""]) as hanging, serve_raw(models=models("m")) as good:
        hanging.hold.clear()
        async with pool_of(hanging.url, good.url) as (pool, _):
            async with asyncio.timeout(2):
                await pool.probe_all()
            assert served(pool) == {"m": name_of(good)}


async def test_engines_are_looked_at_in_their_own_time() -> None:
    """One that is away is asked every second, one that is up every ten."""
    clock = FakeClock()
    async with serve_raw(models=models("m")) as raw, pool_of(raw.url, clock=clock) as (pool, _):
        good, bad = raw.answers["/v1/models"], [reply(b"[]")]
        raw.answers["/v1/models"] = bad
        await pool.probe_all()
        running = asyncio.create_task(pool.run())
        for duration_ms, answer, is_up in (
            (PROBE_AWAY_EVERY_MS, good, True),
            (PROBE_EVERY_MS, bad, False),
            (PROBE_AWAY_EVERY_MS, good, True),
        ):
            raw.answers["/v1/models"] = answer
            await _asleep(clock)
            asked = len(raw.seen)
            clock.advance(timedelta(milliseconds=duration_ms - 1))
            assert len(raw.seen) == asked
            clock.advance(timedelta(milliseconds=1))
            await _asleep(clock)
            assert pool.is_ready is is_up
        running.cancel()
        await asyncio.wait([running])


async def _asleep(clock: FakeClock) -> None:
    """Wait until all sleep again: who probes, who asks how the engine feels, and who looks after those that left."""
    async with asyncio.timeout(5):
        while len(clock._sleepers) < 3:
            await SystemClock().sleep_ms(1)
