"""Boxes with a cloud over them."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from server.cloud import overflow
from server.privacy.sealed import new_key
from server.settings import Settings
from tests.cloud.boxes import LOOKER, QUEUE_MAX, Sky, looking
from tests.conftest import MakeBox
from tests.stand_ins import cloud_provider, openai_engine
from tests.stand_ins.openai_engine import Order


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Engines are held for as long as a test likes, and providers' keys can be kept."""
    return replace(settings, engine_silence_ms_max=60_000, encryption_key=new_key(), queue_length_max=QUEUE_MAX)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told every few milliseconds, from a fresh look."""
    monkeypatch.setattr("server.sharing.waiting.TELL_MS", 20)
    monkeypatch.setattr("server.sharing.waiting.TELL_FIRST_MS", 20)
    monkeypatch.setattr("server.sharing.outlook.FRESH_MS", 10)
    monkeypatch.setattr("server.cloud.consents.LOOK_MS", 20)


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[overflow.Switch]:
    """Those of the boxes that are started, so that a test need not wait until they look."""
    made: list[overflow.Switch] = []

    class Noted(overflow.Switch):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr("server.cloud.joined.Switch", Noted)
    return made


@pytest.fixture
async def cloud() -> AsyncIterator[cloud_provider.Cloud]:
    """A provider, far away."""
    async with cloud_provider.serve() as cloud:
        yield cloud


@pytest.fixture
async def looker() -> AsyncIterator[tuple[Order, str]]:
    """A local model that looks for personal data, and finds ann's friend."""
    order = Order(model=LOOKER, behaviour=looking("Jane Doe"))
    async with openai_engine.serve(order) as url:
        yield order, url


@pytest.fixture
async def quiet_sky(  # noqa: PLR0913, PLR0917 (what it is made of)
    make_box: MakeBox,
    settings: Settings,
    order: Order,
    engine_url: str,
    looker: tuple[Order, str],
    cloud: cloud_provider.Cloud,
    switches: list[overflow.Switch],
    soon: None,  # noqa: ARG001 (asking for it is enough)
) -> Sky:
    """A box with one slot, a looking model and a provider; nothing may leave yet."""
    box = await make_box(replace(settings, engines=(engine_url, f"looker={looker[1]}"), engine_slots=1))
    admin = await box.person("admin", "admin")
    ann, bob = await box.person("ann"), await box.person("bob")
    sky = Sky(box, cloud, order, looker[0], engine_url, switches, admin, ann, bob)
    cloud.witness = sky.witness
    return sky


@pytest.fixture
async def sky(quiet_sky: Sky) -> AsyncIterator[Sky]:
    """The same, where everything is allowed to ann, who has no patience; every body that arrives is in the ledger."""
    sky = quiet_sky
    await sky.provide()
    await sky.box.allow(sky.ann, cloud_cents_per_month=1_000)
    await sky.box_says(is_on=True, detection_model=LOOKER, detection_ms=20_000)
    await sky.ann_says(mode="allow", patience_ms=0)
    yield sky
    assert sky.unwritten == []
