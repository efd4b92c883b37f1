"""The strategies: who is asked what, when it is enough, and what the verdict says."""

from typing import Any

import pytest

from server.council.agreement import STOP_AT
from server.council.events import Joined
from server.council.strategies import BUILT_IN
from tests.council.scripts import Council, Script, broken, seats

ESSAYS: dict[Any, Script] = {
    "A": Script("Rome was founded on hills above a river, where trade routes met and salt was carried inland."),
    "B": Script("Nobody knows how it began; legends of twins and wolves were written down centuries later."),
    "C": Script("Archaeologists found huts from the ninth century before our era, older than any written source."),
}


def says(**answers: str) -> dict[Any, Script]:
    """Members that give these short answers."""
    return {label: Script(f"I have thought. Answer: {answer}") for label, answer in answers.items()}


async def test_solo_asks_the_leader_alone() -> None:
    """The others are dropped, and told why."""
    council = Council(says(A="42"))
    conclusion = await council.play(BUILT_IN["solo"])
    assert council.cast.roles("member") == ["A"]
    assert (conclusion.verdict.method, conclusion.verdict.winner) == ("solo", "A")
    assert council.lines("B")[-1].reason == "It was not needed."


async def test_duo_stops_where_two_agree() -> None:
    """No chair, no third; the leader's own words are the answer."""
    council = Council(says(A="42", B="42.0"))
    conclusion = await council.play(BUILT_IN["duo"])
    assert council.cast.roles("member") == ["A", "B"]
    assert council.cast.roles("chair") == []
    assert council.verdict.reason == "2 of 2 agree, so A's answer is the answer."
    assert conclusion.text.strip() == "I have thought. Answer: 42"


async def test_duo_asks_a_third_where_two_disagree_and_keeps_the_minority() -> None:
    """Who sits there already and was not asked; here it agrees with the second."""
    council = Council(says(A="41", B="42", C="42"))
    await council.play(BUILT_IN["duo"])
    assert council.lines("C")[0].reason == "Asked because the first two disagree."
    assert (council.verdict.method, council.verdict.winner, council.verdict.agreement) == ("agreement", "B", 0.67)
    assert [opinion.labels for opinion in council.verdict.opinions] == [("B", "C"), ("A",)]


async def test_duo_lets_somebody_new_join_if_there_is_room() -> None:
    """And lets the chair decide if that does not help."""
    council = Council(says(A="41", B="42", C="43"), ["m-one", "m-two"], more=seats("m-three"))
    await council.play(BUILT_IN["duo"])
    (joined,) = [event for event in council.events if isinstance(event, Joined)]
    assert (joined.label, joined.reason) == ("C", "the first two disagree")
    assert council.verdict.method == "chair"
    assert [opinion.labels for opinion in council.verdict.opinions] == [("A",), ("B",), ("C",)]


async def test_duo_takes_another_model_before_another_sample() -> None:
    """A second opinion is another model's."""
    council = Council({}, ["m-one", "m-one", "m-two"])
    await council.play(BUILT_IN["duo"])
    assert council.cast.roles("member") == ["A", "C"]


async def test_duo_of_one_model_says_so() -> None:
    """Two samples are better than one."""
    council = Council({}, ["m-one", "m-one"])
    await council.play(BUILT_IN["duo"])
    assert "it is another sample of the same" in council.verdict.reason


async def test_council_k_asks_all_others_at_once_where_two_disagree() -> None:
    """They begin together, after the first two have ended."""
    council = Council(ESSAYS, ["m-one", "m-two", "m-three", "m-four"])
    await council.play(BUILT_IN["council-k"])
    assert council.cast.begun_ms[2] == council.cast.begun_ms[3] > council.cast.begun_ms[1]
    assert council.verdict.method == "chair"
    assert council.cast.roles("chair") == ["A"]


async def test_council_k_is_done_where_two_agree() -> None:
    """However many could be asked."""
    council = Council({}, ["m-one", "m-two", "m-three", "m-four"])
    await council.play(BUILT_IN["council-k"])
    assert council.cast.roles("member") == ["A", "B"]


async def test_council_k_grows_by_two_at_most() -> None:
    """As long as they disagree and there is room."""
    answers = says(A="1", B="2", C="3", D="4", E="5")
    council = Council(answers, ["m-one", "m-two"], more=seats("m-three", "m-four", "m-five"))
    await council.play(BUILT_IN["council-k"])
    assert council.cast.roles("member") == ["A", "B", "C", "D"]


async def test_self_k_asks_samples_of_the_leaders_model_alone() -> None:
    """Other models give their seats to samples, and are told."""
    council = Council(says(A="42", D="41", E="42"))
    await council.play(BUILT_IN["self-k"])
    assert {call.seat.model for call in council.cast.calls} == {"m-one"}
    assert council.lines("B")[-1].reason == "This strategy asks m-one alone."
    assert (council.verdict.method, council.verdict.winner) == ("vote", "A")
    assert council.verdict.opinions[1].labels == ("D",)


async def test_self_k_stops_samples_that_can_change_nothing() -> None:
    """Two of three are a majority, whatever the third says."""
    council = Council({**says(A="42", B="42"), "C": Script(wait_ms=9_000)}, ["m-one"] * 3)
    await council.play(BUILT_IN["self-k"])
    assert council.lines("C")[-1].reason == "Enough samples say the same."
    assert council.clock.monotonic_ms() < 1_000


async def test_self_k_needs_no_chair_where_essays_are_alike() -> None:
    """Most of the samples say the same in nearly the same words."""
    council = Council({**ESSAYS, "B": ESSAYS["A"]}, ["m-one"] * 3)
    await council.play(BUILT_IN["self-k"])
    assert (council.verdict.method, council.verdict.agreement) == ("agreement", 0.67)


async def test_self_k_lets_the_chair_join_what_cannot_be_counted() -> None:
    """Essays."""
    council = Council(ESSAYS, ["m-one"] * 3)
    await council.play(BUILT_IN["self-k"])
    assert council.verdict.method == "chair"


@pytest.mark.parametrize(("confidence", "asked"), [("fast", 2), ("balanced", 3), ("careful", 4)])
async def test_a_unanimous_vote_ends_as_soon_as_it_is_sure_enough(confidence: str, asked: int) -> None:
    """2 to 0, 3 to 0 or 4 to 0."""
    models = [f"m-{number}" for number in range(6)]
    council = Council({}, models, stop_at=STOP_AT[confidence])
    await council.play(BUILT_IN["vote"])
    assert len(council.cast.calls) == asked
    assert council.verdict.method == "vote"


async def test_a_vote_asks_as_many_as_could_settle_it() -> None:
    """From 1 to 1, four more make 5 to 1; they are asked together."""
    answers = says(A="42", B="41", C="42", D="42", E="42", F="42")
    council = Council(answers, [f"m-{number}" for number in range(8)])
    await council.play(BUILT_IN["vote"])
    assert council.cast.roles("member") == ["A", "B", "C", "D", "E", "F"]
    assert len(set(council.cast.begun_ms[2:])) == 1
    assert council.verdict.reason == "5 of 6 votes are for '42'."
    assert [opinion.labels for opinion in council.verdict.opinions] == [("A", "C", "D", "E", "F"), ("B",)]


async def test_a_vote_that_is_out_of_reach_asks_no_further() -> None:
    """4 to 1 with one left is not sure, but nothing can change it."""
    answers = {**says(A="1", B="2", C="1", D="1", E="1"), "F": broken()}
    council = Council(answers, [f"m-{number}" for number in range(7)])
    await council.play(BUILT_IN["vote"])
    assert council.lines("G")[-1].reason == "It was not needed."
    assert council.verdict.reason == "4 of 5 votes are for '1'."


async def test_one_of_two_that_misses_the_form_does_not_end_a_vote() -> None:
    """A third shows whether it is an essay."""
    council = Council({**ESSAYS, "A": Script("Answer: 42")})
    await council.play(BUILT_IN["vote"])
    assert council.cast.roles("member") == ["A", "B", "C"]
    assert council.verdict.method == "chair"


async def test_a_vote_on_an_essay_goes_to_the_chair_and_says_so() -> None:
    """After two, since more would not make it countable."""
    council = Council(ESSAYS)
    await council.play(BUILT_IN["vote"])
    assert council.cast.roles("member") == ["A", "B"]
    assert council.verdict.method == "chair"
    assert "no short answer that could be counted, so they went to the chair" in council.verdict.reason


async def test_a_tie_goes_to_the_chair() -> None:
    """Both opinions stay."""
    council = Council(says(A="1", B="2"), ["m-one", "m-two"])
    await council.play(BUILT_IN["vote"])
    assert council.verdict.method == "chair"
    assert council.verdict.reason.startswith("The vote is a tie.")
    assert len(council.verdict.opinions) == 2


async def test_who_gives_no_countable_answer_abstains_visibly() -> None:
    """It is named, and its opinion is in the verdict."""
    council = Council({**says(A="42", B="42", C="42"), "B": ESSAYS["B"]}, stop_at=0.87)
    await council.play(BUILT_IN["vote"])
    assert "B gave no answer that can be counted" in council.verdict.reason
    assert [opinion.labels for opinion in council.verdict.opinions] == [("A", "C"), ("B",)]


async def test_the_judges_own_answer_is_left_out() -> None:
    """It chooses between the others, by a number that means one of them."""
    council = Council({**ESSAYS, "judge": Script("It is sound.\nBEST: 2")})
    conclusion = await council.play(BUILT_IN["judge"])
    (ballot,) = [call for call in council.cast.calls if call.role == "judge"]
    assert ballot.seat.label == "A"
    assert "salt was carried inland" not in str(ballot.messages)
    assert council.verdict.winner in {"B", "C"}
    assert conclusion.text.strip() == ESSAYS[str(council.verdict.winner)].text
    assert "A is the judge's own and was left out." in council.verdict.reason


async def test_a_judge_over_two_reads_its_own_and_it_is_told() -> None:
    """Where there is nobody else."""
    council = Council({**ESSAYS, "judge": Script("BEST: 1")}, ["m-one", "m-two"])
    await council.play(BUILT_IN["judge"])
    assert "The judge m-one had an answer of its own among them." in council.verdict.reason


async def test_a_judge_from_outside_comes_before_one_that_judges_itself() -> None:
    """Though it is less skilled."""
    places = seats("m-one", "m-two", "m-outside")
    council = Council({**ESSAYS, "judge": Script("BEST: 1")}, places[:2], chairs=(places[0], places[2]))
    await council.play(BUILT_IN["judge"])
    assert council.verdict.by == "C"


async def test_if_no_judge_names_one_the_leaders_answer_stands() -> None:
    """Both that were tried are told."""
    council = Council({**ESSAYS, ("A", "judge"): broken(), ("B", "judge"): Script("BEST: 9")})
    await council.play(BUILT_IN["judge"])
    assert council.verdict.winner == "A"
    assert "The judge m-one gave no answer (The engine has died.)." in council.verdict.reason
    assert "The judge m-two named none of the answers." in council.verdict.reason


async def test_the_first_whole_answer_wins_the_race() -> None:
    """All begin at once; a cut answer is not acceptable; the others are stopped."""
    scripts = {
        "A": Script(wait_ms=900),
        "B": Script("cut", wait_ms=10, end="length"),
        "C": Script("whole", wait_ms=500),
    }
    council = Council(scripts)
    conclusion = await council.play(BUILT_IN["race"])
    assert council.cast.begun_ms == [0, 0, 0]
    assert (conclusion.text, council.verdict.method, council.verdict.winner) == ("whole ", "race", "C")
    assert council.lines("A")[-1].reason == "Another answer was there first."
    assert council.clock.monotonic_ms() == 510


async def test_if_all_are_cut_the_first_of_them_is_the_answer() -> None:
    """Better than none, and told."""
    council = Council({label: Script("cut", wait_ms=wait, end="length") for label, wait in (("A", 20), ("B", 10))})
    council.cast.scripts = {**council.cast.scripts, "C": broken()}
    await council.play(BUILT_IN["race"])
    assert council.verdict.winner == "B"
    assert council.verdict.reason == "No answer is whole; B's was there first."


async def test_a_race_asks_each_engine_once() -> None:
    """Two on one would slow each other down."""
    places = (*seats("m-one"), seats("m-two", "m-one")[1])
    council = Council({}, places)
    await council.play(BUILT_IN["race"])
    assert council.cast.roles("member") == ["A"]
    assert "runs already" in str(council.lines("B")[-1].reason)


async def test_karpathys_members_rank_each_other_and_never_themselves() -> None:
    """Nobody reads its own answer, and the chair is told how they ranked."""
    council = Council({**ESSAYS, "rank": Script("1 is fine.\nRANKING: 2, 1")})
    await council.play(BUILT_IN["karpathy"])
    ballots = [call for call in council.cast.calls if call.role == "rank"]
    assert [call.seat.label for call in ballots] == ["A", "B", "C"]
    for call in ballots:
        read = str(call.messages)
        assert ESSAYS[call.seat.label].text not in read
        assert all(script.text in read for label, script in ESSAYS.items() if label != call.seat.label)
    (chair,) = [call for call in council.cast.calls if call.role == "chair"]
    assert "Readers have ranked the responses, best first: Response" in str(chair.messages)
    assert (council.verdict.method, council.verdict.by) == ("rank", "A")


async def test_a_ranking_that_cannot_be_read_is_named_and_does_not_count() -> None:
    """The others' do."""
    scripts = {**ESSAYS, "rank": Script("RANKING: 1, 2"), ("B", "rank"): Script("I like them all.")}
    council = Council(scripts)
    await council.play(BUILT_IN["karpathy"])
    assert "B gave no ranking that can be counted." in council.verdict.reason
    assert council.verdict.method == "rank"


async def test_without_any_ranking_the_chair_reads_the_answers_as_they_are() -> None:
    """All who did not rank are named."""
    council = Council({**ESSAYS, "rank": broken()})
    await council.play(BUILT_IN["karpathy"])
    assert "A and B and C gave no ranking that can be counted." in council.verdict.reason
    assert council.verdict.method == "chair"
    (chair,) = [call for call in council.cast.calls if call.role == "chair"]
    assert "Readers have ranked" not in str(chair.messages)


async def test_two_answers_are_not_ranked() -> None:
    """Each could rank only the other's."""
    council = Council({**ESSAYS, "C": broken()})
    await council.play(BUILT_IN["karpathy"])
    assert council.cast.roles("rank") == []
    assert "With 2 answers there is nothing to rank." in council.verdict.reason


async def test_a_debate_shows_each_the_others_and_asks_again() -> None:
    """Once; then they agree."""
    scripts: dict[Any, Script] = {
        **says(A="1", B="2", C="2", D="3"),
        ("A", "debate"): Script("I was wrong. Answer: 2"),
        ("B", "debate"): Script("Answer: 2"),
        ("C", "debate"): broken(),
        ("D", "debate"): Script("Answer: 3"),
    }
    council = Council(scripts, ["m-one", "m-two", "m-three", "m-four"])
    conclusion = await council.play(BUILT_IN["debate"])
    assert council.cast.roles("debate") == ["A", "B", "C", "D"]
    assert conclusion.text.strip() == "I was wrong. Answer: 2"
    assert council.verdict.opinions[0].labels == ("A", "B", "C")
    assert "C did not answer again." in council.verdict.reason


async def test_who_cannot_read_the_others_keeps_its_answer() -> None:
    """Its context is too small for a debate, and that is told."""
    places = (*seats("m-one", "m-two"), seats("m-one", "m-two", "m-tiny", context_tokens=300)[2])
    council = Council({**ESSAYS, "debate": Script("Answer: 7")}, places)
    await council.play(BUILT_IN["debate"])
    assert council.cast.roles("debate") == ["A", "B"]
    assert (
        "The others' answers do not fit into the context of m-tiny. C did not answer again." in council.verdict.reason
    )
    assert council.verdict.method == "vote"
    assert [opinion.labels for opinion in council.verdict.opinions] == [("A", "B"), ("C",)]


async def test_a_debate_ends_where_they_agree() -> None:
    """There is nothing to debate."""
    council = Council({}, rounds=3)
    await council.play(BUILT_IN["debate"])
    assert council.cast.roles("debate") == []
    assert council.verdict.method == "agreement"


@pytest.mark.parametrize(
    ("models", "said"), [(["m-one"] * 3, "needs different models"), (["m-one"], "nobody to debate")]
)
async def test_a_debate_of_one_model_is_none_and_says_so(models: list[str], said: str) -> None:
    """Its samples are compared instead."""
    council = Council(says(A="1", B="2", C="2"), models)
    await council.play(BUILT_IN["debate"])
    assert council.cast.roles("debate") == []
    assert said in council.verdict.reason
