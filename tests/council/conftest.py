"""What tests of councils share: a box with three models on real sockets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Order, saying


@dataclass
class Panel:
    """A box with three models, and what each of them is ordered to do."""

    box: Box
    ann: Person
    orders: dict[str, Order]

    def say(self, **texts: str) -> None:
        """What each says from now on."""
        for model, text in texts.items():
            self.orders[model].behaviour = saying(text)


@pytest.fixture
async def panel(make_box: MakeBox, settings: Settings) -> AsyncIterator[Panel]:
    """Models a, b and c, each on an engine of its own."""
    orders = {model: Order(model=model) for model in ("a", "b", "c")}
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(openai_engine.serve(order)) for order in orders.values()]
        box = await make_box(replace(settings, engines=tuple(urls)))
        yield Panel(box, await box.person("ann"), orders)
