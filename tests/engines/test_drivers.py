"""The drivers of llama-server's router and of vLLM's sleep mode, against stand-ins that have those routes alone.

Both engines need a GPU or a binary of their own to show this; the routes, states and answers are those of the sources
named in server/engines/drivers.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from server.engines.drivers import Control, LlamaRouter, VllmSleep
from server.engines.metrics import read_memory_share
from server.engines.places import State
from server.errors import EngineFailed, EngineTimeout, NotFound
from tests.clocks import FakeClock
from tests.engines.raw_engine import reply, serve_raw


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """A socket for a stand-in; gives its root URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def done(clock: FakeClock, work: Awaitable[None]) -> None:
    """Let `work` watch the engine until it is through."""
    task = asyncio.ensure_future(work)
    while not task.done():
        clock.advance(timedelta(milliseconds=250))
        await asyncio.wait({task}, timeout=0.01)
    await task


async def test_vllm_tells_its_share_of_the_gpu() -> None:
    """As its page has it (seen of a vLLM of 2026); one without a page moves its model all the same."""
    config = 'vllm:cache_config_info{block_size="16",gpu_memory_utilization="0.82",num_gpu_blocks="573"} 1.0\n'

    async def awake(_: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": False})

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=config)

    for has_page in (True, False):
        app = web.Application()
        app.router.add_get("/is_sleeping", awake)
        if has_page:
            app.router.add_get("/metrics", page)
        async with served(app) as url:
            driver = VllmSleep(url, name="vllm", model="m", clock=FakeClock())
            assert await driver.states() == {"m": State.RESIDENT}
            assert driver.memory_share == (0.82 if has_page else None)
            await driver.close()


@pytest.mark.parametrize("page", ["", "{", 'vllm:cache_config_info{gpu_memory_utilization="7"} 1\n', "x 1\n"])
def test_no_share(page: str) -> None:
    """Rubbish, no share, or one that there cannot be."""
    assert read_memory_share(page) is None


@dataclass
class Router:
    """llama-server without a model: `/models`, `/models/load`, `/models/unload`.

    Attributes:
        looks: how often a list is given before what was begun is through.
        broken: whose process ends at once.
    """

    states: dict[str, str]
    looks: int = 2
    broken: frozenset[str] = frozenset()
    pending: dict[str, tuple[int, str]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    moves: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.router.add_get("/models", self.models)
        app.router.add_post("/models/load", self.load)
        app.router.add_post("/models/unload", self.unload)
        return app

    async def models(self, _request: web.Request) -> web.Response:
        """The list, with a status for each."""
        for model, (looks, state) in list(self.pending.items()):
            self.pending[model] = (looks - 1, state)
            if looks <= 0:
                del self.pending[model]
                self.states[model] = state
                if model in self.broken:
                    self.failed.add(model)
        data = []
        for model, value in self.states.items():
            status: dict[str, Any] = {"value": value, "args": ["llama-server", "-ctx", "4096"]}
            if model in self.failed:
                status |= {"failed": True, "exit_code": 1}
            data.append({"id": model, "path": f"/models/{model}", "object": "model", "status": status})
        return web.json_response({"object": "list", "data": data})

    async def load(self, request: web.Request) -> web.Response:
        """Begin, and say so."""
        model = (await request.json())["model"]
        self.moves.append(f"load {model}")
        self.failed.discard(model)
        self.states[model] = "loading"
        self.pending[model] = (self.looks, "unloaded" if model in self.broken else "loaded")
        return web.json_response({"success": True})

    async def unload(self, request: web.Request) -> web.Response:
        """Begin, and say so."""
        model = (await request.json())["model"]
        self.moves.append(f"unload {model}")
        self.pending[model] = (self.looks, "unloaded")
        return web.json_response({"success": True})


@dataclass
class Sleeper:
    """vLLM in development mode: `/sleep`, `/wake_up`, `/is_sleeping`.

    Attributes:
        looks: how often it says the old state after it was told; older versions answer before they have done it.
    """

    is_sleeping: bool = False
    looks: int = 0
    told: list[str] = field(default_factory=list)
    _wanted: bool = False

    def app(self) -> web.Application:
        """Its routes."""

        async def sleep(request: web.Request) -> web.Response:
            self.told.append(request.path_qs)
            self._wanted = True
            return web.Response()

        async def wake_up(request: web.Request) -> web.Response:
            self.told.append(request.path_qs)
            self._wanted = False
            return web.Response()

        async def is_sleeping(_request: web.Request) -> web.Response:
            if self.is_sleeping != self._wanted:
                self.looks -= 1
                if self.looks < 0:
                    self.is_sleeping = self._wanted
            return web.json_response({"is_sleeping": self.is_sleeping})

        app = web.Application()
        app.router.add_post("/sleep", sleep)
        app.router.add_post("/wake_up", wake_up)
        app.router.add_get("/is_sleeping", is_sleeping)
        return app


async def test_a_router_loads_and_unloads() -> None:
    """Both return when the model is there or gone, and do nothing if it is already."""
    router, clock = Router({"a": "unloaded", "b": "loaded", "c": "sleeping", "d": "downloading"}), FakeClock()
    async with served(router.app()) as url:
        driver = LlamaRouter(url, name="router", clock=clock)
        assert await driver.states() == {"a": State.COLD, "b": State.RESIDENT, "c": State.COLD, "d": State.COLD}
        await done(clock, driver.load("b"))
        await done(clock, driver.unload("a"))
        assert router.moves == []
        await done(clock, driver.load("a"))
        assert (await driver.states())["a"] is State.RESIDENT
        await done(clock, driver.unload("a"))
        assert (await driver.states())["a"] is State.COLD
        assert router.moves == ["load a", "unload a"]
        await driver.close()


async def test_a_model_that_is_on_its_way_is_not_told_again() -> None:
    """Somebody else began the load; it is waited for."""
    router, clock = Router({"a": "loading"}, pending={"a": (3, "loaded")}), FakeClock()
    async with served(router.app()) as url:
        driver = LlamaRouter(url, name="router", clock=clock)
        await done(clock, driver.load("a"))
        assert router.moves == []
        await driver.close()


async def test_a_process_that_ends_has_failed_and_may_be_tried_again() -> None:
    """The exit code is told; the mark of the last failure does not stand in the way of the next attempt."""
    router, clock = Router({"a": "unloaded"}, broken=frozenset({"a"})), FakeClock()
    async with served(router.app()) as url:
        driver = LlamaRouter(url, name="router", clock=clock)
        with pytest.raises(EngineFailed, match=r"ended \(1\)"):
            await done(clock, driver.load("a"))
        router.broken = frozenset()
        await done(clock, driver.load("a"))
        with pytest.raises(NotFound):
            await driver.load("nope")
        await driver.close()


async def test_a_list_without_states_is_no_routers() -> None:
    """An engine with one model has a list too, and nothing to load."""
    async with serve_raw() as raw:
        driver = LlamaRouter(raw.url.removesuffix("/v1"), name="router", clock=FakeClock())
        raw.answers["/models"] = [reply(b'{"models":[]}')]
        with pytest.raises(EngineFailed, match="router"):
            await driver.states()
        raw.answers["/models"] = [reply(b'{"data":[7,{"id":7},{"id":"m"},{"id":"n","status":"loaded"}]}')]
        assert await driver.states() == {}
        await driver.close()


@pytest.mark.parametrize("looks", [0, 3])
async def test_vllm_sleeps_in_main_memory_and_wakes(looks: int) -> None:
    """Level 1 keeps the weights; running requests are waited for; both are watched until they are done."""
    sleeper, clock = Sleeper(looks=looks), FakeClock()
    async with served(sleeper.app()) as url:
        driver = VllmSleep(url, name="vllm", model="m", clock=clock)
        assert await driver.states() == {"m": State.RESIDENT}
        await done(clock, driver.load("m"))
        assert sleeper.told == []
        await done(clock, driver.unload("m"))
        assert await driver.states() == {"m": State.HOST_RAM}
        assert driver.rests_in is State.HOST_RAM
        sleeper.looks = looks
        await done(clock, driver.load("m"))
        assert await driver.states() == {"m": State.RESIDENT}
        assert sleeper.told == ["/sleep?level=1&mode=wait", "/wake_up"]
        with pytest.raises(NotFound):
            await driver.load("another")
        await driver.close()


async def test_a_vllm_without_sleep_mode_says_so() -> None:
    """Outside of development mode the routes are not there."""
    async with served(web.Application()) as url:
        driver = VllmSleep(url, name="vllm", model="m", clock=FakeClock())
        with pytest.raises(NotFound, match="/is_sleeping"):
            await driver.states()
        await driver.close()


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[" * 200_000, b"{"])
async def test_what_is_no_json_is_the_engines_fault(body: bytes) -> None:
    """Control calls fail in one way."""
    async with serve_raw() as raw:
        raw.answers["/is_sleeping"] = [reply(body)]
        control = Control(raw.url.removesuffix("/v1"), name="engine")
        with pytest.raises(EngineFailed, match="no JSON"):
            await control.get("/is_sleeping")
        await control.close()


async def test_an_engine_that_does_not_answer_is_given_up() -> None:
    """A call has a bound."""
    async with serve_raw() as raw:
        raw.answers["/is_sleeping"] = [b""]
        raw.hold.clear()
        control = Control(raw.url.removesuffix("/v1"), name="engine")
        with pytest.raises(EngineTimeout):
            await control.get("/is_sleeping", ms_max=100)
        await control.close()


async def test_an_answer_without_end_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control calls take small answers."""
    monkeypatch.setattr("server.engines.drivers.ANSWER_BYTES_MAX", 1_000)
    async with serve_raw() as raw:
        raw.answers["/models"] = [reply(b"x" * 2_000)]
        control = Control(raw.url.removesuffix("/v1"), name="engine")
        with pytest.raises(EngineFailed, match="more than 1000 bytes"):
            await control.get("/models")
        await control.close()
