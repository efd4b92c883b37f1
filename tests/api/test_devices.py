"""Engines and the devices that they name, from end to end: what cannot be is refused, and what can is kept."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.boxes import Box
from tests.conftest import MakeBox

PATH = "/api/admin/engines"


@pytest.fixture
async def empty(make_box: MakeBox) -> Box:
    """A box without engines."""
    return await make_box(engines=[])


@pytest.fixture
async def admin(empty: Box) -> AsyncIterator[httpx.AsyncClient]:
    """Its admin's client."""
    root = await empty.person("root", "admin")
    async with empty.http(headers=root.bearer) as client:
        yield client


def spec(name: str, url: str, *devices: str) -> dict[str, Any]:
    """An engine on some devices."""
    return {"name": name, "kind": "openai", "url": url, "devices": list(devices)}


async def test_devices_are_those_of_the_machine(admin: httpx.AsyncClient, engine_url: str) -> None:
    """The name of a device is that at /api/hardware; another is refused, when it is added and when it is changed."""
    shown = (await admin.get("/api/hardware")).json()
    (host,) = [device["uuid"] for device in shown["devices"] if device["kind"] == "cpu"]
    refused = await admin.post(PATH, json=spec("one", engine_url, "GPU-nowhere"))
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("This host has no device 'GPU-nowhere'. It has ")
    assert refused.json()["error"]["param"] == "devices"
    assert (await admin.post(PATH, json=spec("one", engine_url, host))).status_code == 201
    changed = await admin.patch(f"{PATH}/one", json={"devices": ["GPU-nowhere"]})
    assert changed.status_code == 400
    assert (await admin.patch(f"{PATH}/one", json={"devices": []})).status_code == 200
