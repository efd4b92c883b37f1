"""Wrong keys, cookies and set-up links over HTTP: counted for their address, and told in the shape of each API."""

import aiohttp
import httpx
import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox

MAX = 4
WRONG = {"Authorization": "Bearer wf-wrong"}


@pytest.fixture
async def strict(make_box: MakeBox, settings: Settings, engine_url: str) -> Box:
    """A box that bars an address after four wrong credentials."""
    return await make_box(replace(settings, address_refusals_per_minute_max=MAX, engines=(engine_url,)))


async def _bar(client: httpx.AsyncClient) -> None:
    for _ in range(MAX):
        assert (await client.get("/v1/models", headers=WRONG)).status_code == 401


async def test_each_api_says_it_in_its_words(strict: Box) -> None:
    """429 with Retry-After: OpenAI's error object on /v1, TGI's on its addresses, ours elsewhere."""
    async with strict.http() as client:
        await _bar(client)
        answers = {
            path: await client.request(method, path, headers=WRONG, json={"inputs": "x"})
            for method, path in (
                ("GET", "/v1/models"),
                ("POST", "/v1/chat/completions"),
                ("POST", "/generate"),
                ("GET", "/api/usage"),
                ("GET", "/metrics"),
                ("GET", "/schema/openapi.json"),
            )
        }
    for path, answer in answers.items():
        assert answer.status_code == 429, path
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.headers["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in answer.headers
    for path in ("/v1/models", "/v1/chat/completions"):
        error = answers[path].json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_refusals")
    assert answers["/generate"].json()["error_type"] == "overloaded"
    assert answers["/api/usage"].json()["error"].keys() == {"message", "code", "param"}


async def test_who_was_known_goes_on(strict: Box) -> None:
    """A key and a cookie that worked before do not notice; nor do those who send none, and log in."""
    ann = await strict.person("ann", password=PASSWORD)
    async with strict.http() as browser, strict.http() as client:
        await browser.post("/api/login", json={"name": "ann", "password": PASSWORD})
        assert (await browser.get("/api/session")).json()["principal"]["name"] == "ann"
        assert (await client.get("/v1/models", headers=ann.bearer)).status_code == 200
        await _bar(client)
        assert (await client.get("/v1/models", headers=WRONG)).status_code == 429
        assert (await client.get("/v1/models", headers=ann.bearer)).status_code == 200
        assert (await browser.get("/api/session")).json()["principal"]["name"] == "ann"
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/api/session")).json() == {"principal": None}
        login = await client.post("/api/login", json={"name": "ann", "password": PASSWORD})
        assert login.status_code == 200
        # And whoever has just come in stays in, and can make a key that works.
        made = await client.post("/api/keys", json={"label": "new"})
        assert made.status_code == 201
        headers = {"Authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_a_known_key_that_asks_a_model_goes_on(strict: Box) -> None:
    """The hot path remembers principals by itself, and is not asked about addresses at all."""
    ann = await strict.person("ann")
    body = {"model": "stand-in", "messages": [{"role": "user", "content": "x"}]}
    async with strict.http() as client:
        before = await client.post("/v1/chat/completions", json=body, headers=ann.bearer)
        await _bar(client)
        after = await client.post("/v1/chat/completions", json=body, headers=ann.bearer)
    assert (before.status_code, after.status_code) == (200, 200)


async def test_cookies_and_links_count_too(strict: Box) -> None:
    """Two wrong cookies and two wrong links are four."""
    async with strict.http() as client:
        for token in ("a", "b"):
            cookie = {"Cookie": f"wirthforge_session={token}"}
            assert (await client.get("/api/usage", headers=cookie)).status_code == 401
            assert (await client.post("/api/setup/check", json={"token": token})).status_code == 404
        for path in ("/api/setup/check", "/api/setup"):
            answer = await client.post(path, json={"token": "c", "password": PASSWORD})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_refusals")


async def test_each_visitor_behind_a_trusted_proxy_is_another(strict: Box) -> None:
    """One visitor is barred, with all of their IPv6 network; the next is not."""
    async with strict.http() as client:
        statuses = [
            (await client.get("/v1/models", headers={**WRONG, "X-Forwarded-For": f"2001:db8::{n}"})).status_code
            for n in range(MAX + 1)
        ]
        other = {**WRONG, "X-Forwarded-For": "2001:db8:0:1::1"}
        assert statuses == [401] * MAX + [429]
        assert (await client.get("/v1/models", headers=other)).status_code == 401


async def test_another_scheme_is_no_attempt(strict: Box) -> None:
    """What is no key of ours is refused without asking anybody, and counts nothing."""
    async with strict.http() as client:
        for _ in range(2 * MAX):
            answer = await client.get("/v1/models", headers={"Authorization": "Basic eDp5"})
            assert answer.status_code == 401


async def test_a_websocket_is_told(strict: Box) -> None:
    """The close code is the status behind a 4."""
    async with strict.http() as client:
        await _bar(client)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{strict.url}/api/live", headers=WRONG) as socket,
    ):
        message = await socket.receive(timeout=10)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4429)


async def test_one_person_has_so_many_websockets(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is closed at once, and does not end the others; when one goes there is room again."""
    monkeypatch.setattr("server.web.sharing.SOCKETS_PER_PERSON_MAX", 3)
    ann, ben = await box.person("ann"), await box.person("ben")
    async with aiohttp.ClientSession() as session:

        async def watch(person: dict[str, str]) -> tuple[aiohttp.ClientWebSocketResponse, aiohttp.WSMessage]:
            socket = await session.ws_connect(f"{box.url}/api/live", headers=person)
            return socket, await socket.receive(timeout=10)

        opened = [await watch(ann.bearer) for _ in range(3)]
        assert {first.type for _, first in opened} == {aiohttp.WSMsgType.TEXT}
        assert (await watch(ann.bearer))[1].data == 4503
        assert (await watch(ben.bearer))[1].type is aiohttp.WSMsgType.TEXT
        await opened[0][0].close()
        # The server hears of the end a moment later.
        kinds = {(await watch(ann.bearer))[1].type for _ in range(20)}
        assert aiohttp.WSMsgType.TEXT in kinds
