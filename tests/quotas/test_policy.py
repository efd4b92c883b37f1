"""Rules of quotas: what may be written, and what holds when several speak."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quotas.policy import (
    AMOUNTS,
    BUILT_IN,
    COUNCIL_STEPS,
    LIMITS,
    LISTS,
    MEANINGS,
    MODEL_LENGTH_MAX,
    MODELS_MAX,
    Limits,
    PolicyError,
    Rule,
    Value,
    check,
    resolve,
)

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
MODELS = st.none() | st.lists(NAMES, max_size=5, unique=True)
STEPS = st.none() | st.sets(st.sampled_from(COUNCIL_STEPS)).map(
    lambda chosen: [step for step in COUNCIL_STEPS if step in chosen]
)


NO_NUMBERS: tuple[object, ...] = (True, False, 1.5, 5.0, "5", "", [], {}, float("inf"), float("nan"))


def _amounts(name: str) -> st.SearchStrategy[int | None]:
    amount = AMOUNTS[name]
    numbers = st.integers(amount.least, amount.most)
    return numbers | st.none() if amount.may_be_unlimited else numbers


RULES: st.SearchStrategy[dict[str, Value]] = st.fixed_dictionaries(
    {}, optional={**{name: _amounts(name) for name in AMOUNTS}, "council_steps": STEPS, "models": MODELS}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def _checked(rule: dict[str, object]) -> tuple[dict[str, Value], PolicyError | None]:
    """The rule, or why not."""
    try:
        return check(rule), None
    except PolicyError as error:
        return {}, error


def _refusal(rule: dict[str, object]) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        check(rule)
    return caught.value


@given(st.lists(RULES, max_size=4))
def test_the_strongest_rule_that_speaks_wins(rules: list[Rule]) -> None:
    """Limit by limit: the first rule that sets it decides and is named; where none does, the built-in value holds."""
    resolved = resolve(*((f"rule {at}", rule) for at, rule in enumerate(rules)))
    for name in LIMITS:
        speakers = [at for at, rule in enumerate(rules) if name in rule]
        if speakers:
            assert resolved.value(name) == rules[speakers[0]][name]
            assert resolved.won[name] == f"rule {speakers[0]}"
        else:
            assert getattr(resolved.limits, name) == getattr(Limits(), name)
            assert resolved.won[name] == BUILT_IN


@given(strong=RULES, weak=RULES)
def test_a_stronger_rule_is_never_moved_by_a_weaker_one(strong: Rule, weak: Rule) -> None:
    """What a rule sets stays when a weaker rule is added, and a silent rule changes nothing."""
    alone, together = resolve(("strong", strong)), resolve(("strong", strong), ("silent", {}), ("weak", weak))
    assert all(together.value(name) == alone.value(name) for name in strong)
    rest = resolve(("weak", {name: value for name, value in weak.items() if name not in strong}))
    assert all(together.value(name) == rest.value(name) for name in LIMITS if name not in strong)


def test_silence_inherits_and_null_is_unlimited() -> None:
    """A null wins over a weaker number; a limit that is left out does not."""
    resolved = resolve(
        ("user ann", {"tokens_per_day": None}),
        ("role member", {"tokens_per_day": 5, "in_flight_max": 2}),
        ("default", {"in_flight_max": 1, "queue_length_max": None}),
    )
    limits = resolved.limits
    assert (limits.tokens_per_day, limits.in_flight_max, limits.queue_length_max) == (None, 2, None)
    assert [resolved.won[name] for name in ("tokens_per_day", "in_flight_max", "queue_length_max", "weight")] == [
        "user ann",
        "role member",
        "default",
        BUILT_IN,
    ]


def test_without_rules() -> None:
    """Everything local is free, a hundred may wait, and nothing is spent in the cloud."""
    assert resolve().limits == Limits()
    assert (Limits().weight, Limits().queue_length_max, Limits().cloud_cents_per_month) == (100, 100, 0)
    free = set(LIMITS) - {"weight", "queue_length_max", "cloud_cents_per_month"}
    assert {getattr(Limits(), name) for name in free} == {None}


@given(RULES)
def test_a_good_rule_is_taken_as_it_is(rule: dict[str, Any]) -> None:
    """Nothing is added, lost or changed; the order is that of the limits, and checking twice is checking once."""
    checked = check(dict(reversed(rule.items())))
    assert checked == rule == check(checked)
    assert list(checked) == [name for name in LIMITS if name in rule]


@given(st.dictionaries(st.sampled_from(LIMITS) | st.text(max_size=5), JSON, max_size=4))
@example({"weight": float("nan")})
@example({"models": [["a"]]})
@example({"": None})
def test_any_rule_is_taken_or_refused(rule: dict[str, object]) -> None:
    """Whatever JSON brings is taken unchanged, or refused with a sentence about one of its fields."""
    checked, error = _checked(rule)
    if error is None:
        assert checked.keys() == rule.keys()
        assert all(type(value) in {int, list, type(None)} for value in checked.values())
    else:
        assert error.field in rule
        assert error.sentence == str(error)
        assert error.sentence.endswith(".")


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_have_borders(name: str) -> None:
    """The least and the most are taken; one beyond, and everything that is no whole number, is refused by name."""
    amount = AMOUNTS[name]
    for value in (amount.least, amount.most):
        assert check({name: value}) == {name: value}
    for wrong in (amount.least - 1, amount.most + 1, -1, 10**30, *NO_NUMBERS):
        error = _refusal({name: wrong})
        assert error.field == name
        assert error.sentence.startswith(f"{name} is a whole number from {amount.least} to {amount.most}")


LOCK_OUT = "; to lock somebody out, disable them or set models to []."
BAD: list[tuple[dict[str, object], str]] = [
    ({"weight": None}, "weight is a whole number from 1 to 10000; 100 is a normal share."),
    ({"weight": 0}, f"weight is a whole number from 1 to 10000; 100 is a normal share{LOCK_OUT}"),
    ({"tokens_per_day": -5}, "tokens_per_day is a whole number from 1 to 1000000000000, or null (unlimited)."),
    ({"in_flight_max": 0}, f"in_flight_max is a whole number from 1 to 10000, or null (unlimited){LOCK_OUT}"),
    ({"requests_per_minute": True}, "requests_per_minute is a whole number from 1 to 1000000, or null (unlimited)."),
    ({"council_size_max": 65}, "council_size_max is a whole number from 1 to 64, or null (unlimited)."),
    ({"wieght": 3}, f"There is no limit called 'wieght'. There are: {', '.join(LIMITS)}."),
]


@pytest.mark.parametrize(("rule", "sentence"), BAD)
def test_a_bad_rule_is_told_in_one_sentence(rule: dict[str, object], sentence: str) -> None:
    """It names the field and what would do."""
    error = _refusal(rule)
    assert (error.sentence, error.field) == (sentence, next(iter(rule)))


def test_no_cloud_money_is_a_limit() -> None:
    """Zero is what it says, and no mistake."""
    assert check({"cloud_cents_per_month": 0}) == {"cloud_cents_per_month": 0}


@pytest.mark.parametrize(
    "models",
    [
        "stand-in",
        [""],
        ["a\0b"],
        ["a\nb"],
        ["a\x7f"],
        ["a\x85b"],
        ["\ud800"],
        ["x" * (MODEL_LENGTH_MAX + 1)],
        [str(number) for number in range(MODELS_MAX + 1)],
        [1],
        [None],
        {"a": 1},
        True,
        3,
    ],
)
def test_lists_of_models_that_will_not_do(models: object) -> None:
    """No list, too long, or with something in it that is no name."""
    assert _refusal({"models": models}).sentence == (
        "models is a list of at most 100 names, each of 1 to 500 characters without control characters, "
        "or null (all models)."
    )


@pytest.mark.parametrize("steps", ["queue", ["refuse"], ["cloud"], ["Queue"], [""], [1], [None], {"queue": 1}, True, 3])
def test_steps_that_there_are_not(steps: object) -> None:
    """No list, or with something in it that councils cannot do."""
    error = _refusal({"council_steps": steps})
    assert error.field == "council_steps"
    assert error.sentence == (
        "council_steps is a list of some of smaller_council, smaller_model, shorter_answer, queue, or null (all steps)."
    )


def test_steps_that_there_are() -> None:
    """Each once, in the order in which they are tried; none at all is a list as well."""
    assert check({"council_steps": ["queue", "smaller_model", "queue"]}) == {
        "council_steps": ["smaller_model", "queue"]
    }
    assert check({"council_steps": []}) == {"council_steps": []}


def test_lists_of_models_that_will_do() -> None:
    """Repeated names are one; the longest list and the longest name are taken."""
    assert check({"models": ["a", "b", "a"]}) == {"models": ["a", "b"]}
    longest: list[str] = [f"{number:0{MODEL_LENGTH_MAX}}" for number in range(MODELS_MAX)]
    assert check({"models": longest}) == {"models": longest}
    assert check({"models": []}) == {"models": []}


@pytest.mark.parametrize(
    ("models", "model", "is_allowed"),
    [
        (None, "anything", True),
        ([], "anything", False),
        (["a", "b"], "b", True),
        (["a"], "A", False),
        (["a"], "ab", False),
        (["llama-*"], "llama-3", True),
        (["llama-*"], "llama-", True),
        (["llama-*"], "my-llama-3", False),
        (["*"], "x/y:z\n", True),
        (["*-[0-9]"], "a-3", False),
        (["*-[0-9]"], "a-[0-9]", True),
        (["a?*"], "abc", False),
        (["a?*"], "a?c", True),
        (["[a]"], "a", False),
    ],
)
def test_models_that_may_be_asked(models: list[str] | None, model: str, is_allowed: bool) -> None:
    """By name, or by a pattern in which only the star is special; upper and lower case differ."""
    assert resolve(("default", {"models": models})).limits.allows(model) is is_allowed


@given(st.lists(NAMES, max_size=5), NAMES)
def test_a_name_allows_itself(models: list[str], model: str) -> None:
    """Whatever signs a model's name holds, listing it allows it."""
    assert Limits(models=(*models, model)).allows(model)


def test_every_limit_is_described() -> None:
    """Its bounds and its meaning stand beside it, in its order."""
    names = [field.name for field in fields(Limits)]
    assert list(LIMITS) == list(MEANINGS) == names
    assert [name for name in names if name not in LISTS] == list(AMOUNTS)
