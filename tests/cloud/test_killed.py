"""A real server process that is killed in the midst of a cloud's answer: the ledger has its end all the same."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import create_async_engine

from server.accounts.access import Access
from server.accounts.keys import ApiKeys
from server.cloud.jobs import use_abandoned
from server.db.session import async_url
from server.privacy.egress_verdict import verify
from server.privacy.ends import end_abandoned
from server.privacy.sealed import new_key
from server.settings import Settings
from tests.cli.programs import House
from tests.cloud.boxes import CHAT, PATH
from tests.cloud.worlds import world_of
from tests.stand_ins.cloud_provider import Cloud
from tests.stand_ins.openai_engine import Order


@pytest.fixture
def house() -> Iterator[House]:
    """A folder for the server."""
    home = Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp"))
    yield House(home)
    shutil.rmtree(home)


async def test_a_server_that_is_killed_leaves_an_end_to_upkeep(
    house: House, settings: Settings, order: Order, engine_url: str, looker: tuple[Order, str], cloud: Cloud
) -> None:
    """The provider sees the line cut; an hour later the request is ended as abandoned, and all it reserved is spent."""
    settings = replace(settings, encryption_key=new_key())
    order.hold.clear()
    cloud.hold.clear()
    cloud.held_after = 2
    async with world_of(settings, cloud) as world:
        access = Access(world.quotas._access._ledger, world.clock)
        _, key = await ApiKeys(world.database, access, world.clock).create(world.ann.id, "test")
        server = await asyncio.to_thread(
            house.start,
            "serve",
            "--port",
            "0",
            DATABASE_URL=settings.database_url,
            REDIS_URL=settings.redis_url,
            WIRTHFORGE_ENGINES=f"{engine_url},looker={looker[1]}",
            WIRTHFORGE_ENGINE_SLOTS="1",
            WIRTHFORGE_ENCRYPTION_KEY=settings.encryption_key,
        )
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
            # The first one holds the slot; it is not to leave.
            holding = asyncio.create_task(client.post(PATH, json=CHAT, headers={"x-wirthforge-cloud": "private"}))
            await order.began.wait()
            asking = asyncio.create_task(client.post(PATH, json=CHAT | {"stream": True}))
            await cloud.began.wait()
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.wait([asking, holding])
            asking.exception()
            holding.exception()
        await cloud.gone.wait()
        (send,) = await world.rows("SELECT * FROM egress")
        assert (send.kind, send.user_id) == ("send", world.ann.id)
        assert await world.reserved() == send.reserved_micros > 0
        said: list[str] = []
        await _upkeep(settings, world.clock.now(), said)
        assert said == ["every request that left has its end"]
        await _upkeep(settings, world.clock.now() + timedelta(hours=2), said)
        assert await world.entries(send.request_id) == ["send", "abandoned"]
        (month,) = await world.rows("SELECT * FROM cloud_spend")
        assert (month.reserved_micros, month.spent_micros) == (0, send.reserved_micros)
        used = await world.rows("SELECT * FROM usage WHERE placement = 'cloud'")
        assert [(row.request_id, row.user_id, row.outcome) for row in used] == [
            (send.request_id, world.ann.id, "abandoned")
        ]
        assert (used[0].engine, used[0].cost_micros) == (send.provider, send.reserved_micros)
        async with world.database.transaction(everybody=True) as session:
            assert (await verify(session, world.clock.now())).broken == []


async def _upkeep(settings: Settings, now: datetime, said: list[str]) -> None:
    """The job `cloud ends`, as the tables' owner runs it."""
    engine = create_async_engine(async_url(settings.database_url))
    async with engine.connect() as connection:
        await end_abandoned(connection, now, said.append, use=use_abandoned)
    await engine.dispose()
