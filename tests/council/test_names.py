"""What an asker may write, and what is refused with the place where it stands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.council.names import Options, check_models, is_council, options_of, parse
from server.council.strategies import BUILT_IN
from server.errors import InvalidRequest


@pytest.mark.parametrize(
    ("model", "named", "samples_only", "size"),
    [
        ("council", None, False, None),
        ("council:1", None, False, 1),
        ("council:64", None, False, 64),
        ("council:self", None, True, None),
        ("council:self:3", None, True, 3),
        ("council:thinkers", "thinkers", False, None),
        ("council:3-wise", "3-wise", False, None),
    ],
)
def test_a_council_is_a_models_name(model: str, named: str | None, samples_only: bool, size: int | None) -> None:
    """Its size, samples of one, or one that an admin has put together."""
    wish = parse(model)
    assert (wish.named, wish.samples_only, wish.size) == (named, samples_only, size)


@pytest.mark.parametrize(
    "model",
    [
        "council:",
        "council:0",
        "council:100",
        "council:65",
        "council:-1",
        "council:03",
        "council:3.5",
        "council: 3",
        "council:٣",
        "council:self:0",
        "council:self:x",
        "council:self:",
        "council:self:3:4",
        "council:Thinkers",
        "council:-x",
        "council:a:b",
        "council:a b",
        "council:" + "x" * 41,
        "council:council:3",
    ],
)
def test_what_is_written_otherwise_is_refused_with_how_it_should_be(model: str) -> None:
    """A council of zero, of a hundred, and junk."""
    with pytest.raises(InvalidRequest, match=r"council:N with 1 to 64 members") as caught:
        parse(model)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "council_name", "model")


def test_a_model_that_only_begins_like_it_is_a_model() -> None:
    """It is routed like any other."""
    assert [is_council(model) for model in ("council", "council:junk", "councillor-7b", "Council", "my/council")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_options_are_read_from_the_body() -> None:
    """All of them; what is not said is None."""
    said = {
        "strategy": "vote",
        "members": ["a", "b"],
        "chair": "a",
        "size": 3,
        "rounds": 2,
        "deadline_ms": 20_000,
        "steps": ["smaller_council", "queue"],
        "confidence": "fast",
    }
    wish = parse("council", options_of({"wirthforge": {"council": said}}), strategies=BUILT_IN)
    assert wish.size == 3
    assert wish.options == Options(
        strategy="vote",
        members=("a", "b"),
        chair="a",
        size=3,
        rounds=2,
        deadline_ms=20_000,
        steps=("smaller_council", "queue"),
        confidence="fast",
    )
    assert parse("council", options_of({})).options == Options()
    assert parse("council", options_of({"wirthforge": {}})).options == Options()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (3, "wirthforge.council"),
        ({"size": 0}, "wirthforge.council.size"),
        ({"size": 100}, "wirthforge.council.size"),
        ({"size": "3"}, "wirthforge.council.size"),
        ({"members": [1]}, "wirthforge.council.members[0]"),
        ({"members": ["a", "b", "a"]}, "wirthforge.council.members[2]"),
        ({"members": [""]}, "wirthforge.council.members[0]"),
        ({"rounds": 0}, "wirthforge.council.rounds"),
        ({"deadline_ms": -1}, "wirthforge.council.deadline_ms"),
        ({"steps": ["give_up"]}, "wirthforge.council.steps[0]"),
        ({"strategy": "shout"}, "wirthforge.council.strategy"),
        ({"colour": "red"}, "wirthforge.council"),
    ],
)
def test_a_wrong_option_is_refused_with_its_place(options: Any, param: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        parse("council", options, strategies=BUILT_IN)
    assert (caught.value.code, caught.value.param) == ("council_options", param)


@pytest.mark.parametrize("options", [{"members": ["a", "council"]}, {"chair": "council:self"}])
def test_no_council_sits_in_a_council(options: Any) -> None:
    """Neither as a member nor as the chair."""
    with pytest.raises(InvalidRequest, match="not another council") as caught:
        parse("council:2", options)
    assert caught.value.code == "council_member"


def test_name_and_options_may_not_contradict() -> None:
    """The same size twice is no contradiction."""
    assert parse("council:3", {"size": 3}).size == 3
    with pytest.raises(InvalidRequest, match="asks for 3 members and the options for 4"):
        parse("council:3", {"size": 4})
    with pytest.raises(InvalidRequest, match="takes one member"):
        parse("council:self", {"members": ["a", "b"]})


def test_models_that_nobody_serves_are_named() -> None:
    """Members and the chair."""
    options = Options(members=("a", "b"), chair="c")
    check_models(options, {"a", "b", "c"})
    with pytest.raises(InvalidRequest, match="No engine serves 'b'") as caught:
        check_models(options, {"a", "c"})
    assert (caught.value.code, caught.value.param) == ("council_member", "wirthforge.council.members[1]")
    with pytest.raises(InvalidRequest, match="No engine serves 'c'"):
        check_models(options, {"a", "b"})


def test_the_extension_must_be_an_object() -> None:
    """Else the error says where."""
    with pytest.raises(InvalidRequest) as caught:
        options_of({"wirthforge": [1]})
    assert caught.value.param == "wirthforge"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(Options.__struct_fields__), inner),
    max_leaves=8,
)


@given(st.text(max_size=30).map("council:".__add__) | st.just("council"), JSON)
def test_whatever_is_written_is_read_or_refused(model: str, options: Any) -> None:
    """Nothing else happens."""
    refused: list[InvalidRequest] = []
    sizes: list[int | None] = []
    try:
        sizes.append(parse(model, options).size)
    except InvalidRequest as error:
        refused.append(error)
    assert len(refused) + len(sizes) == 1
    assert all(size is None or 1 <= size <= 64 for size in sizes)
    assert {error.code for error in refused} <= {"council_name", "council_options", "council_member"}
    assert all(error.param for error in refused)
