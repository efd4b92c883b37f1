"""Values of short answers, who agrees with whom, and whether a majority would hold."""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.council.agreement import (
    STOP_AT,
    agreement,
    agrees,
    ballots_missing,
    countable,
    is_out_of_reach,
    is_settled,
    largest,
    majority_holds,
    opinions,
    read,
    similarity,
)
from server.council.extraction import extract

ESSAY = """Bread rises because yeast eats sugar and gives off gas. The gas is caught in the dough.

Kneading makes the dough stronger, so that more gas stays. A warm kitchen makes yeast quicker, a cold one slower."""
OTHER_ESSAY = """Tides are made by the moon, whose pull is stronger on the near side of the earth.

Twice a month sun and moon pull together, and then the water rises highest."""


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("Answer: B", "choice", "B"),
        ("**Final answer:** (C)", "choice", "C"),
        ("It must be the second one.\n\nThe correct answer is b) Paris", "choice", "B"),
        ("B", "choice", "B"),
        ("(d)", "choice", "D"),
        ("B) Paris", "choice", "B"),
        ("Some thoughts.\n\nD.", "choice", "D"),
        ("42", "number", "42"),
        ("6 times 7.\nSo:\n42", "number", "42"),
        ("x = 3/4", "number", "3/4"),
        ("Answer: 1,234.50 km", "number", "1,234.50 km"),
        ("\\boxed{\\frac{1}{2}}", "number", "1/2"),
        ("I counted. The answer is 7 apples.", "number", "7 apples"),
        ("Answer: $12.50 (with tax)", "number", "$12.50"),
        ("First I said Answer: 3. Then I saw more.\nAnswer: 4", "number", "4"),
        ("Yes, because it rains.\nAnd it rains a lot here, as everybody who lives here knows.", "yesno", "yes"),
        ("Answer: False", "yesno", "no"),
        ("Answer: the Eiffel Tower.", "words", "eiffel tower"),
        ("The capital is old. The answer is Paris.", "words", "paris"),
        ("Paris", "words", "paris"),
        ("The answer is 42 because " + "it follows from what was said, and " * 6, "number", "42"),
        ('{"reason": "6 * 7", "answer": 42}', "number", "42"),
        ('{"answer": true}', "yesno", "yes"),
    ],
)
def test_a_short_answer_is_found(text: str, kind: str, shown: str) -> None:
    """Marked, alone, or at the end."""
    value = extract(text)
    assert value is not None
    assert (value.kind, value.text) == (kind, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        ESSAY,
        "It ended in 1945.",
        "a",
        "```\nAnswer: 3\n```\nThis program prints something, and what it prints depends on its input file.",
        "~~~\n42\n~~~",
        '{"text": "an essay"}',
        '{"broken": ',
        "The answer is that nobody knows what will happen in the next ten years or so.",
        "The answer is a matter of personal taste anyway",
        "# Heading\nText of an essay that goes on.\n\nIn the end there were 12 left.",
    ],
)
def test_an_essay_has_no_short_answer(text: str) -> None:
    """Nor has a program's output."""
    assert extract(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Answer: 42", "I think the answer is **42**.", True),
        ("42", "42.0", True),
        ("1,234", "1234", True),
        ("1 234,5", "1234.5", True),
        ("1.234,5", "1234.5", True),
        ("0.5", "1/2", True),
        ("50%", "0.5", True),
        ("50 %", "50", True),
        ("1e3", "1000", True),
        ("5 km", "5000 m", True),
        ("5 km", "5 m", False),
        ("5 km", "5 kg", False),
        ("90 min", "1.5 hours", True),
        ("-3", "3", False),
        ("\N{MINUS SIGN}3", "-3", True),
        ("Answer: B", "(b)", True),
        ("Answer: A", "Answer: B", False),
        ("Yes.", "Answer: true", True),
        ("Yes.", "No.", False),
        ("Answer: C", "Answer: C++", False),
        ("Answer: x < 5", "Answer: x > 5", False),
        ("Answer: x = 42", "42", True),
        ("Answer: x = 3, y = 4", "Answer: x = 3, y = 5", False),
        ("Answer: The Hague", "Answer: hague", True),
        ("Answer: 42", "Answer: B", False),
        ("Answer: 12:30", "Answer: 12:45", False),
        ("8", "8 legs", True),
        ("8", "A spider has 8 legs", True),
        ("8 legs.", "It has 8 legs in total.", True),
        ("9", "A spider has 8 legs", False),
        ("8", "A spider does not have 8 legs", False),
        ("8", "It has 8 legs and 2 claws", False),
        ("8 km", "It is 8 m long.", False),
        ("8 km", "It is 8000 m long.", True),
        ("8 km", "8 m", False),
        ("8", "8 m", True),
        ("1 kilometer", "1 km", True),
        ("8 °C", "8 °F", False),
        ("8 °C", "8", True),
        ("8 m/s", "8 m", False),
        ("8 m/s", "8 km/h", False),
        ("$8", "8 $", True),
        ("$8", "8 €", False),
        ("$8", "8 dollars", True),
        ("8 W", "8 V", False),
        ("Answer: 8 am", "Answer: 8 pm", False),
        ("Answer: 8 of them", "Answer: 8 in total", True),
        ("19", "It was COVID-19.", False),
        ("<think>Answer: 41?\nNo.</think>\n42", "Answer: 42", True),
    ],
)
def test_values_are_compared_and_not_how_they_are_written(one: str, other: str, same: bool) -> None:
    """Units, decimals and decoration do not matter, signs do."""
    assert agrees(one, other) is same
    assert agrees(other, one) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ESSAY, ESSAY.replace("A warm kitchen makes yeast quicker", "Warm kitchens make yeast quicker"), True),
        (ESSAY, OTHER_ESSAY, False),
        (ESSAY, "", False),
        ("The cat sat down on the mat.", "The cat never sat down on the mat.", False),
        ("It was built in the year 1889 by many workers.", "It was built in the year 1890 by many workers.", False),
        ("Yeast eats sugar and gives off gas.", ESSAY, True),
        ("面包会发酵因为酵母吃糖并产生气体", "面包会发酵，因为酵母吃糖，并产生气体", True),
        ("面包会发酵因为酵母吃糖并产生气体", "潮汐是由月亮的引力造成的", False),
    ],
)
def test_open_answers_are_compared_by_their_words(one: str, other: str, same: bool) -> None:
    """Numbers and negations must be the same as well."""
    assert agrees(one, other) is same
    assert agrees(other, one) is same


ANSWERS = st.one_of(
    st.sampled_from(
        ["Answer: 42", "42.0", "42 km", "42000 m", "50%", "0.5", "Answer: B", "(b)", "Yes.", "no", ESSAY, ""]
    ),
    st.sampled_from([OTHER_ESSAY, "Answer: Paris", "Yeast eats sugar and gives off gas.", "not " + ESSAY]),
    st.sampled_from(["8", "8 legs", "A spider has 8 legs", "It has 8 eyes.", "8 km", "8 m", "8 °C", "8 °F", "$8"]),
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["a", "red", "cat", "sat", "not", "12", "13", "on", "mats", "gas", "yeast", "sugar"]),
        max_size=40,
    ).map(" ".join),
)


@given(ANSWERS, ANSWERS)
def test_agreement_is_symmetric(one: str, other: str) -> None:
    """Whoever is compared with whom."""
    assert agrees(one, other) is agrees(other, one)
    assert similarity(read(one).words, read(other).words) == similarity(read(other).words, read(one).words)


@given(ANSWERS)
def test_everybody_agrees_with_itself(text: str) -> None:
    """Word for word the same is the same."""
    assert agrees(text, text)


@settings(deadline=None)
@given(st.lists(ANSWERS, max_size=12))
def test_no_vote_is_lost(texts: list[str]) -> None:
    """Each label is in exactly one opinion, the largest first, and nobody in one is alone with what it said."""
    answers = [(f"L{index}", text) for index, text in enumerate(texts)]
    groups = opinions(answers)
    assert sorted(label for group in groups for label in group.labels) == sorted(label for label, _ in answers)
    assert all(len(one.labels) >= len(other.labels) for one, other in pairwise(groups))
    said = dict(answers)
    for group in groups:
        assert all(
            len(group.labels) == 1 or any(agrees(said[one], said[other]) for other in group.labels if other != one)
            for one in group.labels
        )
    assert agreement(groups) == (round(len(groups[0].labels) / len(texts), 2) if texts else 0)
    ballots = countable(answers)
    assert set(ballots) <= set(answers)


NUMBERS = st.lists(
    st.sampled_from(
        [
            "8",
            "8 legs",
            "8.0",
            "8 km",
            "8000 m",
            "8 m",
            "8 °C",
            "$8",
            "9",
            "9 km",
            "8000",
            "It has 8 legs.",
            "It is 9 km.",
        ]
    ),
    max_size=10,
)


def _has_unit(text: str) -> bool:
    value = extract(text)
    return value is not None and value.measure is not None


@settings(deadline=None)
@given(NUMBERS, st.randoms(use_true_random=False))
def test_no_opinion_holds_what_contradicts(texts: list[str], chance: Random) -> None:
    """Bare numbers go with one unit, not with two; as many agree in any order, if no two opinions with a unit tie."""
    answers = [(f"L{index}", text) for index, text in enumerate(texts)]
    groups, said = opinions(answers), dict(answers)
    for group in groups:
        values = [value for label in group.labels if (value := extract(said[label])) is not None and value.measure]
        assert all(one.is_same(other) for one in values for other in values)
        assert list(group.labels) == sorted(group.labels, key=lambda label: int(label[1:]))
    firm = [len(group.labels) for group in opinions([each for each in answers if _has_unit(each[1])])]
    shuffled = chance.sample(answers, len(answers))
    assert len(set(firm)) < len(firm) or [len(group.labels) for group in opinions(shuffled)] == [
        len(group.labels) for group in groups
    ]


def test_a_bare_number_joins_the_larger_opinion() -> None:
    """It agrees with both, and is counted once."""
    texts = {"A": "8", "B": "8 m", "C": "8 km", "D": "8000 m", "E": "A road of 8"}
    groups = opinions(list(texts.items()))
    assert [(group.answer, group.labels) for group in groups] == [("8 km", ("A", "C", "D", "E")), ("8 m", ("B",))]


@given(st.decimals(-10_000_000, 10_000_000, places=2), st.sampled_from(["", " km", "%", " $", " apples"]))
def test_a_number_is_the_same_however_it_is_written(number: Decimal, unit: str) -> None:
    """With thousands, with a decimal comma, with trailing zeros, with emphasis."""
    plain = f"{number}{unit}"
    grouped = f"{number:,}{unit}"
    swapped = grouped.translate(str.maketrans(",.", " ,"))
    for other in (grouped, swapped, f"**{number}0**{unit}"):
        assert agrees(f"Answer: {plain}", f"So the answer is {other}."), other
        assert not agrees(f"Answer: {plain}", f"Answer: {number + 1}{unit}")


@given(st.text(max_size=2_000))
def test_anything_can_be_read(text: str) -> None:
    """Whatever a model writes, and in bounded time."""
    value = extract(text)
    assert value is None or value.text


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000,
        "1," * 50_000,
        "answer is " * 20_000,
        "\\boxed{" * 20_000,
        "```\n" * 20_000,
        "\n" * 100_000 + "x",
        " " * 100_000 + "x",
        "<think>" * 20_000,
        "*" * 100_000,
        "answer:" + "\n" * 100_000,
        "the " * 50_000,
    ],
    ids=lambda text: text[:9],
)
def test_what_is_made_to_be_slow_is_not(text: str) -> None:
    """No pattern backtracks for ever; the test's time limit would end it."""
    agrees(text, text + "x")


TABLE = {
    (1, 0): 0.750,
    (2, 0): 0.875,
    (3, 0): 0.938,
    (4, 0): 0.969,
    (2, 1): 0.688,
    (3, 1): 0.813,
    (4, 1): 0.891,
    (5, 1): 0.938,
    (6, 0): 0.992,
}


@pytest.mark.parametrize(("votes", "expected"), TABLE.items())
def test_the_probability_is_that_of_adaptive_consistency(votes: tuple[int, int], expected: float) -> None:
    """To three digits, as computed from its authors' formula."""
    assert abs(majority_holds(*votes) - expected) <= 0.0005


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sum_is_the_integral(first: int, second: int) -> None:
    """Of x^a (1-x)^b, term by term in whole numbers."""
    assert Fraction(majority_holds(first, second)) == _above_half(first, second)


def _above_half(a: int, b: int) -> Fraction:
    """The share of the integral above one half, by the binomial theorem."""
    whole = half = Fraction(0)
    for power in range(b + 1):
        sign = (-1) ** power * _choose(b, power)
        exponent = a + power + 1
        whole += Fraction(sign, exponent)
        half += Fraction(sign, exponent) * (1 - Fraction(1, 2**exponent))
    return half / whole


def _choose(n: int, k: int) -> int:
    return 1 if k == 0 else _choose(n, k - 1) * (n - k + 1) // k


def test_the_thresholds_stop_where_they_say() -> None:
    """2 to 0; 3 to 0 and 5 to 1; 4 to 0."""
    first = {
        name: next(votes for votes in range(1, 7) if is_settled([votes], stop_at)) for name, stop_at in STOP_AT.items()
    }
    assert first == {"fast": 2, "balanced": 3, "careful": 4}
    assert is_settled([1, 5], STOP_AT["balanced"])
    assert not is_settled([5, 1], STOP_AT["careful"])
    assert not is_settled([], STOP_AT["fast"])


@given(st.lists(st.integers(1, 6), max_size=4), st.sampled_from(sorted(STOP_AT.values())), st.integers(1, 12))
def test_the_ballots_that_are_missing_would_settle_it(counts: list[int], stop_at: float, ballots_max: int) -> None:
    """And one less would not."""
    assume(not is_settled(counts, stop_at))
    missing = ballots_missing(counts, stop_at, ballots_max)
    first, *others = sorted([*counts, 0], reverse=True)
    assert 1 <= missing <= ballots_max
    assert missing == ballots_max or is_settled([first + missing, *others], stop_at)
    assert missing == 1 or not is_settled([first + missing - 1, *others], stop_at)


def test_a_lead_is_out_of_reach_if_the_rest_cannot_catch_up() -> None:
    """Drawing level is enough to be within reach."""
    assert is_out_of_reach([4, 1], 2)
    assert not is_out_of_reach([4, 1], 3)
    assert not is_out_of_reach([], 0)


def test_two_largest_are_none() -> None:
    """A tie has no winner."""
    assert largest(["ab", "c"], len) == "ab"
    assert largest(["a", "c"], len) is None
    assert largest([], len) is None
