"""Taking one's data along, and leaving: over HTTP, as a browser, a program and an admin do it."""

import asyncio
import io
import json
import zipfile
from uuid import uuid4

import httpx
import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine

LOGIN = {"name": "ann", "password": PASSWORD}
ASK = {"model": "stand-in", "messages": [{"role": "user", "content": "a secret"}], "stream": True}


async def _ask(client: httpx.AsyncClient) -> str:
    """A conversation with one answer; its id."""
    chat = (await client.post("/api/conversations", json={})).json()["id"]
    question: dict[str, object] = {"parent_id": None, "content": "a secret", "model": "stand-in", "options": {}}
    answer = await client.post(f"/api/conversations/{chat}/messages", json=question)
    assert answer.status_code == 200
    return str(chat)


async def test_everything_of_oneself_as_a_file(box: Box) -> None:
    """A zip file with one's conversations and usage; of others there is nothing in it."""
    ann, ben = await box.person("ann"), await box.person("ben")
    async with box.http(headers=ann.bearer) as client:
        chat = await _ask(client)
        await box.usage(1)
        answer = await client.get("/api/account/export")
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="account.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        found = {name: json.loads(file.read(name)) for name in file.namelist()}
    assert [row["id"] for row in found["conversations.json"]] == [chat]
    assert found["messages.json"][0]["content"] == "a secret"
    assert [row["model"] for row in found["usage.json"]] == ["stand-in"]
    assert found["users.json"][0]["name"] == "ann"
    assert "wf-" not in json.dumps(found).replace(ann.key[:11], "")
    async with box.http(headers=ben.bearer) as client:
        other = await client.get("/api/account/export")
    with zipfile.ZipFile(io.BytesIO(other.content)) as file:
        assert b"secret" not in b"".join(map(file.read, file.namelist()))


async def test_somebody_leaves(box: Box) -> None:
    """With the password again; then cookie, key and name are nobody's, and an admin can read the receipt."""
    ann, root = await box.person("ann", password=PASSWORD), await box.person("root", "admin")
    async with box.http() as browser, box.http(headers=ann.bearer) as program, box.http(headers=root.bearer) as admin:
        await browser.post("/api/login", json=LOGIN)
        await _ask(browser)
        await box.usage(1)
        wrong = await browser.request("DELETE", "/api/account", json={"password": "not that one"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "wrong_password")
        assert (await program.get("/api/keys")).status_code == 200
        left = await browser.request("DELETE", "/api/account", json={"password": PASSWORD})
        receipt = left.json()
        assert left.status_code == 200
        assert receipt["done_at"] is not None
        assert receipt["asked_by"] == receipt["person_id"] == str(ann.user.id)
        assert {name: receipt["removed"][name] for name in ("users", "conversations", "messages", "api_keys")} == {
            "users": 1, "conversations": 1, "messages": 2, "api_keys": 1,
        }  # fmt: skip
        assert receipt["made_nobodys"] == {"usage": 1}
        assert dict(browser.cookies) == {}
        assert (await program.get("/api/keys")).status_code == 401
        assert (await browser.post("/api/login", json=LOGIN)).status_code == 401
        assert [person["name"] for person in (await admin.get("/api/admin/users")).json()] == ["root"]
        assert (await admin.get(f"/api/admin/removals/{receipt['id']}")).json() == receipt
        assert (await admin.get("/api/admin/removals")).json() == [receipt]
        assert (await admin.get(f"/api/admin/removals/{uuid4()}")).status_code == 404
        # The name is free, and whoever takes it has nothing of hers.
        again = await box.person("ann", password=PASSWORD)
        async with box.http(headers=again.bearer) as other:
            assert (await other.get("/api/conversations")).json()["conversations"] == []
        usage = (await admin.get("/api/admin/usage?by=user")).json()["rows"]
        assert [(row["user"], row["requests"]) for row in usage] == [(None, 1)]


async def test_an_admin_removes_somebody(box: Box) -> None:
    """By id; the last admin cannot be removed, nor remove themselves; and of usage nothing stays where that is said."""
    ann = await box.person("ann")
    root = await box.person("root", "admin", PASSWORD)
    async with box.http(headers=ann.bearer) as client:
        await _ask(client)
        await box.usage(1)
    async with box.http(headers=root.bearer) as admin:
        for answer in (
            await admin.delete(f"/api/admin/users/{root.user.id}"),
            await admin.request("DELETE", "/api/account", json={"password": PASSWORD}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_admin")
        assert (await admin.delete(f"/api/admin/users/{uuid4()}")).status_code == 404
        receipt = (await admin.delete(f"/api/admin/users/{ann.user.id}?usage=nothing")).json()
        assert receipt["asked_by"] == str(root.user.id)
        assert receipt["removed"]["usage"] == 1
        assert "usage" not in {kept["what"] for kept in receipt["kept"]}
        assert (await admin.get("/api/admin/usage")).json()["total"]["requests"] == 0


async def test_what_runs_for_them_ends(box: Box, order: openai_engine.Order) -> None:
    """A stream of theirs breaks off, and its engine is let go; others go on."""
    ann, ben, root = await box.person("ann"), await box.person("ben"), await box.person("root", "admin")
    order.held_after = 1
    order.hold.clear()

    async def stream(person_key: dict[str, str], began: asyncio.Event) -> str:
        async with (
            box.http(headers=person_key) as client,
            client.stream("POST", "/v1/chat/completions", json=ASK) as answer,
        ):
            said = ""
            async for part in answer.aiter_text():
                said += part
                began.set()
            return said

    began = [asyncio.Event(), asyncio.Event()]
    hers, his = (
        asyncio.create_task(stream(person.bearer, event)) for person, event in zip((ann, ben), began, strict=True)
    )
    await asyncio.gather(*(event.wait() for event in began))
    async with box.http(headers=root.bearer) as admin:
        receipt = (await admin.delete(f"/api/admin/users/{ann.user.id}")).json()
    assert receipt["done_at"] is not None
    said = await asyncio.wait_for(hers, 10)
    assert '"error"' in said
    assert "[DONE]" not in said
    assert not his.done()
    order.hold.set()
    assert "[DONE]" in await his
    # What she had used is written after she has gone, and goes with the next run of upkeep.
    await box.usage(2)


@pytest.mark.parametrize("stays", ["sums", "nothing"])
async def test_the_setting_says_what_stays_of_usage(
    make_box: MakeBox, settings: Settings, engine_url: str, stays: str
) -> None:
    """Unless whoever asks says otherwise."""
    box = await make_box(replace(settings, engines=(engine_url,), removed_people_usage=stays))
    await box.person("root", "admin")
    ann = await box.person("ann", password=PASSWORD)
    async with box.http(headers=ann.bearer) as client:
        await _ask(client)
        await box.usage(1)
        receipt = (await client.request("DELETE", "/api/account", json={"password": PASSWORD})).json()
    assert receipt["made_nobodys"].get("usage", 0) == (stays == "sums")
