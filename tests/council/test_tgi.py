"""Councils below /tgi, through huggingface_hub's own client."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import GenerationError, ValidationError

from server.api.tgi_wire import GenerateRequest, Parameters, Telling
from tests.council.conftest import Panel
from tests.stand_ins.openai_engine import Order, saying

NUMBER = "How many legs does a spider have? Answer with a number."
OPEN = "What is the best way to store bread for a week, and why?"
JOINED = "Freeze most of it, and keep the rest in paper"


@pytest.fixture
async def pair(panel: Panel) -> AsyncIterator[AsyncInferenceClient]:
    """A client of a council of two, as huggingface_hub's documentation has it."""
    url = f"{panel.box.url}/tgi/council:2"
    async with AsyncInferenceClient(url, provider="hf-inference", token=panel.ann.key, timeout=20) as client:
        yield client


def _differ(panel: Panel) -> None:
    """Members of different opinions, and who reads them joins them."""
    texts = {
        "a": "Bread keeps in a paper bag inside a wooden box",
        "b": "Freeze slices at once and toast them when needed",
        "c": "Linen cloth and a cool dark cellar",
    }
    for model, text in texts.items():

        async def answer(order: Order, request: web.Request, body: dict[str, Any], text: str = text) -> Any:
            reads = "Response 1" in json.dumps(body["messages"])
            return await saying(JOINED if reads else text)(order, request, body)

        panel.orders[model].behaviour = answer


async def test_a_council_answers_in_one_piece(panel: Panel, pair: AsyncInferenceClient) -> None:
    """The answer is the text; the details hold what each member said."""
    panel.say(a="A spider has 8 legs", b="It has 8 legs", c="8 legs")
    assert await pair.text_generation(NUMBER) == "A spider has 8 legs"
    answer: Any = await pair.text_generation(NUMBER, details=True, return_full_text=True)
    assert answer.generated_text == NUMBER + "A spider has 8 legs"
    council = answer.details["wirthforge"]["council"]
    assert (council["size"], council["verdict"]["winner"]) == (2, "A")
    assert [each["text"] for each in council["members"]] == ["A spider has 8 legs", "It has 8 legs"]
    assert answer.details.generated_tokens == council["usage"]["completion_tokens"]
    assert "".join(token.text for token in answer.details.tokens) == "A spider has 8 legs"
    rows = await panel.box.usage(4)
    assert {row.role for row in rows} == {"leader", "member"}


async def test_the_answer_alone_is_streamed(panel: Panel, pair: AsyncInferenceClient) -> None:
    """No member's text is a token; the last event has the council's summary."""
    _differ(panel)
    told: list[Any] = [each async for each in await pair.text_generation(OPEN, details=True, stream=True)]
    *tokens, last = told
    assert [output.index for output in told] == list(range(1, len(told) + 1))
    assert last.generated_text == "".join(output.token.text for output in told) == JOINED
    assert tokens
    assert all(output.details is None for output in tokens)
    assert last.details.finish_reason == "eos_token"
    council = last.details["wirthforge"]["council"]
    assert council["verdict"]["method"] == "chair"
    assert [each["role"] for each in council["members"]] == ["member", "member", "chair"]
    assert last.details.generated_tokens == council["usage"]["completion_tokens"]


async def test_who_waits_for_the_answer_sees_life(panel: Panel) -> None:
    """Comments say who begins and who ends; without details no event has any."""
    _differ(panel)
    async with panel.box.http(headers=panel.ann.bearer) as http:
        answer = await http.post("/tgi/council:2/generate_stream", json={"inputs": OPEN})
    assert answer.headers["x-wirthforge-council"] == "2 of 2"
    lines = [line for line in answer.text.split("\n\n") if line]
    comments = [line for line in lines if line.startswith(":")]
    assert {": council A member answering", ": council B member done", ": council A chair answering"} <= set(comments)
    first_data = next(index for index, line in enumerate(lines) if line.startswith("data:"))
    assert lines.index(": council A member answering") < first_data
    events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
    assert all(event["details"] is None for event in events)
    assert events[-1]["generated_text"] == JOINED


def _chunk(text: str, extension: dict[str, Any] | None = None, finish_reason: str | None = None) -> bytes:
    told = {"choices": [{"text": text, "finish_reason": finish_reason}], "wirthforge": extension}
    return b"data: " + msgspec.json.encode(told) + b"\n\n"


def test_an_answer_that_begins_again_ends_with_the_whole_one() -> None:
    """What was streamed cannot be taken back; `generated_text` is the answer that counts."""
    telling = Telling(GenerateRequest(inputs="in", parameters=Parameters()), is_council=True)
    told = telling.feed(_chunk("half an") + _chunk("[again]"))
    told += telling.feed(_chunk("The whole answer", {"council": {"type": "content", "is_restart": True}}))
    told += telling.feed(_chunk("", None, "stop")) + telling.end()
    events = [json.loads(event.removeprefix(b"data: ")) for event in told.split(b"\n\n")[:-1]]
    assert [event["token"]["text"] for event in events] == ["half an", "[again]", "The whole answer", ""]
    assert events[-1]["generated_text"] == "The whole answer"


def test_what_an_engine_calls_a_council_is_none() -> None:
    """The extension is read where a council answers, and from nobody else."""
    telling = Telling(GenerateRequest(inputs="in", parameters=Parameters(details=True)))
    told = telling.feed(_chunk("a", {"council": {"type": "summary"}}, "stop")) + telling.end()
    assert b"wirthforge" not in told


async def test_conversations_reach_a_council_too(panel: Panel) -> None:
    """TGI's clients have them at /v1, with the council as the model."""
    panel.say(a="A spider has 8 legs", b="It has 8 legs")
    async with AsyncInferenceClient(f"{panel.box.url}/v1", token=panel.ann.key, timeout=20) as client:
        messages = [{"role": "user", "content": NUMBER}]
        answer: Any = await client.chat_completion(messages, model="council:2")
        stream = await client.chat_completion(messages, model="council:2", stream=True)
        streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert answer.choices[0].message.content == "".join(streamed) == "A spider has 8 legs"
    assert answer["wirthforge"]["council"]["size"] == 2


async def test_a_council_is_described_as_far_as_it_can_be(panel: Panel) -> None:
    """Its context and its slots are those of whoever will sit; one that there is not is not found."""
    async with panel.box.http(headers=panel.ann.bearer) as http:
        told = (await http.get("/tgi/council:2/info")).json()
        missing = await http.get("/tgi/council:nobody/info")
        wrong = await http.get("/tgi/council:0/info")
    assert (told["model_id"], told["max_total_tokens"], told["max_concurrent_requests"]) == ("council:2", None, None)
    assert (missing.status_code, missing.json()["error_type"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "validation")


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/tgi/council:0", {}, 422),
        ("/tgi/council:nobody", {}, 404),
        ("/tgi/council:2", {"top_n_tokens": 2}, 422),
        ("/tgi/council:2", {"grammar": {"type": "json", "value": {}}}, 422),
        ("/tgi/council:2", {"truncate": 5}, 422),
        ("/tgi/council:2", {"best_of": 2}, 422),
    ],
)
async def test_what_a_council_cannot_do_is_refused(
    panel: Panel, path: str, parameters: dict[str, Any], status: int
) -> None:
    """In TGI's shape, streamed or not, before any model is asked."""
    async with panel.box.http(headers=panel.ann.bearer) as http:
        for ending in ("", "/generate", "/generate_stream"):
            answer = await http.post(path + ending, json={"inputs": OPEN, "parameters": parameters})
            assert answer.status_code == status, answer.text
            assert isinstance(answer.json()["error"], str)
    assert not any(order.seen for order in panel.orders.values())


async def test_when_all_members_fail_it_is_a_generation_error(panel: Panel, pair: AsyncInferenceClient) -> None:
    """Which names each; and what is wrong with the request is the client's own fault."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    for order in panel.orders.values():
        order.behaviour = broken
    with pytest.raises(GenerationError, match=r"A \(a\).*B \(b\)"):
        await pair.text_generation(NUMBER)
    with pytest.raises(ValidationError, match="top_n_tokens"):
        await pair.text_generation(NUMBER, details=True, top_n_tokens=3)
