"""The table: who begins when, deadlines, failures, leaders, the chair, and leaving."""

import asyncio
from typing import Any

import pytest

from server.council.calls import Answer, CouncilFailed, Prompt, Seat, label_of
from server.council.events import Content, Joined, Member, Text, Verdict
from server.council.strategies.duo import duo
from server.council.strategies.endings import alone
from server.council.strategies.judge import judge
from server.council.strategies.karpathy import karpathy
from server.council.strategies.solo import solo
from server.council.table import Brief, Table
from server.errors import TooMany
from tests.council.scripts import Council, Script, broken, pass_rounds


async def everybody(table: Table) -> None:
    """All are asked, and the leader's answer is it."""
    await table.answers(table.seats)
    alone(table, table.done[0])


async def chaired(table: Table) -> None:
    """All are asked, and the chair repeats what it was asked."""
    await table.answers(table.seats)

    def prompt(seat: Seat) -> Prompt | None:
        return None if seat.context_tokens == 1 else Prompt(messages=table.question, order=())

    spoken = await table.chair_says(prompt, otherwise=table.done[0])
    reason = " ".join(spoken.notes) or "It went well."
    by = spoken.by.label if spoken.by else None
    table.tell(Verdict(method="chair", agreement=0, opinions=(), by=by, reason=reason))


async def test_the_leader_begins_alone_and_the_others_at_its_first_token() -> None:
    """Its prompt is read without competition, however many sit at the table."""
    council = Council({"A": Script(wait_ms=700)})
    await council.play(everybody)
    assert council.cast.roles("member") == ["A", "B", "C"]
    assert council.cast.begun_ms == [0, 700, 700]
    assert [call.is_leader for call in council.cast.calls] == [True, False, False]


async def test_who_waits_for_the_leader_for_too_long_begins_without_it() -> None:
    """A leader whose model loads for minutes does not hold up the others."""
    council = Council({"A": Script(wait_ms=100_000)})
    await council.play(everybody)
    assert council.cast.begun_ms == [0, 30_000, 30_000]
    assert council.table.leader.label == "A"


async def test_text_is_told_as_it_comes_and_thoughts_are_no_answer() -> None:
    """A thinking model has its first token when it begins to think."""
    council = Council({"A": Script("It is 42", thought="Hm.")}, ["m-one"])
    conclusion = await council.play(solo)
    told = [(event.text, event.is_thought) for event in council.events if isinstance(event, Text)]
    assert told == [("Hm.", True), ("It ", False), ("is ", False), ("42 ", False)]
    assert conclusion.text == council.content == "It is 42 "
    (report,) = council.table.reports
    assert (report.first_token_ms, report.total_ms) == (100, 130)
    assert report.usage is not None
    assert report.usage.completion_tokens == 3


async def test_a_member_is_late_after_one_and_a_half_times_the_leaders_time() -> None:
    """Its own beginning counts, and the others' answers are there."""
    council = Council({"A": Script(wait_ms=40_000), "C": Script("so far", wait_ms=5_000, hangs=True)})
    await council.play(everybody)
    last = council.lines("C")[-1]
    assert (last.state, last.reason) == ("late", "It took longer than 60 s.")
    assert council.state("B") == "done"
    assert council.clock.monotonic_ms() == 30_000 + (40_020 * 3 // 2)


async def test_a_quick_leader_leaves_the_others_twenty_seconds() -> None:
    """The least that a member has."""
    council = Council({"C": Script(hangs=True)})
    await council.play(everybody)
    assert council.clock.monotonic_ms() == 100 + 20_000
    assert council.state("C") == "late"


async def test_the_asker_may_set_the_deadline_of_all_but_the_leader() -> None:
    """The leader takes as long as it takes."""
    council = Council(
        {"A": Script(wait_ms=9_000), "B": Script(wait_ms=900), "C": Script(hangs=True)}, deadline_ms=1_000
    )
    await council.play(everybody)
    assert [council.state(label) for label in "ABC"] == ["done", "done", "late"]
    assert council.clock.monotonic_ms() == 10_000


async def test_one_that_fails_does_not_end_the_others_and_is_named_with_its_reason() -> None:
    """Also one that is taken back, and one that says nothing, and one that breaks in an unforeseen way."""
    council = Council(
        {
            "B": broken("half an"),
            "C": broken("", code="revoked"),
            "D": Script("  "),
            "E": Script("", error=RuntimeError("what")),
        },
        ["m-one", "m-two", "m-three", "m-four", "m-five"],
    )
    await council.play(everybody)
    ends = {label: council.lines(label)[-1] for label in "ABCDE"}
    assert {label: (line.state, line.reason) for label, line in ends.items()} == {
        "A": ("done", None),
        "B": ("failed", "The engine has died."),
        "C": ("revoked", "The engine has died."),
        "D": ("failed", "Its answer is empty."),
        "E": ("failed", "It broke (RuntimeError)."),
    }


async def test_if_the_leader_fails_before_its_first_token_the_next_leads_alone() -> None:
    """It is firm from its beginning, and told."""
    council = Council({"A": broken(wait_ms=300), "B": Script(wait_ms=200)})
    conclusion = await council.play(everybody)
    assert council.cast.begun_ms == [0, 300, 500]
    assert [call.is_leader for call in council.cast.calls] == [True, True, False]
    lead = next(line for line in council.lines("B") if line.is_leader)
    assert (lead.state, lead.reason) == ("waiting", "It leads now: A is failed.")
    assert conclusion.verdict.winner == "B"


async def test_if_the_leader_fails_in_mid_answer_the_next_leads() -> None:
    """And has no deadline from then on, while the third's counts from its time."""
    council = Council({"A": broken("half an"), "B": Script(wait_ms=50_000), "C": Script(hangs=True)})
    await council.play(everybody)
    assert council.table.leader.label == "B"
    assert [council.state(label) for label in "ABC"] == ["failed", "done", "late"]
    assert council.clock.monotonic_ms() == 100 + 50_020 * 3 // 2


async def test_if_all_fail_the_error_names_each() -> None:
    """With the shortest time after which trying again is worth it."""
    limit = TooMany("Your budget is spent.", retry_after_s=9)
    council = Council({"A": broken(), "B": Script("", error=limit), "C": Script("")})
    with pytest.raises(CouncilFailed) as caught:
        await council.play(everybody)
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (502, "council_failed", 9)
    assert [error and error.code for error in caught.value.errors] == ["engine_failed", "rate_limit_exceeded", None]
    assert caught.value.message == (
        "No member of the council gave an answer. A (m-one): The engine has died. "
        "B (m-two): Your budget is spent. C (m-three): Its answer is empty."
    )


async def test_if_all_who_were_asked_fail_those_who_were_not_are() -> None:
    """One after the other, each told why, until one answers."""
    council = Council({"A": broken(), "B": broken()})
    conclusion = await council.play(solo)
    assert conclusion.verdict.winner == "C"
    assert council.lines("C")[0].reason == "Nobody has answered so far."
    assert [call.is_leader for call in council.cast.calls] == [True, True, True]


async def test_a_chair_that_dies_is_followed_by_the_next_best() -> None:
    """What it had said counts no more, and the verdict tells it."""
    council = Council({("A", "chair"): broken("Half a"), ("B", "chair"): Script("Whole")})
    conclusion = await council.play(chaired)
    assert conclusion.text == council.content == "Whole "
    assert [event.is_restart for event in council.events if isinstance(event, Content)] == [False, False, True]
    assert "The chair m-one broke off: The engine has died." in conclusion.verdict.reason


async def test_if_no_chair_lives_the_leaders_answer_is_the_answer() -> None:
    """Two are tried."""
    council = Council({"chair": broken("Half a"), "A": Script("Mine")})
    conclusion = await council.play(chaired)
    assert council.cast.roles("chair") == ["A", "B"]
    assert conclusion.text == council.content == "Mine "
    assert "No chair could join the answers, so this is the answer of A." in conclusion.verdict.reason


async def test_who_failed_as_a_member_is_the_last_to_be_chair() -> None:
    """Its engine is likely to fail again."""
    council = Council({"B": broken()}, chairs=(_seat("B", "m-two"), _seat("C", "m-three")))
    conclusion = await council.play(chaired)
    assert conclusion.verdict.by == "C"


async def test_a_chair_whose_context_is_too_small_is_passed_over() -> None:
    """Without a call."""
    chairs = (_seat("X", "m-tiny", context_tokens=1), _seat("A", "m-one"))
    council = Council({}, chairs=chairs)
    conclusion = await council.play(chaired)
    assert council.cast.roles("chair") == ["A"]
    assert "do not fit into the context of m-tiny" in conclusion.verdict.reason


async def test_an_asker_who_leaves_stops_everybody_at_once() -> None:
    """Every context is left, and no task stays."""
    council = Council({label: Script("so far", hangs=True) for label in "ABC"})
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(council.table.run(everybody))
    await council.until(task, ms=500)
    assert council.cast.open_now == 3
    task.cancel()
    await pass_rounds(5)
    assert task.cancelled()
    assert council.cast.open_now == 0
    assert asyncio.all_tasks() == before
    assert {report.state for report in council.table.reports} == {"dropped"}


async def test_an_asker_who_leaves_before_the_chair_has_begun_leaves_nothing() -> None:
    """After the members, while the chair waits for its slot."""
    council = Council({"chair": Script(wait_ms=60_000)})
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(council.table.run(chaired))
    await council.until(task, ms=500)
    assert council.cast.roles("chair") == ["A"]
    task.cancel()
    await pass_rounds(5)
    assert task.cancelled()
    assert council.cast.open_now == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(("lets_go_ms", "ends_ms"), [(3_000, 23_100), (3_600_000, 25_100)])
async def test_a_member_that_does_not_let_go_holds_up_nobody(lets_go_ms: int, ends_ms: int) -> None:
    """The answer is there at once; the council's end waits for it, but not for ever."""
    council = Council({"B": Script(hangs=True, lets_go_ms=lets_go_ms)})
    task = asyncio.ensure_future(council.table.run(everybody))
    await council.until(task, ms=20_100)
    assert council.state("B") == "late"
    assert council.content == "Answer: 42 "
    await council.until(task)
    assert council.clock.monotonic_ms() == ends_ms
    assert task.result().verdict.winner == "A"
    council.clock.jump(10_000_000)
    await pass_rounds()
    assert council.cast.open_now == 0


async def test_room_that_is_not_found_in_time_is_none() -> None:
    """The allocator may not hold up a council."""

    async def never() -> Seat | None:
        await asyncio.get_running_loop().create_future()
        return None

    council = Council({"A": Script("Answer: 1")}, ["m-one", "m-two"])
    council.table._more = never
    await council.play(duo)
    assert council.verdict.method == "chair"
    ends_ms = council.cast.begun_ms[1] + (council.lines("B")[-1].total_ms or 0)
    assert council.cast.begun_ms[-1] == ends_ms + 2_000


async def test_who_is_asked_first_leads() -> None:
    """Also if a strategy begins with another seat than the first."""

    async def last_first(table: Table) -> None:
        await table.answers(table.seats[::-1])
        alone(table, table.done[0])

    council = Council({})
    await council.play(last_first)
    assert [(call.seat.label, call.is_leader) for call in council.cast.calls] == [
        ("C", True),
        ("B", False),
        ("A", False),
    ]
    assert council.verdict.winner == "C"


async def test_a_strategy_that_breaks_costs_no_answer() -> None:
    """The leader's answer is the conclusion, and the verdict says why."""

    async def breaks(table: Table) -> None:
        await table.answers(table.seats)
        raise LookupError("a plugin may do anything")

    conclusion = await Council({}).play(breaks)
    assert conclusion.verdict.reason == "The strategy broke (LookupError), so this is the answer of A."


@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_strategy_that_comes_to_no_conclusion_has_one(is_asked: bool) -> None:
    """The leader's answer if there is any; else it has failed."""

    async def idle(table: Table) -> None:
        if is_asked:
            await table.answers(table.seats)

    council = Council({})
    if is_asked:
        conclusion = await council.play(idle)
        assert conclusion.verdict.reason == "The strategy came to no conclusion, so this is the answer of A."
    else:
        with pytest.raises(CouncilFailed):
            await council.play(idle)


async def test_a_strategy_cannot_conclude_twice() -> None:
    """The first conclusion stays the only one."""

    async def twice(table: Table) -> None:
        await everybody(table)
        await table.answers([table.seats[1]])
        alone(table, table.done[1])

    council = Council({"A": Script("first"), "B": Script("second")})
    conclusion = await council.play(twice)
    assert conclusion.text == council.content == "first "


async def test_somebody_who_joins_gets_the_next_label() -> None:
    """Whatever it was called before."""

    async def grows(table: Table) -> None:
        await table.answers(table.seats)
        seat = await table.more("they disagree")
        assert seat is not None
        await table.answers([seat])
        assert await table.more("they disagree") is None
        alone(table, table.done[0])

    council = Council({}, more=[_seat("Z", "m-four")])
    await council.play(grows)
    (joined,) = [event for event in council.events if isinstance(event, Joined)]
    assert (joined.label, joined.model, joined.reason) == ("D", "m-four", "they disagree")
    assert council.state("D") == "done"


async def test_samples_of_one_model_have_other_seeds() -> None:
    """The first is the request as it was written."""
    council = Council({}, ["m-one", "m-one", "m-one"])
    await council.play(everybody)
    seeds = [call.seed for call in council.cast.calls]
    assert seeds[0] is None
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("strategy", [judge, karpathy])
async def test_members_with_different_contexts_read_what_fits(strategy: Any) -> None:
    """Who has a small context reads less, or does not read at all; nobody is sent more than it takes."""
    long = Script(" ".join(["word"] * 4_000), word_ms=1)
    places = (
        _seat("A", "m-one", context_tokens=32_000),
        _seat("B", "m-two", context_tokens=1_024),
        _seat("C", "m-three", context_tokens=100),
    )
    council = Council({"member": long, "A": long, "B": long, "C": Script("short")}, places)
    conclusion = await council.play(strategy)
    for call in council.cast.calls:
        size = sum(len(str(message["content"]).encode()) for message in call.messages) / 3
        assert size < (call.seat.context_tokens or 0)
    assert len(conclusion.verdict.opinions) >= 2


def test_labels_go_on_after_z() -> None:
    """As columns of a spreadsheet do."""
    assert [label_of(index) for index in (0, 25, 26, 51, 52, 63)] == ["A", "Z", "AA", "AZ", "BA", "BL"]


def test_a_council_without_seats_is_a_fault_of_the_caller() -> None:
    """As are two seats with one label."""
    places = (_seat("A", "m-one"), _seat("A", "m-two"))
    for wrong in ((), places):
        with pytest.raises(ValueError, match="label of its own"):
            Council({}, wrong, seats=wrong)


def test_an_answer_without_reason_is_named_by_its_state() -> None:
    """A sentence either way."""
    answer = Answer(seat=_seat("A", "m-one"), role="member", text="", state="dropped")
    assert str(CouncilFailed([answer])) == "No member of the council gave an answer. A (m-one): dropped."


async def test_every_line_says_who_leads() -> None:
    """The first member's lines, unless another leads."""
    council = Council({})
    await council.play(everybody)
    lines = [event for event in council.events if isinstance(event, Member)]
    assert {line.label for line in lines if line.is_leader} == {"A"}
    assert Brief(question=(), seats=()).stop_at == 0.93


def _seat(label: str, model: str, context_tokens: int | None = 8_192) -> Seat:
    return Seat(label=label, model=model, engine="e", context_tokens=context_tokens)
