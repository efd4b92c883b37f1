"""Engines through the API: added, changed, drained and removed while people are served."""

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from server.clock import SystemClock
from server.db.models import AuditEntry
from server.engines.fleet import Fleet
from server.engines.kinds import Defaults
from server.errors import Unavailable, WirthforgeError
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox, execute
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order

PATH = "/api/admin/engines"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
KEY = "sk-key-of-an-engine"
POLL_MS = 20


@pytest.fixture
async def empty(make_box: MakeBox) -> Box:
    """A box without engines."""
    return await make_box(engines=[])


@pytest.fixture
async def root(empty: Box) -> Person:
    """Its admin."""
    return await empty.person("root", "admin")


@pytest.fixture
async def admin(empty: Box, root: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Their client."""
    async with empty.http(headers=root.bearer) as client:
        yield client


def spec(url: str, name: str = "gpu", **more: Any) -> dict[str, Any]:
    """An engine as an admin writes it."""
    return {"name": name, "kind": "openai", "url": url, **more}


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


async def ask(client: httpx.AsyncClient) -> httpx.Response:
    """One request to the model."""
    return await client.post("/v1/chat/completions", json=CHAT)


async def streamed(client: httpx.AsyncClient, began: asyncio.Event) -> str:
    """A whole stream; tells when its first token is there."""
    told = ""
    async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_text():
            told += piece
            if "word0" in told:
                began.set()
    return told


async def test_an_engine_is_added_and_answers_at_once(admin: httpx.AsyncClient, engine_url: str) -> None:
    """Its models are listed and answer without a restart, and end with it."""
    assert (await admin.get("/v1/models")).json()["data"] == []
    answer = await admin.post(PATH, json=spec(engine_url, api_key=KEY, slots=3))
    assert answer.status_code == 201, answer.text
    added = answer.json()
    assert (added["name"], added["is_up"], added["slots"], added["has_api_key"]) == ("gpu", True, 3, True)
    assert (added["breaker"], added["in_use"], added["is_fixed"]) == ("closed", 0, False)
    assert [model["id"] for model in added["models"]] == [MODEL]
    assert added["conformance"]["counts"] == "yes"
    assert [model["id"] for model in (await admin.get("/v1/models")).json()["data"]] == [MODEL, "council:self"]
    assert (await ask(admin)).status_code == 200
    assert (await admin.get(PATH)).json() == [added]
    assert (await admin.delete(f"{PATH}/gpu")).status_code == 204
    assert code(await ask(admin)) == (503, "no_engine")
    assert code(await admin.delete(f"{PATH}/gpu")) == (404, "engine_not_found")


async def test_the_key_is_shown_to_nobody(
    admin: httpx.AsyncClient, empty: Box, order: Order, engine_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It goes to the engine, and neither into answers nor the audit log nor the log."""
    texts = [
        (await admin.post(PATH, json=spec(engine_url, api_key=KEY))).text,
        (await admin.patch(f"{PATH}/gpu", json={"api_key": KEY + "-2"})).text,
        (await admin.get(PATH)).text,
        (await admin.post(f"{PATH}/test/gpu")).text,
        (await admin.patch(f"{PATH}/gpu", json={"api_key": KEY + "\n"})).text,
        (await admin.patch(f"{PATH}/gpu", json={"url": f"http://ann:{KEY}@127.0.0.1:1/v1"})).text,
        (await admin.get("/api/admin/audit")).text,
    ]
    assert order.headers[-1]["Authorization"] == f"Bearer {KEY}-2"
    async with empty.database.transaction(everybody=True) as session:
        entries = (await session.scalars(select(AuditEntry).where(AuditEntry.subject == "engine gpu"))).all()
        texts += [f"{entry.before} {entry.after}" for entry in entries]
    assert [entry.action for entry in entries] == ["engine.add", "engine.change"]
    out, err = capfd.readouterr()
    assert KEY not in "".join([*texts, out, err])


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"kind": "llama"}, 400),
        ({"slots": 0}, 400),
        ({"slots": -1}, 400),
        ({"slots": 10**30}, 400),
        ({"slots": 1.5}, 400),
        ({"kv_tokens": 1 << 50}, 400),
        ({"reserved_slots": -2}, 400),
        ({"name": ""}, 400),
        ({"name": "a b"}, 400),
        ({"name": "gpu\n"}, 400),
        ({"name": "../gpu"}, 400),
        ({"name": "a/../b"}, 400),
        ({"name": "a//b"}, 400),
        ({"name": "a/"}, 400),
        ({"name": "test/a"}, 400),  # addresses of this API
        ({"name": "kinds"}, 400),
        ({"name": "x" * 101}, 400),
        ({"url": "file:///etc/passwd"}, 400),
        ({"url": "http://169.254.169.254/v1"}, 400),
        ({"url": "http://ann:pw@127.0.0.1/v1"}, 400),
        ({"url": "http://a/" + "x" * 500}, 400),
        ({"url": None}, 400),
        ({"api_key": "ä"}, 400),
        ({"api_key": "x" * 2001}, 400),
    ],
)
async def test_what_is_no_engine_is_refused(
    admin: httpx.AsyncClient, engine_url: str, more: dict[str, Any], status: int
) -> None:
    """With a sentence, and nothing is kept."""
    answer = await admin.post(PATH, json=spec(engine_url) | more)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].endswith(".")
    assert (await admin.get(PATH)).json() == []


async def test_bodies_that_are_none(admin: httpx.AsyncClient, engine_url: str) -> None:
    """Null, lists and text are refused, to add and to change; a change of nothing changes nothing."""
    assert (await admin.post(PATH, json=spec(engine_url))).status_code == 201
    for body in (b"null", b"[]", b'"x"', b"", b"{", b'{"slots":"x"}', b'{"url":null}'):
        assert (await admin.post(PATH, content=body)).status_code == 400, body
        assert (await admin.patch(f"{PATH}/gpu", content=body)).status_code == 400, body
    before = (await admin.get(PATH)).json()
    assert (await admin.patch(f"{PATH}/gpu", json={})).status_code == 200
    assert (await admin.get(PATH)).json() == before


async def test_names_may_have_slashes_and_are_taken_once(admin: httpx.AsyncClient, engine_url: str) -> None:
    """A second of the same name is a conflict."""
    for name in ("rack/1:8000", "rack/2"):
        assert (await admin.post(PATH, json=spec(engine_url, name))).status_code == 201
        assert code(await admin.post(PATH, json=spec(engine_url, name)))[0] == 409
        assert (await admin.patch(f"{PATH}/{name}", json={"slots": 2})).json()["slots"] == 2
        assert (await admin.post(f"{PATH}/test/{name}")).status_code == 200
    assert [each["name"] for each in (await admin.get(PATH)).json()] == ["rack/1:8000", "rack/2"]
    for name in ("rack/1:8000", "rack/2"):
        assert (await admin.delete(f"{PATH}/{name}")).status_code == 204


async def test_engines_of_the_settings_are_fixed(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """They are listed, and neither changed nor removed nor doubled here."""
    box = await make_box(replace(settings, engines=(f"home={engine_url}",)))
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as client:
        (home,) = (await client.get(PATH)).json()
        assert (home["name"], home["is_fixed"], home["is_up"], home["url"]) == ("home", True, True, None)
        for answer in (
            await client.post(PATH, json=spec(engine_url, "home")),
            await client.patch(f"{PATH}/home", json={"slots": 1}),
            await client.delete(f"{PATH}/home"),
        ):
            assert answer.status_code == 409


async def test_what_is_found_of_an_engine_of_the_settings_is_kept(
    make_box: MakeBox, settings: Settings, engine_url: str
) -> None:
    """A test that somebody asks for is listed afterwards, by the next server too."""
    found = None
    for is_first in (True, False):
        box = await make_box(replace(settings, engines=(f"home={engine_url}",)))
        root = await box.person(f"root-{is_first}", "admin")
        async with box.http(headers=root.bearer) as client:
            if is_first:
                assert (await client.get(PATH)).json()[0]["conformance"] is None
                found = (await client.post(f"{PATH}/test/home")).json()
                assert found["counts"] == "yes"
            assert (await client.get(PATH)).json()[0]["conformance"] == found


async def test_each_number_says_who_said_it(admin: httpx.AsyncClient, engine_url: str) -> None:
    """The admin, the engine, or the settings; null gives it back."""
    added = (await admin.post(PATH, json=spec(engine_url, slots=3, moves_models=True))).json()
    assert added["moves_models"] is True
    assert added["numbers"] == {
        "slots": {"value": 3, "origin": "admin", "setting": None},
        "prefill_tokens": {"value": 2048, "origin": "default", "setting": "engine_prefill_tokens"},
        "kv_tokens": {"value": 0, "origin": "default", "setting": None},
        "reserved_slots": {"value": None, "origin": "default", "setting": "reserved_slots"},
    }
    changes = {"slots": None, "prefill_tokens": 512, "kv_tokens": 8192, "reserved_slots": 0, "moves_models": False}
    changed = (await admin.patch(f"{PATH}/gpu", json=changes)).json()
    assert changed["numbers"] == {
        "slots": {"value": 4, "origin": "default", "setting": "engine_slots"},
        "prefill_tokens": {"value": 512, "origin": "admin", "setting": None},
        "kv_tokens": {"value": 8192, "origin": "admin", "setting": None},
        "reserved_slots": {"value": 0, "origin": "admin", "setting": None},
    }
    assert (changed["slots"], changed["moves_models"], changed["devices"]) == (4, False, [])
    devices = [device["uuid"] for device in (await admin.get("/api/hardware")).json()["devices"]]
    assert (await admin.patch(f"{PATH}/gpu", json={"devices": devices})).json()["devices"] == devices
    for field in ("slots", "reserved_slots", "kv_tokens", "prefill_tokens"):
        assert (await admin.patch(f"{PATH}/gpu", json={field: -1})).status_code == 400


async def test_kinds_are_listed_with_the_plugins_that_are_left_out(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An admin sees which plugin does not work, and why; the others serve."""
    points = [
        EntryPoint("broken", "no_such_module:make", "wirthforge.engines"),
        EntryPoint("good", "server.engines.kinds:load_kinds", "wirthforge.engines"),
        EntryPoint("good", "server.engines.kinds:read_spec", "wirthforge.engines"),
    ]
    monkeypatch.setattr("server.engines.kinds.entry_points", lambda **_: points)
    box = await make_box(engines=[])
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as client:
        kinds = (await client.get(f"{PATH}/kinds")).json()
    assert {kind["name"] for kind in kinds if kind["is_built_in"]} == {
        *("openai", "llama-server", "vllm", "sglang", "tgi", "ollama")
    }
    assert [kind for kind in kinds if not kind["is_built_in"]] == [
        {"name": "good", "is_built_in": False, "left_out": None},
        {
            "name": "broken",
            "is_built_in": False,
            "left_out": "ModuleNotFoundError: No module named 'no_such_module'",
        },
        {"name": "good", "is_built_in": False, "left_out": "TypeError: its name is taken, or it is no function"},
    ]
    assert "engine plugin left out" in "".join(capfd.readouterr())


async def test_members_are_refused(empty: Box, engine_url: str) -> None:
    """They neither see engines nor change them."""
    ben = await empty.person("ben")
    async with empty.http(headers=ben.bearer) as client:
        assert code(await client.get(PATH)) == (403, "admin_only")
        assert code(await client.get(f"{PATH}/kinds")) == (403, "admin_only")
        assert code(await client.post(PATH, json=spec(engine_url))) == (403, "admin_only")


async def test_an_engine_that_is_away_is_kept_and_comes_up_later(admin: httpx.AsyncClient, empty: Box) -> None:
    """It says why; as soon as it answers it serves."""
    order = Order()
    async with openai_engine.serve(order) as url:
        pass
    added = (await admin.post(PATH, json=spec(url))).json()
    assert (added["is_up"], added["models"], added["conformance"]) == (False, [], None)
    assert "cannot be reached" in added["reason"]
    assert code(await admin.post(f"{PATH}/test/gpu")) == (503, "engine_away")
    async with openai_engine.serve(order, port=int(url.split(":")[2].split("/")[0])):
        deadline_ms = empty.clock.monotonic_ms() + 8_000
        while (await ask(admin)).status_code != 200:
            assert empty.clock.monotonic_ms() < deadline_ms
            await empty.clock.sleep_ms(POLL_MS)


async def test_an_engine_whose_address_nobody_can_read_ends_nothing(admin: httpx.AsyncClient, engine_url: str) -> None:
    """A probe that fails in a way that nobody thought of makes it an engine that is away."""
    odd = await admin.post(PATH, json=spec("http://" + "a" * 300 + "/v1", "odd"))
    assert (odd.status_code, odd.json()["is_up"]) == (201, False)
    assert (await admin.post(PATH, json=spec(engine_url))).status_code == 201
    assert (await ask(admin)).status_code == 200


async def test_streams_end_well_while_their_engine_is_changed(
    admin: httpx.AsyncClient, order: Order, engine_url: str
) -> None:
    """A change of address, of the key or of slots, and a removal: what runs goes on to its end."""
    for change in ({"slots": 9}, {"api_key": "other"}, {"url": engine_url + "/"}, None):
        assert (await admin.post(PATH, json=spec(engine_url))).status_code == 201
        order.held_after = 1
        order.hold.clear()
        began = asyncio.Event()
        stream = asyncio.create_task(streamed(admin, began))
        await began.wait()
        if change is not None:
            assert (await admin.patch(f"{PATH}/gpu", json=change)).status_code == 200
        assert (await admin.delete(f"{PATH}/gpu")).status_code == 204
        order.hold.set()
        assert (await stream).endswith("data: [DONE]\n\n"), change


async def test_an_engine_is_drained_and_taken_back(admin: httpx.AsyncClient, order: Order, engine_url: str) -> None:
    """What runs ends well, new requests are told, and afterwards it serves as before."""
    await admin.post(PATH, json=spec(engine_url))
    order.held_after = 1
    order.hold.clear()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(admin, began))
    await began.wait()
    drained = (await admin.patch(f"{PATH}/gpu", json={"is_draining": True})).json()
    assert (drained["is_draining"], drained["in_use"]) == (True, 1)
    refused = await ask(admin)
    assert code(refused) == (503, "engine_draining")
    assert int(refused.headers["retry-after"]) >= 1
    order.hold.set()
    assert (await stream).endswith("data: [DONE]\n\n")
    assert (await admin.patch(f"{PATH}/gpu", json={"is_draining": False})).json()["is_draining"] is False
    assert (await ask(admin)).status_code == 200


async def test_who_waits_for_an_engine_that_is_replaced_is_answered_by_the_new_one(
    admin: httpx.AsyncClient, empty: Box, order: Order, engine_url: str
) -> None:
    """And who waits for one that is removed is told, or answered by another that serves the model."""
    await admin.post(PATH, json=spec(engine_url, slots=1))
    order.held_after = 1
    order.hold.clear()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(admin, began))
    await began.wait()
    waiting = asyncio.create_task(ask(admin))
    while (await empty.ledger.load("gpu"))[1] != 1:
        await empty.clock.sleep_ms(POLL_MS)
    other = Order()
    async with openai_engine.serve(other) as url:
        assert (await admin.patch(f"{PATH}/gpu", json={"url": url})).status_code == 200
        order.hold.set()
        assert (await stream).endswith("data: [DONE]\n\n")
        assert (await waiting).status_code == 200
        assert any(body["messages"] == CHAT["messages"] for body in other.seen)


async def test_two_engines_of_one_model(admin: httpx.AsyncClient, engine_url: str) -> None:
    """The model is listed once, and stays as long as one of them serves it."""
    async with openai_engine.serve(Order()) as url:
        await admin.post(PATH, json=spec(engine_url, "a"))
        await admin.post(PATH, json=spec(url, "b"))
        assert [model["id"] for model in (await admin.get("/v1/models")).json()["data"]] == [MODEL, "council:self"]
        await admin.patch(f"{PATH}/a", json={"is_draining": True})
        assert (await ask(admin)).headers["x-wirthforge-engine"] == "b"
        await admin.delete(f"{PATH}/a")
        assert (await ask(admin)).headers["x-wirthforge-engine"] == "b"


async def test_the_other_replica_learns_and_keeps_what_it_knows(
    admin: httpx.AsyncClient, empty: Box, engine_url: str, database_url: str
) -> None:
    """It reads the same table; where Postgres is away everything stays as it was."""
    fleet = Fleet(
        [],
        database=empty.database,
        clock=SystemClock(),
        defaults=Defaults(slots=4, silence_ms_max=1_000),
        memory_bytes=0,
        on_window=lambda *_: None,
        on_pressure=lambda *_: None,
        on_gone=lambda _: None,
    )
    await admin.post(PATH, json=spec(engine_url))
    await fleet.roster.sync()
    health = fleet.pool.health("gpu")
    assert health is not None
    assert health.is_up
    await admin.patch(f"{PATH}/gpu", json={"is_draining": True})
    await execute(database_url, "ALTER TABLE engines RENAME TO engines_away")
    with pytest.raises(WirthforgeError):
        await fleet.roster.sync()
    assert fleet.pool.names == ["gpu"]
    await execute(database_url, "ALTER TABLE engines_away RENAME TO engines")
    await fleet.roster.sync()
    with pytest.raises(Unavailable, match="maintenance"):
        fleet.pool.routes_to(MODEL)
    await admin.delete(f"{PATH}/gpu")
    await fleet.roster.sync()
    assert fleet.pool.names == []
    await fleet.close()
