"""What sets are worth, and when evidence is enough."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.allocator.quality import (
    EVIDENCE_MAX,
    GAINLESS_KINDS,
    MIXED,
    PRIOR_VOTE,
    SURPASS,
    Skill,
    majority,
    open_prior,
    pooled,
    prior_of,
    quality_of,
    ranked,
    settled,
    surpasses,
)

qualities = st.floats(0.0, 1.0)
seats = st.lists(st.tuples(st.sampled_from("abc"), qualities), min_size=1, max_size=6)
counts = st.floats(0.0, 500.0)
skills = st.dictionaries(
    st.sampled_from("abcde"), st.builds(Skill, counts, counts, st.floats(0.0, 1.0)), min_size=1, max_size=5
)


@pytest.mark.parametrize("size", range(1, 7))
def test_a_council_is_worth_what_was_measured(size: int) -> None:
    """Of models as good as that of the paper, as many points as there."""
    told = [(f"m{at}", 0.478) for at in range(size)]
    assert quality_of("open", told, gap_max=0.1) == pytest.approx(MIXED[size - 1])


@pytest.mark.parametrize(("samples", "measured"), [(1, 0.478), (2, 0.545), (3, 0.561), (6, 0.567)])
def test_answers_of_one_model_are_worth_what_was_measured(samples: int, measured: float) -> None:
    """Likewise."""
    assert quality_of("open", [("m", 0.478)] * samples, gap_max=0.1) == pytest.approx(measured)


def test_a_weak_member_draws_the_others_down() -> None:
    """Nine points below, with ten allowed, it adds next to nothing, and takes from what the second added."""
    strong = quality_of("open", [("a", 0.6), ("b", 0.6)], gap_max=0.1)
    mixed = quality_of("open", [("a", 0.6), ("b", 0.6), ("c", 0.51)], gap_max=0.1)
    assert 0.6 < mixed < strong
    assert quality_of("open", [("a", 0.6), ("c", 0.5)], gap_max=0.1) == pytest.approx(0.6)


@given(st.sampled_from(["open", "code", "vote", "rewrite"]), seats)
def test_worth_is_a_quality(kind: str, told: list[tuple[str, float]]) -> None:
    """From 0 to 1, and an open council is worth at least its best member."""
    worth = quality_of(kind, told, gap_max=0.1)
    assert 0 <= worth <= 1
    if kind in {"open", "code"}:
        assert worth >= min(max(quality for _, quality in told), 0.99) - 1e-9


@pytest.mark.parametrize("kind", sorted(GAINLESS_KINDS))
def test_some_questions_gain_nothing(kind: str) -> None:
    """A second greeting is no better."""
    assert quality_of(kind, [("a", 0.6), ("b", 0.6)], gap_max=0.1) == 0.6


def test_an_answer_more_is_never_worth_less() -> None:
    """Of another model, or of the same; and another model is worth at least as much as the same again."""
    for models in range(1, 7):
        for answers in range(models, 9):
            assert open_prior(models, answers + 1) >= open_prior(models, answers)
            if models < answers:
                assert open_prior(models + 1, answers) >= open_prior(models, answers)


def test_a_majority_is_right_more_often() -> None:
    """Five votes of .56 give .59, as on MedQA; three of p are p^2 (3 - 2 p) for easy and hard questions alike."""
    assert majority(0.56, 5) == pytest.approx(0.59, abs=0.01)
    three = [p * p * (3 - 2 * p) for p in (0.8, 0.5)]
    assert majority(0.65, 3) == pytest.approx(sum(three) / 2)
    five = [sum(c * p**k * (1 - p) ** (5 - k) for k, c in ((3, 10), (4, 5), (5, 1))) for p in (0.8, 0.5)]
    assert majority(0.65, 5) == pytest.approx(sum(five) / 2)


@given(qualities, st.integers(1, 15))
def test_one_vote_is_worth_what_it_is(quality: float, votes: int) -> None:
    """And many of a bad model are worth less than one: where questions are hard, a majority is wrong."""
    assert majority(quality, 1) == pytest.approx(quality)
    assert 0 <= majority(quality, votes) <= 1
    assert majority(0.3, 2 * votes + 1) < 0.3
    assert majority(0.8, 2 * votes + 1) > 0.8


def test_what_is_believed_of_strangers() -> None:
    """Half, or .65 right where answers can be counted, so that voting is worth trying."""
    assert (prior_of("open"), prior_of("vote")) == (0.5, PRIOR_VOTE)
    assert Skill().mean == 0.5
    assert Skill().lower < 0.25


@given(skills)
def test_noise_flips_nobody(told: dict[str, Skill]) -> None:
    """Whoever leads has not been surpassed, or has surpassed whoever led by the prior, with enough evidence."""
    standing = sorted(told)
    order = ranked(told, standing)
    assert sorted(order) == standing
    if order[0] != standing[0]:
        before = standing[: standing.index(order[0])]
        assert any(surpasses(told[order[0]], told[other]) >= SURPASS for other in before)
    assert all(surpasses(told[later], told[order[0]]) < SURPASS for later in standing[standing.index(order[0]) + 1 :])
    values = list(settled(told, standing).values())
    assert list(settled(told, standing)) == list(order)
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 1.0)), max_size=5))
def test_five_votes_flip_nobody(votes: list[tuple[bool, float]]) -> None:
    """Among equals, whoever they are for."""
    first, second = Skill(), Skill()
    for is_first, weight in votes:
        first = first.observe(won=weight * is_first, lost=weight * (not is_first))
        second = second.observe(won=weight * (not is_first), lost=weight * is_first)
    assert ranked({"a": first, "b": second}, ("a", "b"))[0] == "a"


def test_six_picks_in_a_row_are_enough() -> None:
    """Of one over the other, from equal beginnings; with one against them they are not."""
    assert ranked({"a": Skill(0, 6), "b": Skill(6, 0)}, ("a", "b")) == ("b", "a")
    assert ranked({"a": Skill(1, 6), "b": Skill(6, 1)}, ("a", "b")) == ("a", "b")


def test_chance_seldom_flips_equals() -> None:
    """Two models that are as good: in 200 boxes with 100 votes each the order changes in few, and seldom back."""
    dice = random.Random(7)  # noqa: S311 (a chance that is the same every time)
    changes = []
    for _ in range(200):
        first, second, changed = Skill(), Skill(), 0
        standing: tuple[str, ...] = ("a", "b")
        for _ in range(100):
            is_first = dice.random() < 0.5
            first = first.observe(won=is_first, lost=not is_first)
            second = second.observe(won=not is_first, lost=is_first)
            order = ranked({"a": first, "b": second}, standing)
            changed += order != standing
            standing = order
        changes.append(changed)
    assert sum(changed > 0 for changed in changes) < 40
    assert max(changes) <= 3


def test_a_better_model_comes_to_lead() -> None:
    """One that is picked in seven of ten cases leads after a hundred."""
    dice = random.Random(3)  # noqa: S311 (likewise)
    first, second = Skill(), Skill()
    for _ in range(100):
        is_second = dice.random() < 0.7
        first, second = (
            first.observe(won=not is_second, lost=is_second),
            second.observe(won=is_second, lost=not is_second),
        )
    assert ranked({"a": first, "b": second}, ("a", "b"))[0] == "b"


@given(counts, counts)
def test_evidence_is_bounded(wins: float, losses: float) -> None:
    """However much there is, it counts as so much at the most: the prior is never lost, and the deviation never nil."""
    skill = Skill(wins * 1000, losses * 1000)
    least = 5 / (10 + EVIDENCE_MAX) - 1e-9
    assert least <= skill.mean <= 1 - least
    assert skill.lower < skill.mean
    assert skill.deviation > 0.01


def test_one_person_counts_for_ten() -> None:
    """A thousand thumbs of one person are as ten; two who say the opposite are nobody's win."""
    assert pooled([(1000.0, 0.0)]).mean == pytest.approx(15 / 20)
    assert pooled([(1000.0, 0.0), (0.0, 50.0)]).mean == pytest.approx(0.5)


@pytest.mark.parametrize(("won", "lost"), [(-1.0, 0.0), (0.0, -1.0), (float("nan"), 0.0), (float("inf"), 0.0)])
def test_evidence_is_no_less_than_nothing(won: float, lost: float) -> None:
    """And it is a number."""
    with pytest.raises(ValueError, match="cannot be"):
        Skill().observe(won=won, lost=lost)
