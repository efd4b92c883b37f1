"""What a council costs and brings: asked of a served box with engines on real sockets, which say what they are told."""

import asyncio
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.council_bench.asking import Council, Heard, Server
from benchmarks.council_bench.figures import drawn, ratio, slowdowns, wilson
from benchmarks.council_bench.questions import SETS, Question, load
from benchmarks.council_bench.report import report
from benchmarks.council_bench.run import Measured, Wanted, in_turn, measure
from benchmarks.council_bench.ways import Way, ways
from server.cli.bench import bench
from server.clock import SystemClock
from server.errors import InvalidRequest, NotFound, WirthforgeError
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import Behaviour, Order, event, event_stream, saying, usage_event

LEGS = Question("number", "How many legs does a spider have? Answer with the number only.", ("8",))
MOON = Question("yesno", "Is the moon larger than the earth? Answer with yes or no.", ("no",))
CITY = Question("fact", "What is the capital of Austria?", ("Vienna", "Wien"))
EXAMINED = Path(__file__).parents[2] / "tools" / "models"


@dataclass
class Panel:
    """A box with three models, and what each of them is ordered to do."""

    box: Box
    ann: Person
    orders: dict[str, Order]

    async def measure(self, *questions: Question, **wanted: Any) -> Measured:
        """Ask all of them in all ways."""
        async with aiohttp.ClientSession() as session:
            clock = asyncio.get_running_loop()
            server = Server(session, self.box.url, self.ann.key, lambda: clock.time() * 1000)
            return await measure(server, Wanted(questions=questions, source="test", **wanted), SystemClock())


def knowing(answers: dict[str, str]) -> Behaviour:
    """Answers what it knows, and nothing to the point otherwise."""

    async def answer(order: Order, request: Any, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        text = next((said for question, said in answers.items() if question in asked), "I do not know that at all.")
        return await saying(text)(order, request, body)

    return answer


@pytest.fixture
async def panel(make_box: MakeBox, settings: Settings) -> AsyncIterator[Panel]:
    """Models a, b and c, each on an engine of its own."""
    orders = {model: Order(model=model) for model in ("a", "b", "c")}
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(openai_engine.serve(order)) for order in orders.values()]
        box = await make_box(replace(settings, engines=tuple(urls)))
        yield Panel(box, await box.person("ann"), orders)


def _by_name(found: Measured) -> dict[str, Any]:
    return {each.name: each for each in found.ways}


async def test_right_answers_are_counted_for_every_way(panel: Panel) -> None:
    """The leader knows one of two; the others know both, so a council of three has what the leader lacks."""
    panel.orders["a"].behaviour = knowing({"spider": "8", "moon": "Yes"})
    panel.orders["b"].behaviour = knowing({"spider": "8 legs", "moon": "No"})
    panel.orders["c"].behaviour = knowing({"spider": "The answer is 8", "moon": "No, it is not."})
    found = _by_name(await panel.measure(LEGS, MOON, sizes=(1, 3), strategies=("vote",)))
    assert set(found) == {"a alone", "b alone", "c alone", "council:self:3 vote", "council:3 vote"}
    assert {name: each.right.value for name, each in found.items()} == {
        "a alone": 0.5,
        "b alone": 1.0,
        "c alone": 1.0,
        "council:self:3 vote": 0.5,
        "council:3 vote": 1.0,
    }
    council = found["council:3 vote"]
    assert (council.gained, council.lost, council.gain.value, council.failed) == (1, 0, 0.5, 0)
    assert council.any_right.value == 1.0
    # All three about the spider, two of three about the moon.
    assert council.agreement == pytest.approx((1 + 0.67) / 2)
    assert (council.size, council.strategies, council.methods) == (3.0, {"vote": 2}, {"vote": 2})
    assert council.leaders == {"a": 2}
    assert found["council:self:3 vote"].any_right.value == 0.5


async def test_tokens_of_all_members_count_and_times_are_ratios(panel: Panel) -> None:
    """Two who agree: twice the tokens of the leader alone, and as many answered words as both said."""
    for order in panel.orders.values():
        order.behaviour = saying("8")
    found = await panel.measure(LEGS, CITY, models=("a", "b"), sizes=(2,), strategies=("duo",))
    council = _by_name(found)["council:2 duo"]
    assert (council.asked.value, council.answered.value) == (2.0, 2.0)
    assert council.asked.count == 2
    assert all(each.low <= each.value <= each.high for each in (council.first, council.answer, council.total))
    assert council.answer.value >= council.first.value
    alone = {each.model: each for each in found.alone}
    assert (alone["a"].asked, alone["a"].answered) == (7, 1)
    assert alone["a"].tokens_per_s is None
    assert _by_name(found)["a alone"].total is None


async def test_a_member_that_fails_is_told_and_counts_as_wrong_alone(panel: Panel) -> None:
    """The council has an answer all the same, and who failed is named."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("no answer today")

    panel.orders["a"].behaviour = panel.orders["c"].behaviour = saying("8")
    panel.orders["b"].behaviour = broken
    found = await panel.measure(LEGS, sizes=(3,), strategies=("vote",))
    ways_found = _by_name(found)
    assert (ways_found["b alone"].failed, ways_found["b alone"].right.value) == (1, 0.0)
    assert ways_found["b alone"].total is None
    council = ways_found["council:3 vote"]
    assert (council.failed, council.right.value) == (0, 1.0)
    assert [reason for reason in council.failures if reason.startswith("B (b, member) failed: ")]
    assert "B (b, member) failed" in report(found)


async def test_a_council_that_is_cut_down_says_why(panel: Panel) -> None:
    """Members that sat, and the server's own sentence."""
    await panel.box.allow(panel.ann, council_size_max=2)
    for order in panel.orders.values():
        order.behaviour = saying("8")
    council = _by_name(await panel.measure(LEGS, CITY, sizes=(3,)))["council:3"]
    assert council.size == 2.0
    assert council.bounds["policy"].count == 2
    assert council.bounds["policy"].example.startswith("2 of 3")


def paced(tokens: int, ms: int) -> Behaviour:
    """Tokens at a steady pace."""

    async def answer(order: Order, request: Any, _body: dict[str, Any]) -> Any:
        response = await event_stream(request)
        clock = SystemClock()
        for number in range(tokens):
            await response.write(event({"content": f"word{number} "}))
            await clock.sleep_ms(ms)
        await response.write(event({}, "stop") + usage_event({"prompt_tokens": 7, "completion_tokens": tokens}))
        order.running.discard(request.headers["X-Request-Id"])
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer


async def test_contention_is_a_members_rate_beside_its_own_alone(panel: Panel) -> None:
    """Engines of which each has a machine of its own leave each other everything, or nearly so on a busy one."""
    for order in panel.orders.values():
        order.behaviour = paced(12, 10)
    found = await panel.measure(CITY, models=("a", "b"), sizes=(2,), strategies=("duo",))
    assert {(each.way, each.model) for each in found.slowdowns} >= {("council:2 duo", "a"), ("council:2 duo", "b")}
    assert all(0.2 < each.rate.value < 5 for each in found.slowdowns)
    assert all(10 < (each.tokens_per_s or 0) <= 110 for each in found.alone)
    assert "contention" in report(found)


async def test_what_the_server_refuses_for_good_ends_the_run(panel: Panel) -> None:
    """With its own sentence: a strategy that there is not, and a key that nobody has."""
    with pytest.raises(InvalidRequest, match="There is no strategy 'dance'"):
        await panel.measure(LEGS, sizes=(2,), strategies=("dance",))
    panel.ann.key = "wf-nobody"
    with pytest.raises(InvalidRequest, match="The server refuses: "):
        await panel.measure(LEGS)


async def test_models_must_be_models_of_the_server(panel: Panel) -> None:
    """Each once, and none of them a council."""
    for models, sentence in {
        ("a", "ghost"): "The server has no model 'ghost'. It has a, b, c.",
        ("a", "a"): "'a' is there twice; samples of one model are measured anyway.",
        ("council",): "'council' is a council; name the models of which councils are to be made.",
    }.items():
        with pytest.raises(WirthforgeError) as caught:
            await panel.measure(LEGS, models=models)
        assert caught.value.message == sentence
    assert not any(order.seen for order in panel.orders.values())


async def test_a_server_without_models_has_nothing_to_measure(make_box: MakeBox, settings: Settings) -> None:
    """It says so."""
    box = await make_box(replace(settings, engines=()))
    panel = Panel(box, await box.person("ann"), {})
    with pytest.raises(NotFound, match="lists no model"):
        await panel.measure(LEGS)


@pytest.mark.parametrize(
    ("question", "text", "is_right"),
    [
        (LEGS, "8", True),
        (LEGS, "**8**", True),
        (LEGS, "Spiders have 2 body parts.\n\nThey walk on 8 legs, all of them jointed and hairy at the ends.", True),
        (LEGS, "Insects have 6, so a spider with its two body parts and many eyes has as many as 10 of them.", False),
        (LEGS, "80", False),
        (LEGS, "many", False),
        (LEGS, "", False),
        (LEGS, "<think>Is it 6? No, 8.</think>6", False),
        (MOON, "No.", True),
        (MOON, "No, the earth is much larger.", True),
        (MOON, "Yes", False),
        (MOON, "There is no doubt", False),
        (CITY, "It is Vienna, on the Danube.", True),
        (CITY, "VIENNA", True),
        (CITY, "Wiener Neustadt", False),
        (Question("choice", "?", ("C",)), "(c) Mercury", True),
        (Question("choice", "?", ("C",)), "Answer: C", True),
        (Question("choice", "?", ("C",)), "A", False),
        (Question("fact", "?", ("São Paulo",)), "sao  paulo", True),
        (Question("fact", "?", ("10",)), "At least 10 characters.", True),
        (Question("fact", "?", ("10",)), "100 or 10.5 or a10", False),
        (Question("fact", "?", ("--port",)), "Type `wirthforge up --port 9000`.", True),
        (Question("fact", "?", ("/v1/models",)), "GET http://127.0.0.1:8000/v1/models lists them", True),
        (Question("number", "?", ("1000",)), "1,000", True),
        (Question("number", "?", ("0.5",)), "The result is 50 %", True),
    ],
)
def test_an_answer_is_right_by_rules_that_anybody_can_read(question: Question, text: str, is_right: bool) -> None:
    """Values by what they are worth, facts by whole words, thoughts not at all."""
    assert question.is_right(text) is is_right


@pytest.mark.parametrize("name", SETS)
def test_the_sets_that_come_along_have_answers_that_can_be_given(name: str) -> None:
    """Each accepted answer is right as it stands, no constant is right for many, and nothing is asked twice."""
    questions = load(name)
    assert 20 <= len(questions) <= 40
    assert len({question.ask for question in questions}) == len(questions)
    assert all(question.is_right(answer) for question in questions for answer in question.answers)
    for constant in ("A", "B", "C", "D", "yes", "no", "1", "I am a demonstration model."):
        assert sum(question.is_right(constant) for question in questions) <= len(questions) // 5


def test_the_built_in_models_were_not_taught_these_very_questions() -> None:
    """What the server's set asks is neither in their trial questions nor in their examination."""
    known = {
        question.casefold()
        for name in ("dev.toml", "heldout.toml")
        for room in tomllib.loads((EXAMINED / name).read_text()).values()
        for question in room
    }
    assert len(known) > 200
    assert not known & {question.ask.casefold() for question in load("server")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[question]\n", "are no TOML"),
        ("", "missing required field `question`"),
        ("question = []", "Expected `array` of length >= 1"),
        ('[[question]]\nkind = "essay"\nask = "Why?"\nanswers = ["x"]', "Invalid enum value 'essay'"),
        ('[[question]]\nkind = "fact"\nask = "Why?"\nanswers = []', "Expected `array` of length >= 1"),
        ('[[question]]\nkind = "fact"\nask = "Why?"\nanswer = ["x"]', "unknown field `answer`"),
        ('[[question]]\nkind = "fact"\nask = "Why?"\nanswers = ["**"]', "question 1 has an empty answer"),
        ('[[question]]\nkind = "number"\nask = "2?"\nanswers = ["two"]', "question 1 is of the kind number"),
        ('[[question]]\nkind = "yesno"\nask = "2?"\nanswers = ["C"]', "question 1 is of the kind yesno"),
    ],
)
def test_a_broken_file_of_questions_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    """In one sentence, before anything is asked."""
    path = tmp_path / "questions.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        load(str(path))
    assert words in caught.value.message


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    """The sentence names the sets that there are."""
    with pytest.raises(InvalidRequest, match="sets that come along: general, server"):
        load(str(tmp_path / "nowhere.toml"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load(str(tmp_path))
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="are no TOML"):
        load(str(path))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sizes", "2,zero"], "--sizes takes numbers from 1 to 64 with commas, not 'zero'."),
        (["--sizes", "65"], "--sizes takes numbers from 1 to 64 with commas, not '65'."),
        (["--sizes", ","], "--sizes names nothing."),
        (["--models", " , "], "--models names nothing."),
        (["--strategies", ""], "--strategies names nothing."),
        (["--questions", "/nowhere.toml"], "The questions /nowhere.toml cannot be read: No such file or directory."),
        (["--url", "http://127.0.0.1:9"], "No server answers at http://127.0.0.1:9: "),
        (["--url", "nonsense"], "No server answers at nonsense: "),
    ],
)
def test_the_command_refuses_what_makes_no_sense(words: list[str], sentence: str) -> None:
    """In one sentence that says what is wrong."""
    done = CliRunner().invoke(bench, ["council", "--key", "wf-x", *words])
    assert isinstance(done.exception, WirthforgeError)
    assert done.exception.message.startswith(sentence)


async def test_the_command_prints_a_table_or_json(panel: Panel) -> None:
    """From the key on standard input to the figures."""
    for order in panel.orders.values():
        order.behaviour = saying("8")
    words = ["council", "--url", f"{panel.box.url}/v1", "--key", "-", "--models", "a,b", "--sizes", "2", "--limit", "1"]
    runs = [
        await asyncio.to_thread(CliRunner().invoke, bench, [*words, *more], input=f"{panel.ann.key}\n")
        for more in ([], ["--json", "--strategies", "vote,self-k"])
    ]
    assert [done.exception for done in runs] == [None, None]
    printed = runs[0].stdout
    for title in ("alone, medians", "right answers", "beside a alone (1 is the same)", "notes", "council:self:2"):
        assert title in printed
    # The box, which runs in this process, logs beside it.
    found = msgspec.json.decode(runs[1].stdout.splitlines()[-1])
    names = [each["name"] for each in found["ways"]]
    assert names == ["a alone", "b alone", "council:self:2 vote", "council:2 vote", "council:self:2 self-k"]
    assert {(each["way"], each["question"]) for each in found["answers"]} == {(name, 0) for name in names}
    assert panel.ann.key not in runs[1].stdout


def test_ways_are_each_model_alone_then_samples_and_several_models() -> None:
    """What cannot be had, or has no sense, is left out; the first is told."""
    found, left_out = ways(("a", "b"), (3, 2, 1), ("auto", "duo", "self-k"))
    assert [way.name for way in found] == [
        "a alone",
        "b alone",
        "council:self:2",
        "council:2",
        "council:2 duo",
        "council:self:2 self-k",
        "council:self:3",
        "council:self:3 self-k",
    ]
    assert left_out == [
        "council:3 was left out: there are 2 models.",
        "council:3 duo was left out: there are 2 models.",
    ]
    assert found[0].body() == {"model": "a"}
    assert found[4].body() == {
        "model": "council:2",
        "wirthforge": {"council": {"members": ("a", "b"), "strategy": "duo"}},
    }
    _, idle = ways(("a", "b", "c"), (1, 2), ("auto",))
    assert idle == ["No council is large enough for c; they were asked alone only."]


@given(st.integers(1, 9))
def test_every_way_is_first_equally_often(count: int) -> None:
    """When all orders were taken each way has had each place twice."""
    chosen = [Way(str(number), "m", ("m",)) for number in range(count)]
    orders = [in_turn(chosen, index) for index in range(2 * count)]
    assert all(sorted(order, key=lambda way: way.name) == chosen for order in orders)
    for place in range(count):
        assert sorted(order[place].name for order in orders) == sorted(2 * [way.name for way in chosen])


@given(st.integers(0, 60).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilsons_interval_holds_its_share(counts: tuple[int, int]) -> None:
    """Within 0 and 1, and turned round for the wrong ones."""
    right, count = counts
    found, turned = wilson(right, count), wilson(count - right, count)
    assert 0 <= found.low <= found.value <= found.high <= 1
    if count:
        assert found.low == pytest.approx(1 - turned.high)


def test_wilsons_interval_is_the_published_one() -> None:
    """81 of 263, Newcombe 1998, table I: 0.2553 to 0.3662."""
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_ratios_are_geometric_and_their_interval_holds_the_truth() -> None:
    """Twice and half are the same on average; nine or more of ten intervals hold what the values were drawn from."""
    even = ratio([(2.0, 1.0), (1.0, 2.0)])
    assert even is not None
    assert [even.value, even.low, even.high] == pytest.approx([1.0, 0.5, 2.0])
    assert ratio([(None, 1.0), (1.0, 0.0)]) is None
    chance = Random(7)  # noqa: S311 (the same every time)
    samples = [[chance.gauss(1.0, 2.0) for _ in range(40)] for _ in range(60)]
    found = [drawn(sample) for sample in samples]
    assert sum(each is not None and each.low <= 1.0 <= each.high for each in found) >= 54


def test_who_answered_alone_in_a_council_met_no_contention() -> None:
    """Only members that answered beside others have a rate in the council."""
    told = {
        "leader": "a",
        "wanted": 2,
        "size": 1,
        "reason": "",
        "binding": "speed",
        "strategy": "solo",
        "method": "solo",
    }
    part = {"label": "A", "model": "a", "role": "member", "state": "done", "reason": None, "text": "x", "tokens": 9}
    single = msgspec.convert(
        {**told, "agreement": 1.0, "opinions": 1, "parts": [{**part, "tokens_per_s": 10.0}]}, Council
    )
    chosen = [Way("a alone", "a", ("a",)), Way("council:2", "council:2", ("a", "b"), 2)]
    alone, council = Heard(tokens_per_s=20.0), Heard(council=single)
    assert slowdowns(chosen, {"a alone": [alone], "council:2": [council]}, {"a": "a alone"}) == []
    both = replace(single, parts=(*single.parts, replace(single.parts[0], label="B")))
    found = slowdowns(chosen, {"a alone": [alone], "council:2": [Heard(council=both)]}, {"a": "a alone"})
    assert [(each.way, each.model, each.rate.count) for each in found] == [("council:2", "a", 2)]
    assert found[0].rate.value == pytest.approx(0.5)
