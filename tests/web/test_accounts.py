"""What a browser does with an account: cookies, set-up links, passwords, keys."""

from http.cookies import SimpleCookie

import httpx
import openai
import pytest
from msgspec.structs import replace

from server.accounts.authentication import COOKIE, SECURE_COOKIE
from server.settings import Settings
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox

LOGIN = {"name": "ann", "password": PASSWORD}
NEW = "another password"


async def _name(client: httpx.AsyncClient) -> str | None:
    principal = (await client.get("/api/session")).json()["principal"]
    return principal and str(principal["name"])


def _cookie(answer: httpx.Response) -> dict[str, str]:
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    return {name: str(value) for name, value in morsel.items() if value} | {"name": morsel.key}


async def test_the_cookie_is_out_of_reach(box: Box) -> None:
    """No script reads it, no other site sends it, and it goes to this server only."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        answer = await client.post("/api/login", json=LOGIN)
    assert _cookie(answer) == {
        "name": "wirthforge_session",
        "httponly": "True",
        "samesite": "lax",
        "path": "/",
        "max-age": str(400 * 24 * 60 * 60),
    }
    assert answer.json() == {"id": answer.json()["id"], "name": "ann", "role": "member", "key_id": None}


async def test_behind_https_the_cookie_is_secure(box: Box) -> None:
    """A trusted proxy says that the browser came by https: then no neighbour can plant one (`__Host-`)."""
    await box.person("ann", password=PASSWORD)
    async with box.http(headers={"X-Forwarded-Proto": "https"}) as client:
        came = await client.post("/api/login", json=LOGIN)
        token = client.cookies[SECURE_COOKIE]
        # The client's own address is http: it would not send a Secure cookie back.
        mine = {"Cookie": f"{SECURE_COOKIE}={token}"}
        assert (await client.get("/api/session", headers=mine)).json()["principal"]["name"] == "ann"
        went = await client.post("/api/logout", headers=mine)
        assert (await client.get("/api/session", headers=mine)).json()["principal"] is None
    attributes = {"name": SECURE_COOKIE, "secure": "True", "httponly": "True", "samesite": "lax", "path": "/"}
    assert _cookie(came) == {**attributes, "max-age": str(400 * 24 * 60 * 60)}
    assert _cookie(went) == {**attributes, "max-age": "0"}


async def test_a_cookie_is_for_its_line(box: Box) -> None:
    """Over https the name that anybody could plant is not heeded, and over http the other one is not."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        await client.post("/api/login", json=LOGIN)
        token = client.cookies[COOKIE]
    for name, scheme, is_heeded in (
        (COOKIE, "http", True),
        (COOKIE, "https", False),
        (SECURE_COOKIE, "https", True),
        (SECURE_COOKIE, "http", False),
    ):
        headers = {"Cookie": f"{name}={token}", "X-Forwarded-Proto": scheme}
        async with box.http(headers=headers) as client:
            assert (await _name(client) == "ann") is is_heeded, (name, scheme)


async def test_strangers_forward_nothing(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """What an untrusted client says about proxies is not believed: neither the scheme nor the address."""
    box = await make_box(replace(settings, trusted_proxies="192.0.2.1", engines=(engine_url,)))
    await box.person("ann", password=PASSWORD)
    wrong = {"name": "ann", "password": "wrong password"}
    async with box.http(headers={"X-Forwarded-Proto": "https"}) as client:
        assert "secure" not in _cookie(await client.post("/api/login", json=LOGIN))
        seen = [
            (await client.post("/api/login", json=wrong, headers={"X-Forwarded-For": f"203.0.113.{n}"})).status_code
            for n in range(6)
        ]
    assert seen == [401] * 5 + [429]


async def test_a_proxy_forwards_the_address(box: Box) -> None:
    """Behind a trusted proxy each visitor has attempts of their own."""
    wrong = {"name": "ann", "password": "wrong password"}
    async with box.http() as client:
        seen = [
            (await client.post("/api/login", json=wrong, headers={"X-Forwarded-For": f"203.0.113.{n}"})).status_code
            for n in range(6)
        ]
    assert seen == [401] * 6


async def test_logging_out(box: Box) -> None:
    """The session is over, also for whoever kept the cookie; logging out twice is no fault."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        await client.post("/api/login", json=LOGIN)
        kept = client.cookies["wirthforge_session"]
        assert await _name(client) == "ann"
        for _ in range(2):
            assert (await client.post("/api/logout")).status_code == 204
        assert dict(client.cookies) == {}
    async with box.http(cookies={"wirthforge_session": kept}) as thief:
        assert await _name(thief) is None


async def test_a_new_password_logs_out_the_others(box: Box) -> None:
    """This browser stays in, every other one is out, and the old password is over."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as here, box.http() as there:
        for client in (here, there):
            await client.post("/api/login", json=LOGIN)
        wrong = await here.post("/api/password", json={"current": "wrong password", "new": NEW})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "wrong_password")
        short = await here.post("/api/password", json={"current": PASSWORD, "new": "short"})
        assert (short.status_code, short.json()["error"]["param"]) == (400, "password")
        assert [await _name(client) for client in (here, there)] == ["ann", "ann"]
        assert (await here.post("/api/password", json={"current": PASSWORD, "new": NEW})).status_code == 204
        assert [await _name(client) for client in (here, there)] == ["ann", None]
        assert (await there.post("/api/login", json=LOGIN)).status_code == 401
        assert (await there.post("/api/login", json={"name": "ann", "password": NEW})).status_code == 200


async def test_an_invitation_from_end_to_end(box: Box) -> None:
    """An admin invites, the link is followed once, and whoever followed it is logged in."""
    ann = await box.person("ann", "admin")
    async with box.http(headers=ann.bearer) as admin:
        invited = await admin.post("/api/admin/users", json={"name": "ben"})
        again = await admin.post("/api/admin/users", json={"name": "BEN"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    path, _, token = invited.json()["setup_path"].partition("#")
    assert path == "/setup"
    async with box.http() as ben:
        offer = await ben.post("/api/setup/check", json={"token": token})
        assert offer.json() == {"name": "ben", "role": "member"}
        taken = await ben.post("/api/setup", json={"token": token, "name": "Ann", "password": PASSWORD})
        assert taken.status_code == 409
        done = await ben.post("/api/setup", json={"token": token, "name": "Benjamin", "password": PASSWORD})
        assert (done.status_code, done.json()["name"]) == (200, "Benjamin")
        assert await _name(ben) == "Benjamin"
        dead = await ben.post("/api/setup", json={"token": token, "password": PASSWORD})
        assert (dead.status_code, dead.json()["error"]["code"]) == (404, "setup_link_invalid")


async def test_disabling_ends_everything_at_once(box: Box) -> None:
    """The cookie and the key stop with the next request; enabling brings the key back."""
    ann, ben = await box.person("ann", "admin"), await box.person("ben", password=PASSWORD)
    async with box.http(headers=ann.bearer) as admin, box.http() as browser, box.openai(ben) as program:
        await browser.post("/api/login", json={"name": "ben", "password": PASSWORD})
        change = f"/api/admin/users/{ben.user.id}"
        assert (await admin.patch(change, json={"disabled": True})).json()["disabled"] is True
        assert await _name(browser) is None
        with pytest.raises(openai.AuthenticationError):
            await program.models.list()
        assert (await browser.post("/api/login", json={"name": "ben", "password": PASSWORD})).status_code == 401
        assert (await admin.patch(change, json={"disabled": False})).json()["disabled"] is False
        assert (await program.models.list()).data


async def test_the_last_admin_cannot_leave(box: Box) -> None:
    """The conflict says what to do first."""
    ann = await box.person("ann", "admin")
    async with box.http(headers=ann.bearer) as admin:
        for change in ({"role": "member"}, {"disabled": True}):
            answer = await admin.patch(f"/api/admin/users/{ann.user.id}", json=change)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_admin")
            assert answer.json()["error"]["message"] == "The last admin stays: make somebody else admin first."


async def test_keys_over_http(box: Box) -> None:
    """Shown once, listed without the secret, used, and revoked by nobody else."""
    await box.person("ann", password=PASSWORD)
    ben = await box.person("ben", "admin")
    async with box.http() as client:
        await client.post("/api/login", json=LOGIN)
        made = (await client.post("/api/keys", json={"label": "editor", "expires_in_days": 7})).json()
        listed = (await client.get("/api/keys")).json()
        assert [key["label"] for key in listed] == ["editor", "test"]
        assert made["key"] not in str(listed)
        assert listed[0] == {name: value for name, value in made.items() if name != "key"} | {"last_used_at": None}
        path = f"/api/keys/{made['id']}"
        async with box.http(headers=ben.bearer) as other:
            assert (await other.delete(path)).status_code == 404
        assert (await client.delete(path)).status_code == 204
        assert [key["label"] for key in (await client.get("/api/keys")).json()] == ["test"]


async def test_a_revoked_key_is_refused_in_openais_shape(box: Box) -> None:
    """With the next request, as OpenAI's own client understands it."""
    ann = await box.person("ann")
    async with box.openai(ann) as program, box.http(headers=ann.bearer) as client:
        assert [model.id for model in (await program.models.list()).data] == ["stand-in", "council:self"]
        (key,) = (await client.get("/api/keys")).json()
        assert key["last_used_at"] is not None
        await client.delete(f"/api/keys/{key['id']}")
        with pytest.raises(openai.AuthenticationError) as caught:
            await program.models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.type == "authentication_error"
    assert "This API key is not known, was revoked, or has expired." in caught.value.message
