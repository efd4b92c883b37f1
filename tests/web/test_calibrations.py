"""Calibrations of a running server: what they change for requests, and what admins can do about them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from quotas.ledger import Ledger
from server import VERSION
from server.clock import SystemClock
from server.engines import calibrating, calibrations
from server.engines.calibration import Calibration, Together
from server.engines.calibrations import Calibrations
from server.hardware.box import box_of
from server.hardware.monitor import Monitor
from server.hardware.providers import load as hardware_of
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins.openai_engine import MODEL, Order

PATH = "/api/admin/calibrations"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
POLL_MS, WITHIN_MS = 20, 10_000
# The stand-in tells 7 prompt tokens and 3 answer tokens.
BY_GUESS, MEASURED = 7 + 2 * 3, 2 * 7 + 20 * 3


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than every few seconds."""
    monkeypatch.setattr(calibrations, "READ_EVERY_MS", POLL_MS)
    monkeypatch.setattr(calibrating, "LOOK_EVERY_MS", POLL_MS)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What requests cost when they ended, in the order of their ends."""
    seen: list[int] = []
    finish = Ledger.finish

    async def watched(self: Ledger, request: str, engine: str, event: Any, *, cost: int = 0) -> None:
        await finish(self, request, engine, event, cost=cost)
        seen.append(cost)

    monkeypatch.setattr(Ledger, "finish", watched)
    return seen


@pytest.fixture
async def root(box: Box) -> Person:
    """The admin."""
    return await box.person("root", "admin")


@pytest.fixture
async def admin(box: Box, root: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Their client."""
    async with box.http(headers=root.bearer) as client:
        yield client


@pytest.fixture
async def hardware() -> str:
    """What this machine is."""
    monitor = Monitor(hardware_of(SystemClock()), SystemClock())
    try:
        return box_of(await monitor.look())
    finally:
        monitor.close()


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Until it is so; it must be soon."""
    clock = SystemClock()
    end_ms = clock.monotonic_ms() + WITHIN_MS
    while not await is_so():
        assert clock.monotonic_ms() < end_ms
        await clock.sleep_ms(POLL_MS)


def measured(engine: str, model: str, prefill_us: float) -> Calibration:
    """Figures of an engine that two answers at a time use up."""
    return Calibration(
        engine=engine,
        model=model,
        prefill_us=prefill_us,
        decode_us=2_000,
        first_token_ms=5,
        together=(Together(1, 500), Together(2, 1_000)),
        knee=2,
        output_cost=10,
    )


async def keep(box: Box, hardware: str, *figures: Calibration) -> None:
    """As another replica stores it."""
    store = Calibrations(
        box.database, box.clock, hardware=lambda: hardware, version=lambda _: "", server_version=VERSION
    )
    for each in figures:
        await store.keep(each.engine, each.model, each)


def name_of(url: str) -> str:
    """Of the engine, as the settings give it."""
    return url.removeprefix("http://").removesuffix("/v1")


async def cost_of_one(client: httpx.AsyncClient, costs: list[int]) -> int:
    """What a request costs now."""
    count = len(costs)
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200

    async def has_ended() -> bool:
        return len(costs) > count

    await until(has_ended)
    return costs[count]


async def test_a_stored_calibration_changes_what_requests_cost(
    admin: httpx.AsyncClient, box: Box, order: Order, engine_url: str, hardware: str, costs: list[int]
) -> None:
    """A model twice as slow as the fastest costs twice as much; a request that runs keeps the cost it began with."""
    assert await cost_of_one(admin, costs) == BY_GUESS
    order.began.clear()
    order.hold.clear()
    running = asyncio.create_task(admin.post("/v1/chat/completions", json=CHAT))
    await order.began.wait()
    name = name_of(engine_url)
    await keep(box, hardware, measured(name, MODEL, 200), measured(name, "faster", 100))

    async def is_in_force() -> bool:
        return all(record["is_in_force"] for record in (await admin.get(PATH)).json())

    await until(is_in_force)
    order.hold.set()
    assert (await running).status_code == 200
    await box.usage(2)
    assert await cost_of_one(admin, costs) == MEASURED
    assert costs == [BY_GUESS, BY_GUESS, MEASURED]


async def test_what_the_settings_say_of_a_model_comes_first(
    make_box: MakeBox, settings: Settings, engine_url: str, hardware: str, costs: list[int]
) -> None:
    """A cost that an admin has written down is not overruled."""
    box = await make_box(replace(settings, engines=(engine_url,), costs=(f"{MODEL}=3:4",)))
    root = await box.person("root", "admin")
    await keep(box, hardware, measured(name_of(engine_url), MODEL, 200))
    async with box.http(headers=root.bearer) as client:

        async def is_in_force() -> bool:
            return all(record["is_in_force"] for record in (await client.get(PATH)).json())

        await until(is_in_force)
        assert await cost_of_one(client, costs) == 3 * 7 + 4 * 3


async def test_the_knee_becomes_the_number_of_slots_where_nobody_said_one(
    admin: httpx.AsyncClient, box: Box, engine_url: str, hardware: str
) -> None:
    """Four come from the settings, and become two; three come from an admin, and stay."""
    name = name_of(engine_url)
    spec = {"name": "told", "kind": "openai", "url": engine_url, "slots": 3}
    assert (await admin.post("/api/admin/engines", json=spec)).status_code == 201

    async def slots() -> dict[str, int]:
        return {engine.name: engine.slots for engine in (await box.ledger.view()).engines}

    async def are_set() -> bool:
        return await slots() == {name: 4, "told": 3}

    await until(are_set)
    await keep(box, hardware, measured(name, MODEL, 200), measured("told", MODEL, 200))

    async def are_measured() -> bool:
        return await slots() == {name: 2, "told": 3}

    await until(are_measured)


async def test_admins_see_results_and_nobody_else_does(
    admin: httpx.AsyncClient, box: Box, engine_url: str, hardware: str
) -> None:
    """Figures with the hardware and versions; those of other hardware are kept, and said not to be in force."""
    assert (await admin.get(PATH)).json() == []
    name = name_of(engine_url)
    await keep(box, "another box", measured(name, MODEL, 300))
    await keep(box, hardware, measured(name, MODEL, 200))

    async def is_in_force() -> bool:
        return bool((await admin.get(PATH)).json()[0]["is_in_force"])

    await until(is_in_force)
    here, elsewhere = (await admin.get(PATH)).json()
    assert (here["engine"], here["model"], here["hardware"], here["server_version"]) == (name, MODEL, hardware, VERSION)
    assert here["figures"]["knee"] == 2
    assert here["figures"]["together"] == [
        {"answers": 1, "tokens_per_s": 500},
        {"answers": 2, "tokens_per_s": 1_000},
    ]
    assert (elsewhere["hardware"], elsewhere["is_in_force"]) == ("another box", False)
    member = await box.person("ben")
    async with box.http(headers=member.bearer) as client:
        for answer in (await client.get(PATH), await client.post(f"{PATH}/{name}")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only")


async def test_an_admin_has_an_engine_measured_now(
    admin: httpx.AsyncClient, order: Order, box: Box, engine_url: str
) -> None:
    """Not before its model is known to be in memory, nor while it is in use; and what cannot be measured says why."""
    url = f"{PATH}/{name_of(engine_url)}"

    async def refused(status: int, code: str, path: str = url) -> None:
        answer = await admin.post(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text

    await refused(404, "engine_not_found", f"{PATH}/gpu")
    await refused(404, "model_not_found", f"{url}?model=large")
    await refused(409, "model_cold")
    assert (await admin.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await box.usage(1)
    order.began.clear()
    order.hold.clear()
    running = asyncio.create_task(admin.post("/v1/chat/completions", json=CHAT))
    await order.began.wait()
    await refused(409, "engine_in_use")
    order.hold.set()
    assert (await running).status_code == 200
    await box.usage(2)
    answer = await admin.post(f"{url}?model={MODEL}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["model"], found["figures"], found["is_in_force"]) == (MODEL, None, False)
    assert "too little to measure" in found["failure"]
    assert (await admin.get(PATH)).json() == [found]


async def test_a_model_is_measured_by_itself_once_it_has_answered(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order
) -> None:
    """Nobody has to ask for it; without a setting that says otherwise."""
    box = await make_box(replace(settings, engines=(engine_url,), calibrates=Settings().calibrates))
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        await box.usage(1)

        async def is_there() -> bool:
            return bool((await client.get(PATH)).json())

        await until(is_there)
        (found,) = (await client.get(PATH)).json()
        assert (found["model"], found["engine"]) == (MODEL, name_of(engine_url))
        assert "too little to measure" in found["failure"]
        asked = len(order.seen)
        await client.get(PATH)
        assert len(order.seen) == asked
