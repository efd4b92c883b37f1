"""What models leave each other: the priors, and what is learned."""

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.allocator.contention import (
    COUNT_MAX,
    LEFT_MIN,
    SIZES_MAX,
    Contention,
    batch_left,
    saturation_left,
    seed_left,
)
from tests.allocator.loads import learned

observations = st.lists(st.tuples(st.integers(1, 20), st.floats(1e-6, 1e6)), max_size=60)
priors = st.builds(Contention, prior=st.sampled_from(["seed", "saturation"]), total=st.floats(0.1, 5.0))


def test_the_seeds_table_is_clamped() -> None:
    """As the seed has it up to six, .1 less for each more, and never below .05, where it would be from eleven on."""
    assert [seed_left(k) for k in range(1, 7)] == [1.0, 0.85, 0.75, 0.65, 0.55, 0.45]
    assert [seed_left(k) for k in (7, 9)] == pytest.approx([0.35, 0.15])
    assert [seed_left(k) for k in (10, 11, 60)] == pytest.approx([LEFT_MIN] * 3)


def test_the_saturation_law() -> None:
    """1.6 times one model in all, the same as measured on an H100 within 20 %; with a total of 1 an even share."""
    assert [saturation_left(k) for k in (1, 2, 4)] == pytest.approx([1.0, 0.8, 0.4])
    assert [saturation_left(k, 1.0) for k in (1, 2, 4)] == [1.0, 0.5, 0.25]
    assert saturation_left(4) == pytest.approx(0.361, rel=0.2)
    assert seed_left(4) > 1.5 * 0.361


def test_the_sizes_that_do_most() -> None:
    """The seed's total peaks at five; by the saturation law more never do less, so any size will do."""
    assert Contention(prior="seed").best_size() == 5
    assert Contention().best_size() == SIZES_MAX
    assert Contention(total=1.0).best_size() == SIZES_MAX
    assert Contention(total=0.7).best_size() == 1


@given(priors, observations)
def test_more_never_leave_more(prior: Contention, seen: list[tuple[int, float]]) -> None:
    """Whatever was measured, each keeps from .05 to all, never more in a larger set, and all of it alone."""
    found = learned(prior, seen)
    lefts = [found.left(k) for k in range(1, 70)]
    assert lefts[0] == 1.0
    assert all(LEFT_MIN <= left <= 1.0 for left in lefts)
    assert all(more <= fewer for fewer, more in pairwise(lefts))


@given(priors, observations)
def test_no_larger_set_does_more(prior: Contention, seen: list[tuple[int, float]]) -> None:
    """Than `best_size`, by more than one part of a hundred."""
    found = learned(prior, seen)
    totals = [k * left for k, left in enumerate(found.curve(), 1)]
    best = found.best_size()
    assert totals[best - 1] >= max(totals) * 0.99
    assert all(total < max(totals) * 0.99 for total in totals[best:])


@given(priors, observations)
def test_what_was_learned_is_kept_as_it_is(prior: Contention, seen: list[tuple[int, float]]) -> None:
    """Through JSON."""
    found = learned(prior, seen)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Contention) == found


def test_the_prior_counts_as_five_measurements() -> None:
    """After five measurements of .45 where .8 was believed, it is the geometric mean of both."""
    found = learned(Contention(), [(2, 0.45)] * 5)
    assert found.left(2) == pytest.approx(math.sqrt(0.8 * 0.45))
    found = learned(Contention(), [(2, 0.45)] * COUNT_MAX)
    assert found.left(2) == pytest.approx(0.45, rel=0.02)


def test_one_measurement_changes_little() -> None:
    """However odd it is: a stream that nearly stood still moves .8 to what a sixth of its logarithm is worth."""
    assert learned(Contention(), [(2, 0.05)]).left(2) == pytest.approx(
        math.exp((5 * math.log(0.8) + math.log(0.05)) / 6)
    )


def test_what_two_taught_is_believed_of_three() -> None:
    """A box that is better than believed at two may try three; by the prior alone it would be kept at two for ever."""
    found = learned(Contention(), [(2, 0.98)] * 100)
    assert found.left(3) == pytest.approx(0.533 * found.left(2) / 0.8, rel=0.01)
    assert found.best_size() > 2


def test_what_says_nothing_teaches_nothing() -> None:
    """One engine keeps everything, of more than SIZES_MAX nothing is learned, and of no measurement neither."""
    assert Contention().with_sums({1: (-5.0, 3), SIZES_MAX + 1: (-5.0, 3), 2: (0.0, 0)}) == Contention()


@pytest.mark.parametrize(
    ("answers", "left"), [(1, 1.0), (2, 0.96), (3, 0.95), (4, 0.94), (6, 0.915), (8, 0.89), (16, 0.78), (32, 0.39)]
)
def test_answers_of_one_model_leave_each_other_most(answers: int, left: float) -> None:
    """As measured on Llama-2-7B; between what was measured it is interpolated, beyond it the total stays."""
    assert batch_left(answers) == pytest.approx(left)


def test_what_was_calibrated_counts() -> None:
    """Rates of all answers together, as a calibration has them; without the rate of one they say nothing."""
    together = ((1, 91.8), (2, 175.8), (4, 346.7), (8, 652.3))
    assert batch_left(4, together) == pytest.approx(346.7 / 4 / 91.8)
    assert batch_left(16, together) == pytest.approx(652.3 / 8 / 91.8 / 2)
    assert batch_left(4, together[1:]) == batch_left(4)


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0.0, 1e5)), max_size=9, unique_by=lambda each: each[0]))
def test_more_answers_never_get_more(together: list[tuple[int, float]]) -> None:
    """Whatever a calibration says."""
    lefts = [batch_left(answers, together) for answers in range(1, 250)]
    assert lefts[0] == 1.0
    assert all(LEFT_MIN <= left <= 1.0 for left in lefts)
    assert all(more <= fewer + 1e-12 for fewer, more in pairwise(lefts))
