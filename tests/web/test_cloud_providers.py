"""Providers of cloud models through the API: added, checked, changed and removed; their keys go in and never out."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from server.privacy.sealed import new_key
from server.settings import Settings
from tests.boxes import Box
from tests.conftest import MakeBox
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL, Cloud

PATH = "/api/admin/cloud/providers"
KEY = "sk-key-of-a-provider"
PRICED = {"name": MODEL, "input_micros_per_million": 3_000_000, "output_micros_per_million": 15_000_000}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """A provider's stand-in."""
    async with cloud_provider.serve() as running:
        yield running


@pytest.fixture
async def sealing(make_box: MakeBox, settings: Settings) -> Box:
    """A box with an encryption key, and no engine."""
    return await make_box(replace(settings, encryption_key=new_key()), engines=[])


@pytest.fixture
async def admin(sealing: Box) -> AsyncIterator[httpx.AsyncClient]:
    """Its admin's client."""
    root = await sealing.person("root", "admin")
    async with sealing.http(headers=root.bearer) as client:
        yield client


def spec(url: str, **more: Any) -> dict[str, Any]:
    """A provider as an admin writes it."""
    return {"name": "far", "kind": "openai", "url": url, "api_key": KEY, "models": [PRICED], **more}


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_provider_is_added_checked_changed_and_removed(admin: httpx.AsyncClient, cloud: Cloud) -> None:
    """Nothing is sent there but for the check, which brings the key and no text."""
    answer = await admin.post(PATH, json=spec(cloud.url))
    assert answer.status_code == 201, answer.text
    added = answer.json()
    model = PRICED | {"stands_in_for": [], "output_tokens_max": 4096, "context_tokens": None, "leaves_out": []}
    assert added == {
        "name": "far",
        "kind": "openai",
        "url": cloud.url,
        "models": [model],
        "is_enabled": True,
        "has_key": True,
        "is_resting": False,
        "problem": None,
    }
    assert (await admin.get(PATH)).json() == [added]
    assert cloud.connections == []
    checked = await admin.post(f"{PATH}/far/check")
    assert checked.json() == {"is_reachable": True, "models": [MODEL], "reason": None}
    assert [(seen.method, seen.path) for seen in cloud.seen] == [("GET", "/v1/models")]
    assert cloud.bodies == []
    wider = [PRICED | {"stands_in_for": ["llama*"], "leaves_out": ["temperature"]}]
    changed = (await admin.patch(f"{PATH}/far", json={"models": wider, "is_enabled": False})).json()
    assert changed["models"] == [model | wider[0]]
    assert (changed["is_enabled"], changed["has_key"]) == (False, True)
    assert (await admin.delete(f"{PATH}/far")).status_code == 204
    assert (await admin.get(PATH)).json() == []
    for answer in (
        await admin.delete(f"{PATH}/far"),
        await admin.patch(f"{PATH}/far", json={}),
        await admin.post(f"{PATH}/far/check"),
    ):
        assert code(answer) == (404, "provider_not_found")


async def test_the_key_is_shown_to_nobody(
    admin: httpx.AsyncClient, cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """It goes to its provider, and neither into answers nor the audit log nor the log, also where it is refused."""
    cloud.behaviour = cloud_provider.refusing("401 Unauthorized", {"error": {"message": f"No such key: {KEY}-2"}})
    texts = [
        (await admin.post(PATH, json=spec(cloud.url))).text,
        (await admin.patch(f"{PATH}/far", json={"api_key": f"{KEY}-2"})).text,
        (await admin.post(f"{PATH}/far/check")).text,
        (await admin.get(PATH)).text,
        (await admin.post(PATH, json=spec(cloud.url))).text,
        (await admin.patch(f"{PATH}/far", json={"api_key": f"{KEY}\n"})).text,
        (await admin.patch(f"{PATH}/far", json={"url": f"https://ann:{KEY}@far.example"})).text,
        (await admin.get("/api/admin/audit")).text,
    ]
    assert cloud.seen[-1].headers["authorization"] == f"Bearer {KEY}-2"
    assert "does not accept this box's key" in texts[2]
    out, err = capfd.readouterr()
    assert KEY not in "".join([*texts, out, err])


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "gemini"},
        {"name": ""},
        {"name": "a b"},
        {"name": "a/b"},
        {"name": "x" * 101},
        {"url": "http://far.example/v1"},
        {"url": "https://169.254.169.254/v1"},
        {"url": "https://a/" + "x" * 500},
        {"url": None},
        {"api_key": "ä"},
        {"api_key": "x" * 2001},
        {"api_key": None},
        {"models": [{"name": MODEL}]},
        {"models": [PRICED, PRICED]},
        {"models": [PRICED | {"input_micros_per_million": -1}]},
        {"models": [PRICED | {"output_tokens_max": 0}]},
        {"models": [PRICED | {"leaves_out": ["messages"]}]},
    ],
)
async def test_what_is_no_provider_is_refused(admin: httpx.AsyncClient, more: dict[str, Any]) -> None:
    """With a sentence, and nothing is kept."""
    answer = await admin.post(PATH, json=spec("https://far.example/v1") | more)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].endswith(".")
    assert (await admin.get(PATH)).json() == []


async def test_a_key_does_not_move_by_itself(admin: httpx.AsyncClient, cloud: Cloud) -> None:
    """Another URL needs the key once more; what stays as it was is not lost by asking."""
    await admin.post(PATH, json=spec("https://far.example/v1"))
    refused = await admin.patch(f"{PATH}/far", json={"url": cloud.url})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "api_key")
    assert (await admin.patch(f"{PATH}/far", json={"url": cloud.url, "api_key": "new"})).status_code == 200
    await admin.post(f"{PATH}/far/check")
    assert cloud.seen[-1].headers["authorization"] == "Bearer new"


async def test_a_check_says_why_not(admin: httpx.AsyncClient, cloud: Cloud) -> None:
    """In a sentence; a fault of the provider is none of ours."""
    async with cloud_provider.serve() as elsewhere:
        cloud.behaviour = cloud_provider.redirecting(f"{elsewhere.url}/models")
        await admin.post(PATH, json=spec(cloud.url))
        checked = (await admin.post(f"{PATH}/far/check")).json()
        assert (checked["is_reachable"], checked["models"]) == (False, [])
        assert "redirects" in checked["reason"]
        assert elsewhere.connections == []


async def test_a_box_without_an_encryption_key_says_what_to_do(make_box: MakeBox) -> None:
    """It keeps no provider."""
    box = await make_box(engines=[])
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as client:
        answer = await client.post(PATH, json=spec("https://far.example/v1"))
        assert code(answer) == (409, "no_encryption_key")
        assert "WIRTHFORGE_ENCRYPTION_KEY" in answer.json()["error"]["message"]
        assert (await client.get(PATH)).json() == []


async def test_another_encryption_key_opens_nothing(make_box: MakeBox, settings: Settings, cloud: Cloud) -> None:
    """As after a restore without it: the provider is there, has a problem, and is well again with its key."""
    first = await make_box(replace(settings, encryption_key=new_key()), engines=[])
    root = await first.person("root", "admin")
    async with first.http(headers=root.bearer) as client:
        await client.post(PATH, json=spec(cloud.url))
    second = await make_box(replace(settings, encryption_key=new_key()), engines=[])
    async with second.http(headers=root.bearer) as client:
        [found] = (await client.get(PATH)).json()
        assert found["has_key"] is None
        assert "enter it again" in found["problem"]
        assert (await client.post(f"{PATH}/far/check")).json()["reason"] == found["problem"]
        assert cloud.connections == []
        healed = (await client.patch(f"{PATH}/far", json={"api_key": KEY})).json()
        assert (healed["has_key"], healed["problem"]) == (True, None)


async def test_members_see_no_provider(sealing: Box, admin: httpx.AsyncClient) -> None:
    """Not even that there is one."""
    await admin.post(PATH, json=spec("https://far.example/v1"))
    ben = await sealing.person("ben")
    async with sealing.http(headers=ben.bearer) as client:
        for method, path in (("GET", PATH), ("POST", PATH), ("PATCH", f"{PATH}/far"), ("POST", f"{PATH}/far/check")):
            assert code(await client.request(method, path, json=spec("https://a.example"))) == (403, "admin_only")
