"""What the tests of pauses share."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from server.settings import Settings
from tests.conftest import MakeBox
from tests.continuation.stage import Stage, know, storytellers


@pytest.fixture
async def stage(make_box: MakeBox, settings: Settings, redis: Redis) -> AsyncIterator[Stage]:
    """A box with one engine of two slots."""
    async with storytellers("one") as (tellers, engines):
        box = await make_box(replace(settings, reserved_slots=0), engines=engines)
        await know(box, "one")
        tellers["one"].begun.clear()
        stage = Stage(box, tellers, redis)
        yield stage
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        tellers["one"].go.set()
