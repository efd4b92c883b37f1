"""A collector, and boxes that are traced."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import otlp_collector
from tests.stand_ins.openai_engine import Order
from tests.stand_ins.otlp_collector import Collector, Taken


@pytest.fixture(autouse=True)
def sent_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent soon."""
    monkeypatch.setattr("server.tracing.otlp.BATCH_MS", 20)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector."""
    async with otlp_collector.serve() as running:
        yield running


@dataclass
class Traced:
    """A traced box in front of the stand-in engine."""

    box: Box
    ann: Person
    order: Order
    collector: Collector


@pytest.fixture
def settings(settings: Settings, collector: Collector) -> Settings:
    """Boxes send traces to the collector."""
    return replace(settings, traces_url=collector.url)


@pytest.fixture
async def traced(make_box: MakeBox, settings: Settings, engine_url: str, order: Order, collector: Collector) -> Traced:
    """A box with four slots, ann on it, and all of its requests traced."""
    box = await make_box(replace(settings, engines=(f"lab={engine_url}",)))
    return Traced(box, await box.person("ann"), order, collector)


def tree(spans: Sequence[Taken]) -> dict[str, list[str]]:
    """Names of children by the name of what they are a part of; "" for the root. In the order of their beginning."""
    names = {span.id: span.name for span in spans}
    found: dict[str, list[str]] = {}
    for span in sorted(spans, key=lambda span: span.began_ns):
        found.setdefault(names.get(span.parent, ""), []).append(span.name)
    return found


def only(spans: Sequence[Taken], name: str) -> Taken:
    """The one span that is called so."""
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, [span.name for span in spans]
    return found[0]
