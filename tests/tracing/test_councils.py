"""Traces of councils: one span for the council, one for each call of a member."""

from aiohttp import web
from msgspec.structs import replace

from server.settings import Settings
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Order, saying
from tests.stand_ins.otlp_collector import Collector
from tests.tracing.conftest import only, tree

ROOT, COUNCIL = "POST /v1/chat/completions", "invoke_workflow council"
NUMBER = [{"role": "user", "content": "How many legs does a spider have? Answer with a number."}]
OPEN = [{"role": "user", "content": "What is the best way to store bread for a week, and why?"}]


async def test_a_council_is_a_span_with_its_members_in_it(
    make_box: MakeBox, settings: Settings, collector: Collector
) -> None:
    """Each call of a member is a part of the council, and its wait and its engine are parts of the call."""
    texts = {
        "a": "Bread keeps in a paper bag inside a wooden box",
        "b": "Freeze slices at once and toast them when needed",
        "c": "Linen cloth and a cool dark cellar",
    }
    a, b, c = (Order(model=model, behaviour=saying(text)) for model, text in texts.items())
    async with openai_engine.serve(a) as at_a, openai_engine.serve(b) as at_b, openai_engine.serve(c) as at_c:
        box = await make_box(replace(settings, engines=(at_a, at_b, at_c)))
        ann = await box.person("ann")
        async with box.http(headers=ann.bearer) as client:
            body = {"model": "council:3", "messages": OPEN}
            answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        # The root, the council, three members and the chair, each with a wait and an engine.
        spans = await collector.trace(root=ROOT, count=14)
    found = tree(spans)
    assert found[""] == [ROOT]
    assert found[ROOT] == [COUNCIL]
    assert sorted(found[COUNCIL])[:3] == ["invoke_agent a", "invoke_agent a", "invoke_agent b"]
    council = only(spans, COUNCIL)
    assert council.kind == "internal"
    assert council.attributes == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "council",
        "wirthforge.council.strategy": "council-k",
        "wirthforge.council.size": 3,
        "wirthforge.council.wanted": 3,
        "wirthforge.outcome": "completed",
    }
    members = [span for span in spans if span.parent == council.id]
    assert sorted(str(span.attributes["wirthforge.council.role"]) for span in members) == [
        "chair",
        "leader",
        "member",
        "member",
    ]
    for member in members:
        children = sorted(span.name for span in spans if span.parent == member.id)
        assert children == [f"chat {member.attributes['gen_ai.agent.name']}", "queue"]
        asked = next(span for span in spans if span.parent == member.id and span.kind == "client")
        assert asked.attributes["wirthforge.request.id"] == member.attributes["wirthforge.request.id"]
        assert council.began_ns <= member.began_ns <= member.ended_ns
    assert len({span.attributes["wirthforge.request.id"] for span in members}) == 4
    told = {headers["traceparent"].split("-")[2] for order in (a, b, c) for headers in order.headers}
    assert told == {span.id for span in spans if span.kind == "client"}
    assert not any(span.is_error for span in spans)


async def test_a_council_of_which_nobody_answers_is_an_error(
    make_box: MakeBox, settings: Settings, collector: Collector, order: Order
) -> None:
    """The council's span fails with its code, which names nobody; its request gets an error, too."""

    async def refusing(order: Order, request: object, body: object) -> object:  # noqa: ARG001
        raise web.HTTPInternalServerError(text="spider")

    order.behaviour = refusing  # type: ignore[assignment]
    other = Order(model="b", behaviour=order.behaviour)
    async with openai_engine.serve(order) as first, openai_engine.serve(other) as second:
        box = await make_box(replace(settings, engines=(first, second)))
        ann = await box.person("ann")
        async with box.http(headers=ann.bearer) as client:
            answer = await client.post(
                "/v1/chat/completions", json={"model": "council:2", "messages": NUMBER, "stream": True}
            )
        assert answer.status_code == 502
        await collector.until(lambda: any(span.name == ROOT for span in collector.spans))
        await collector.until(lambda: any(span.name == COUNCIL for span in collector.spans))
    council, root = only(collector.spans, COUNCIL), only(collector.spans, ROOT)
    assert (council.is_error, council.attributes["error.type"]) == (True, "council_failed")
    assert root.attributes["error.type"] == "502"
    asked = [span for span in collector.spans if span.kind == "client"]
    assert {span.attributes["error.type"] for span in asked} == {"engine_failed"}
    assert b"spider" not in b"".join(collector.received)
