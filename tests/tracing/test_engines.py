"""What engines of other kinds are told, and answers that outlive their request."""

from typing import Any

import pytest

from server.clock import SystemClock
from server.engines.tgi import Tgi
from server.tracing.otlp import Traces
from tests.conversations.conftest import Writer
from tests.stand_ins import tgi_engine
from tests.stand_ins.openai_engine import MODEL
from tests.stand_ins.otlp_collector import Collector
from tests.tracing.conftest import Traced, only, tree

ASKING = "POST /api/conversations/{conversation_id}/messages"

clock = SystemClock()


@pytest.mark.parametrize("surface", ["chat.completions", "completions"])
async def test_text_generation_inference_is_told_too(collector: Collector, surface: Any) -> None:
    """On both of its ways, also the one through its own client."""
    order = tgi_engine.Order()
    traces = Traces(collector.url, percent=100, resource={}, clock=clock)
    async with tgi_engine.serve(order) as url:
        tgi = Tgi(url, name="tgi", slots=1, silence_ms_max=3_000)
        await tgi.probe()
        body: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 3}
        body |= {"prompt": "text"} if surface == "completions" else {"messages": [{"role": "user", "content": "text"}]}
        with (span := traces.begin("POST /", {}, ())).within():
            reply = await tgi.open(surface, body, "request", "salt")
        _ = [chunk async for chunk in reply.chunks()]
        reply.close()
        await tgi.close()
    assert order.headers[-1]["traceparent"] == span.headers["traceparent"]
    await traces.close()


async def test_an_answer_of_a_conversation_is_a_part_of_its_request(traced: Traced) -> None:
    """It goes on when the request is over, and hangs on it all the same."""
    traced.order.hold.clear()
    traced.order.held_after = 1
    async with traced.box.http(headers=traced.ann.bearer) as client:
        ann = Writer(traced.box, traced.ann, client)
        conversation = await ann.begin()
        async with ann.asking(conversation, "Why is the sky blue?") as events:
            await events.until("word0")
        root = only(await traced.collector.trace(root=ASKING), ASKING)
        assert root.attributes["wirthforge.client_left"] is True
        assert not [span for span in traced.collector.spans if span.kind == "client"]
        traced.order.hold.set()
        spans = await traced.collector.trace(root=ASKING, count=3)
        await ann.settled()
    assert tree(spans)[ASKING] == ["queue", f"chat {MODEL}"]
    assert only(spans, f"chat {MODEL}").attributes["wirthforge.outcome"] == "completed"
    assert b"sky" not in b"".join(traced.collector.received)


async def test_a_load_is_as_long_as_it_took(collector: Collector) -> None:
    """Whoever waited for a model to be loaded has a span that says how long, and ends when it was."""
    traces = Traces(collector.url, percent=100, resource={}, clock=clock)
    root = traces.begin("POST /", {}, ())
    root.past("load", 1_500, {"wirthforge.engine": "lab"})
    root.end()
    await traces.close()
    load = only(collector.spans, "load")
    assert load.ended_ns - load.began_ns == 1_500_000_000
    assert load.parent == only(collector.spans, "POST /").id
