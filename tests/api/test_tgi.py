"""text-generation-inference's surface, through huggingface_hub's own client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from aiohttp import web
from huggingface_hub import AsyncInferenceClient, TextGenerationInputGrammarType
from huggingface_hub.errors import GenerationError, HfHubHTTPError, OverloadedError, ValidationError
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks import tiny_model
from server.api.tgi_wire import GenerateRequest, Parameters, Telling
from server.engines.tgi import Tgi
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine, tgi_engine

MODEL = tiny_model.NAME


MakeClient = Callable[..., AsyncInferenceClient]


@pytest.fixture
async def client() -> AsyncIterator[MakeClient]:
    """Makes huggingface_hub's clients as its documentation has it; they are closed after the test."""
    async with AsyncExitStack() as stack:

        def make(box: Box, someone: Person, path: str = "") -> AsyncInferenceClient:
            made = AsyncInferenceClient(f"{box.url}{path}", provider="hf-inference", token=someone.key, timeout=20)
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
async def ann(llama_box: Box) -> Person:
    """Somebody with a key, in front of llama.cpp."""
    return await llama_box.person("ann")


async def test_a_text_is_gone_on_with(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """Without details, the text; with `return_full_text`, the prompt before it; the row holds the engine's counts."""
    asking = client(llama_box, ann, f"/tgi/{MODEL}")
    text = await asking.text_generation("The box is", max_new_tokens=8)
    again = await asking.text_generation("The box is", max_new_tokens=8, return_full_text=True)
    assert text
    assert again == "The box is" + text  # greedy, as TGI without sampling parameters
    rows = await llama_box.usage(2)
    assert {(row.outcome, row.surface, row.output_tokens) for row in rows} == {("completed", "completions", 8)}


async def test_details_tell_tokens_and_counts(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """llama.cpp tells ids and logprobs; the tokens are the text."""
    answer = await client(llama_box, ann).text_generation("The box is", max_new_tokens=5, details=True, seed=7)
    assert answer.details is not None
    assert (answer.details.finish_reason, answer.details.generated_tokens) == ("length", 5)
    assert (answer.details.seed, answer.details.prefill) == (7, [])
    assert "".join(token.text for token in answer.details.tokens) == answer.generated_text
    assert all(token.logprob <= 0 and token.id > 0 for token in answer.details.tokens)
    assert answer.details.top_tokens is None


async def test_tokens_are_streamed(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """Token by token; the last event holds the text and the details."""
    told = [
        output
        async for output in await client(llama_box, ann, f"/tgi/{MODEL}").text_generation(
            "The box is", max_new_tokens=5, details=True, stream=True, top_n_tokens=2, temperature=0.5
        )
    ]
    *tokens, last = told
    assert [output.index for output in told] == list(range(1, len(told) + 1))
    assert all(output.generated_text is None and output.details is None for output in tokens)
    assert last.generated_text == "".join(output.token.text for output in told)
    assert last.details is not None
    # It may roll the end of its sentence before.
    assert last.details.generated_tokens == 5 or last.details.finish_reason == "eos_token"
    assert last.details.input_length > 0
    assert all(len(output.top_tokens or ()) == 2 for output in tokens)


async def test_texts_are_streamed(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """Without details, texts alone."""
    streamed = await client(llama_box, ann).text_generation("The box is", max_new_tokens=8, stream=True)
    whole = await client(llama_box, ann).text_generation("The box is", max_new_tokens=8)
    assert "".join([text async for text in streamed]) == whole


async def test_the_model_and_its_limits_are_told(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """With the names that TGI's clients look for."""
    for path in ("", f"/tgi/{MODEL}"):
        told = await client(llama_box, ann, path).get_endpoint_info()
        assert (told["model_id"], told["max_total_tokens"], told["max_input_tokens"]) == (MODEL, 4096, 4095)
        assert (told["max_concurrent_requests"], told["router"]) == (4, "wirthforge")


async def test_the_two_routes_have_tgis_shapes(llama_box: Box, ann: Person) -> None:
    """/generate gives an object, / a list of one, /generate_stream events as axum writes them."""
    asked = {"inputs": "The box is", "parameters": {"max_new_tokens": 3, "details": True}}
    async with llama_box.http(headers=ann.bearer) as http:
        one = await http.post("/generate", json=asked)
        many = await http.post("/", json=asked)
        events = await http.post(f"/tgi/{MODEL}/generate_stream", json=asked)
    assert list(one.json()) == ["generated_text", "details"]
    assert [list(answer) for answer in many.json()] == [["generated_text", "details"]]
    assert one.headers["x-generated-tokens"] == "3"
    *told, end = events.text.split("\n\n")
    assert end == ""
    assert all(event.startswith('data: {"index":') for event in told)
    assert list(json.loads(told[-1].removeprefix("data: "))) == ["index", "token", "generated_text", "details"]


BAD = [
    {"inputs": ""},
    {"inputs": 7},
    {"parameters": {}},
    {"inputs": "x", "parameters": {"temperature": 0}},
    {"inputs": "x", "parameters": {"top_p": 1}},
    {"inputs": "x", "parameters": {"max_new_tokens": 0}},
    {"inputs": "x", "parameters": {"stop": ["a", "b", "c", "d", "e"]}},
    {"inputs": "x", "parameters": {"best_of": 2}},
    {"inputs": "x", "parameters": {"decoder_input_details": True, "details": True}},
    {"inputs": "x", "parameters": {"truncate": 5}},
    {"inputs": "x", "parameters": {"watermark": True}},
    {"inputs": "x", "parameters": {"grammar": {"type": "json", "value": {}}}},
    {"inputs": "x", "parameters": {"max_new_tokens": 100_000}},
    ["inputs"],
]


async def test_bad_requests_are_refused_as_tgi_does(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """422 with `error` and `error_type`, on all routes, and nothing runs."""
    async with llama_box.http(headers=ann.bearer) as http:
        for bad in BAD:
            for path in ("/generate", "/generate_stream", "/", f"/tgi/{MODEL}"):
                answer = await http.post(path, json=bad)
                assert (answer.status_code, answer.json()["error_type"]) == (422, "validation"), (bad, answer.text)
                assert isinstance(answer.json()["error"], str)
        for raw in (b"{", b"\xff", b"[" * 200_000, b'{"inputs":' * 50_000):
            answer = await http.post("/generate", content=raw)
            assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    with pytest.raises(ValidationError, match="temperature"):
        await client(llama_box, ann).text_generation("x", temperature=-1)


PIECES = st.lists(st.text(max_size=5), max_size=8)


@given(PIECES, st.sampled_from(["stop", "length"]), st.booleans(), st.booleans())
def test_a_telling_loses_nothing(texts: list[str], reason: str, is_with_text: bool, is_whole: bool) -> None:
    """Whatever the pieces: the tokens are the text, one event ends it, and both ways tell the same."""
    asked = GenerateRequest(inputs="in", parameters=Parameters(details=True, return_full_text=is_whole))
    telling = Telling(asked)
    choices: list[dict[str, Any]] = [{"text": text, "finish_reason": None} for text in texts]
    if is_with_text and choices:
        choices[-1]["finish_reason"] = reason
    else:
        choices.append({"text": "", "finish_reason": reason})
    events = [msgspec.json.encode({"choices": [choice]}) for choice in choices]
    usage = msgspec.json.encode({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})
    told = telling.feed(b"".join(b"data: " + event + b"\n\n" for event in [*events, usage])) + telling.end()
    outputs = [json.loads(event.removeprefix(b"data: ")) for event in told.split(b"\n\n")[:-1]]
    *tokens, last = outputs
    assert "".join(output["token"]["text"] for output in outputs) == "".join(texts)
    assert [output["index"] for output in outputs] == list(range(1, len(outputs) + 1))
    assert all(output["generated_text"] is None for output in tokens)
    whole = telling.whole()
    assert last["generated_text"] == whole["generated_text"] == ("in" if is_whole else "") + "".join(texts)
    finish = "length" if reason == "length" else "eos_token"
    assert last["details"] == {"finish_reason": finish, "generated_tokens": 5, "seed": None, "input_length": 3}
    assert "".join(token.text for token in whole["details"]["tokens"]) == "".join(texts)


async def test_who_may_not_is_told(llama_box: Box, ann: Person) -> None:
    """Without a key, for a model that is not, and for one that is not allowed."""
    async with llama_box.http() as http:
        stranger = await http.post("/generate", json={"inputs": "x"})
        assert (stranger.status_code, stranger.json()["error_type"]) == (401, "authentication")
        assert (await http.get("/info")).status_code == 401
    async with llama_box.http(headers=ann.bearer) as http:
        for answer in (await http.post("/tgi/no/such", json={"inputs": "x"}), await http.get("/tgi/no/such/info")):
            assert (answer.status_code, answer.json()["error_type"]) == (404, "not_found")
        assert (await http.get(f"/tgi/{MODEL}/nothing")).status_code == 404
        await llama_box.allow(ann, models=["another"])
        forbidden = await http.post(f"/tgi/{MODEL}", json={"inputs": "x"})
        assert (forbidden.status_code, forbidden.json()["error_type"]) == (403, "permission")
        assert (await http.post("/generate", json={"inputs": "x"})).status_code == 503


async def test_a_budget_is_an_overload_to_tgis_clients(client: MakeClient, llama_box: Box, ann: Person) -> None:
    """429 with the time to wait, which huggingface_hub raises as such."""
    await llama_box.allow(ann, requests_per_minute=1)
    asking = client(llama_box, ann)
    await asking.text_generation("x", max_new_tokens=2)
    with pytest.raises(OverloadedError) as caught:
        await asking.text_generation("x", max_new_tokens=2)
    cause = caught.value.__cause__
    assert isinstance(cause, HfHubHTTPError)
    assert cause.response.status_code == 429
    assert int(cause.response.headers["retry-after"]) >= 1


async def test_an_engine_that_fails_is_a_generation_error(
    client: MakeClient, make_box: MakeBox, settings: Settings, engine_url: str, order: openai_engine.Order
) -> None:
    """Before the first token as a status, afterwards as the last event."""
    box = await make_box(replace(settings, engines=(engine_url,)))
    ben = await box.person("ben")

    async def fail(_order: openai_engine.Order, _request: Any, _body: Any) -> Any:
        return web.json_response({"error": {"message": "no"}}, status=500)

    async def break_off(_order: openai_engine.Order, request: Any, _body: Any) -> Any:
        response = await openai_engine.event_stream(request)
        await response.write(b'data: {"object":"text_completion","choices":[{"index":0,"text":"a"}]}\n\n')
        await response.write(b'data: {"error":{"message":"no"}}\n\n')
        return response

    order.behaviour = fail
    with pytest.raises(GenerationError) as caught:
        await client(box, ben).text_generation("x")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 424
    order.behaviour = break_off
    texts = []
    with pytest.raises(GenerationError):  # noqa: PT012 (the text before the fault counts)
        async for text in await client(box, ben).text_generation("x", stream=True):
            texts.append(text)  # noqa: PERF401 (it is to break)
    assert texts == ["a"]


@pytest.fixture
async def tgi_order() -> tgi_engine.Order:
    """What the stand-in for TGI does."""
    return tgi_engine.Order()


@pytest.fixture
async def tgi_box(make_box: MakeBox, settings: Settings, tgi_order: tgi_engine.Order) -> AsyncIterator[Box]:
    """A box in front of TGI."""
    async with tgi_engine.serve(tgi_order) as url:
        yield await make_box(settings, engines=[Tgi(url, slots=4, silence_ms_max=3_000)])


async def test_tgi_behind_its_own_surface_loses_nothing(
    client: MakeClient, tgi_box: Box, tgi_order: tgi_engine.Order
) -> None:
    """What only TGI has reaches it, and its ids and logprobs come back."""
    cat = await tgi_box.person("cat")
    grammar = TextGenerationInputGrammarType(type="regex", value="[a-z]+")
    answer = await client(tgi_box, cat, f"/tgi/{tgi_engine.MODEL}").text_generation(
        "x",
        details=True,
        max_new_tokens=2,
        truncate=5,
        grammar=grammar,
        repetition_penalty=1.5,
    )
    assert answer.generated_text == " word0 word1"
    assert answer.details is not None
    assert [(token.id, token.logprob) for token in answer.details.tokens] == [(100, -0.5), (101, -0.5)]
    assert (answer.details.finish_reason, answer.details.generated_tokens) == ("length", 2)
    ((path, body),) = tgi_order.seen
    assert path == "/generate_stream"
    told = body["parameters"]
    assert (told["truncate"], told["grammar"], told["repetition_penalty"]) == (5, grammar, 1.5)
    (row,) = await tgi_box.usage(1)
    assert (row.input_tokens, row.output_tokens) == (tgi_engine.INPUT_TOKENS, 2)


async def test_a_conversation_with_tgi(tgi_box: Box) -> None:
    """OpenAI's client talks to TGI through the box."""
    cat = await tgi_box.person("cat")
    async with tgi_box.openai(cat) as openai:
        answer = await openai.chat.completions.create(
            model=tgi_engine.MODEL, messages=[{"role": "user", "content": "hi"}], top_p=1, stop="x"
        )
    assert answer.choices[0].message.content == " word0 word1 word2"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)


async def test_who_waits_sees_where_and_who_leaves_frees_the_slot(
    make_box: MakeBox, settings: Settings, tgi_order: tgi_engine.Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments tell the place in the queue; a client that goes stops its engine."""
    monkeypatch.setattr("server.sharing.waiting.TELL_FIRST_MS", 20)
    tgi_order.hold.clear()
    tgi_order.held_after = 1
    tgi_order.info["max_concurrent_requests"] = 2
    asked = {"inputs": "x"}
    async with tgi_engine.serve(tgi_order) as url:
        box = await make_box(settings, engines=[Tgi(url, slots=4, silence_ms_max=10_000)])
        ben = await box.person("ben")
        async with box.http(headers=ben.bearer) as http:
            async with http.stream("POST", "/generate_stream", json=asked) as running:
                lines = running.aiter_lines()  # kept: the stream ends with its reader
                assert (await anext(lines)).startswith('data: {"index":1,')
                async with http.stream("POST", "/generate_stream", json=asked) as waiting:
                    assert (await anext(waiting.aiter_lines())).startswith(": queue ahead=")
            async with asyncio.timeout(5):
                await tgi_order.gone.wait()
    assert [row.outcome for row in await box.usage(1)] == ["cancelled"]
