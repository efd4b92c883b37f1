"""What is in force when several scopes speak: the strictest, and who said it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from server.privacy.checks import FIELDS, PolicyError, check, stored
from server.privacy.modes import MODES, ON_PERSONAL_DATA, WISHES, Mode, strictest, strictest_wish, wish_of
from server.privacy.policy import SILENT, For, InForce, Policy, Said, Scopes, Wishes, resolve
from tests.privacy.policies import MODELS, PROVIDERS, models, policies, providers, scopes, wishes

ORDER = {"mode": MODES, "on_personal_data": ON_PERSONAL_DATA, "allows_code": (False, True)}


def _loosest_first(said: InForce) -> dict[str, int]:
    """Ranks of what is in force; a larger one permits more."""
    ranks = {name: order.index(getattr(said, name).value) for name, order in ORDER.items()}
    return {
        **ranks,
        "replaces": int(not said.replaces.value),
        "is_private": int(said.private_by is None),
        "patience": -said.patience_ms.value,
    }


def _is_at_most(stricter: InForce, looser: InForce, *names: str) -> bool:
    left, right = _loosest_first(stricter), _loosest_first(looser)
    return all(left[name] <= right[name] for name in names)


def test_where_nobody_speaks_the_built_in_rules_hold() -> None:
    """Switched off, ask, no code, thirty seconds, and no model that detects."""
    said = resolve(Scopes())
    assert said.is_on == Said(value=False, won_by="built-in")
    assert said.mode == Said("ask", "built-in")
    assert said.on_personal_data == Said("ask", "built-in")
    assert said.replaces == Said(value=False, won_by="built-in")
    assert said.allows_code == Said(value=False, won_by="built-in")
    assert said.patience_ms == Said(30_000, "built-in")
    assert said.council_members == Said(value=False, won_by="built-in")
    assert (said.detection_model.value, said.detection_ms.value) == ("", 2_000)
    assert said.private_by is None


@pytest.mark.parametrize(
    ("policies_say", "wished", "mode", "won_by"),
    [
        ((UNSET, UNSET, UNSET), (None, None), "ask", "built-in"),
        (("allow", "allow", UNSET), ("allow", "allow"), "ask", "built-in"),
        (("allow", UNSET, "allow"), (None, None), "allow", "box"),
        ((UNSET, UNSET, "allow"), (None, None), "allow", "own"),
        (("allow", "pseudonymised", "allow"), (None, None), "pseudonymised", "cap"),
        (("never", "allow", "allow"), ("allow", "allow"), "never", "box"),
        (("allow", "allow", "never"), (None, None), "never", "own"),
        ((UNSET, UNSET, "allow"), ("ask", None), "ask", "conversation"),
        ((UNSET, UNSET, "allow"), ("allow", "never"), "never", "request"),
        ((UNSET, UNSET, "allow"), ("private", None), "never", "conversation"),
        ((UNSET, UNSET, "allow"), (None, "private"), "never", "request"),
        (("ask", "ask", UNSET), (None, "ask"), "ask", "box"),
    ],
)
def test_the_strictest_wins_and_is_named(
    policies_say: tuple[Any, Any, Any], wished: tuple[Any, Any], mode: Mode, won_by: str
) -> None:
    """Of those who say the same, who stands above is named."""
    box, cap, own = (Policy(mode=each) for each in policies_say)
    said = resolve(Scopes(box=box, cap=cap, own=own), Wishes(conversation=wished[0], request=wished[1]))
    assert (said.mode.value, said.mode.won_by) == (mode, won_by)


@given(scopes, wishes, providers, models)
def test_nobody_permits_more_than_anybody_says(said: Scopes, wished: Wishes, provider: str, model: str) -> None:
    """What is in force is at most what each scope says, and exactly what its winner says."""
    result = resolve(said, wished, provider, model)
    spoken = {
        "box": said.box.mode_for(provider, model),
        "cap": said.cap.mode_for(provider, model),
        "own": said.own.mode_for(provider, model),
        "conversation": wished.conversation or UNSET,
        "request": wished.request or UNSET,
    }
    for mode in spoken.values():
        limit = "never" if mode == "private" else mode
        assert limit is UNSET or MODES.index(result.mode.value) <= MODES.index(limit)
    if result.mode.won_by == "built-in":
        assert (result.mode.value, spoken["own"]) == ("ask", UNSET)
    else:
        won = spoken[result.mode.won_by]
        assert result.mode.value == ("never" if won == "private" else won)
    assert (result.private_by is not None) == ("private" in {wished.conversation, wished.request})


@given(scopes, wishes, providers, models, policies)
def test_a_word_of_an_admin_never_loosens(
    said: Scopes, wished: Wishes, provider: str, model: str, word: Policy
) -> None:
    """Whatever a silent box or a silent cap begins to say, nothing that stayed here before leaves."""
    names = ("mode", "on_personal_data", "allows_code", "replaces", "is_private")
    # Whether the box is switched on, and how patient it is, is the box's to say.
    for scope in ("box", "cap"):
        silent = replace(said, **{scope: SILENT})
        speaking = replace(said, **{scope: word})
        before, after = (resolve(each, wished, provider, model) for each in (silent, speaking))
        assert _is_at_most(after, before, *names)


@given(scopes, wishes, providers, models, st.sampled_from(("box", "cap", "own")), st.data())
def test_stricter_words_never_loosen(
    said: Scopes, wished: Wishes, provider: str, model: str, scope: str, data: st.DataObject
) -> None:
    """A scope that says something stricter makes what is in force stricter, or leaves it."""
    policy: Policy = getattr(said, scope)
    mode = policy.mode_for(provider, model)
    before = resolve(said, wished, provider, model)
    if not isinstance(mode, type(UNSET)):
        lower = data.draw(st.sampled_from(MODES[: MODES.index(mode) + 1]))
        # Everything that the scope says of this model is no looser than that.
        tightened = Policy(mode=lower, on_personal_data=policy.on_personal_data)
        after = resolve(replace(said, **{scope: tightened}), wished, provider, model)
        assert _is_at_most(after, before, "mode")
    if policy.on_personal_data is not UNSET:
        rank = ON_PERSONAL_DATA.index(policy.on_personal_data)
        tightened = replace(policy, on_personal_data=data.draw(st.sampled_from(ON_PERSONAL_DATA[: rank + 1])))
        after = resolve(replace(said, **{scope: tightened}), wished, provider, model)
        assert _is_at_most(after, before, "mode", "on_personal_data", "allows_code")
    after = resolve(replace(said, **{scope: replace(policy, allows_code=False)}), wished, provider, model)
    assert _is_at_most(after, before, "mode", "on_personal_data", "allows_code", "replaces")
    assert not after.allows_code.value


@given(scopes, wishes, providers, models, st.sampled_from(WISHES))
def test_wishes_only_tighten(said: Scopes, wished: Wishes, provider: str, model: str, wish: Any) -> None:
    """A conversation or a request that says something permits no more than one that says nothing."""
    for place in ("conversation", "request"):
        silent = replace(wished, **{place: None})
        before = resolve(said, silent, provider, model)
        after = resolve(said, replace(wished, **{place: wish}), provider, model)
        assert _is_at_most(after, before, "mode", "on_personal_data", "allows_code", "replaces", "is_private")


def test_the_most_specific_exception_speaks() -> None:
    """A provider before a pattern of providers, then a model before a pattern, then the longer pattern."""
    policy = Policy(
        mode="never",
        for_=(
            For(provider="*", mode="ask"),
            For(provider="*", model="gpt-5", mode="allow"),
            For(provider="openai", mode="pseudonymised"),
            For(provider="openai", model="gpt-*", mode="ask"),
            For(provider="openai", model="gpt-5-*", mode="allow"),
        ),
    )
    assert policy.mode_for("openai", "gpt-5-mini") == "allow"
    assert policy.mode_for("openai", "gpt-5") == "ask"
    assert policy.mode_for("openai", "o9") == "pseudonymised"
    assert policy.mode_for("anthropic", "gpt-5") == "allow"
    assert policy.mode_for("anthropic", "claude-4") == "ask"
    assert Policy(mode="never", for_=(For(provider="openai", mode="allow"),)).mode_for("anthropic", "x") == "never"


def test_of_equally_specific_exceptions_the_strictest_speaks() -> None:
    """Their order says nothing."""
    entries = (For(provider="openai", model="a*", mode="allow"), For(provider="openai", model="*b", mode="never"))
    for each in (entries, entries[::-1]):
        assert Policy(mode="allow", for_=each).mode_for("openai", "ab") == "never"


def test_an_exception_speaks_for_its_scope_only() -> None:
    """One's own exception does not lift what the box says."""
    said = Scopes(box=Policy(mode="never"), own=Policy(for_=(For(provider="openai", mode="allow"),)))
    assert resolve(said, provider="openai", model="gpt-5").mode == Said("never", "box")


def test_signs_that_are_parts_of_names_are_no_patterns() -> None:
    """Only the star stands for anything."""
    policy = Policy(for_=(For(provider="openai", model="ft:[x]?*", mode="never"),))
    assert policy.mode_for("openai", "ft:[x]?1") == "never"
    assert policy.mode_for("openai", "ft:xa1") is UNSET


@pytest.mark.parametrize(
    ("own", "meant"),
    [(UNSET, "ask"), ("never", "deny"), ("ask", "ask"), ("pseudonymised", "pseudonymise"), ("allow", "deny")],
)
def test_a_person_who_is_silent_on_personal_data_means_their_mode(own: Any, meant: str) -> None:
    """Their own one: a box that makes `allow` stricter must not have personal data leave that stayed here."""
    for box in (UNSET, *MODES):
        said = resolve(Scopes(box=Policy(mode=box), own=Policy(mode=own)))
        assert said.on_personal_data == Said(meant, "built-in")


def test_anybody_can_have_personal_data_replaced() -> None:
    """Also where another scope is stricter, so that its person is asked."""
    for scope in ("box", "cap", "own"):
        for said in (Policy(mode="pseudonymised"), Policy(on_personal_data="pseudonymise")):
            result = resolve(Scopes(**{scope: said}), Wishes(request="ask"))
            assert result.mode.value == "ask"
            assert (result.replaces.value, result.replaces.won_by) == (True, scope)
    assert resolve(Scopes(own=Policy(mode="allow")), Wishes(conversation="pseudonymised")).replaces.value


def test_patience_is_the_persons() -> None:
    """Own before the box's before thirty seconds; a request can wait longer, never shorter."""
    box, own = Policy(patience_ms=5_000), Policy(patience_ms=60_000)
    assert resolve(Scopes(box=box)).patience_ms == Said(5_000, "box")
    assert resolve(Scopes(box=box, own=own)).patience_ms == Said(60_000, "own")
    assert resolve(Scopes(box=box, own=Policy(patience_ms=0))).patience_ms == Said(0, "own")
    assert resolve(Scopes(own=own), Wishes(patience_ms=90_000)).patience_ms == Said(90_000, "request")
    assert resolve(Scopes(own=own), Wishes(patience_ms=1_000)).patience_ms == Said(60_000, "own")


@given(st.lists(st.sampled_from(WISHES), min_size=1))
def test_the_strictest_of_several_wishes_counts(said: list[Any]) -> None:
    """A header and a body may both say something; private is the strictest."""
    assert strictest_wish(None, *said, None) == min(said, key=WISHES.index)
    assert strictest_wish(None, None) is None
    modes = [wish for wish in said if wish != "private"]
    if modes:
        assert strictest(*modes) == min(modes, key=MODES.index)


def test_a_word_that_is_no_wish_is_told() -> None:
    """Never taken for one that permits something."""
    assert wish_of(None) is None
    assert [wish_of(wish) for wish in WISHES] == list(WISHES)
    words: list[object] = ["", "Allow", "yes", 1, True, []]
    for word in words:
        with pytest.raises(ValueError, match=r"There are private, never, ask, pseudonymised, allow\."):
            wish_of(word)


@given(policies, providers, models)
def test_what_is_stored_is_what_was_said(said: Policy, provider: str, model: str) -> None:
    """Through JSON and back nothing is lost, and silence stays silence."""
    again = check("box", stored(said))
    assert again == said
    assert again.mode_for(provider, model) == said.mode_for(provider, model)
    assert stored(SILENT) == {}


BAD: list[tuple[dict[str, object], str, str]] = [
    ({"mode": "maybe"}, "mode", "mode is one of never, ask, pseudonymised, allow."),
    ({"mode": None}, "mode", "mode is one of never, ask, pseudonymised, allow."),
    ({"mode": "private"}, "mode", "mode is one of never, ask, pseudonymised, allow."),
    ({"on_personal_data": "allow"}, "on_personal_data", "on_personal_data is one of deny, ask, pseudonymise."),
    ({"allows_code": 1}, "allows_code", "allows_code is true or false."),
    ({"is_on": "true"}, "is_on", "is_on is true or false."),
    ({"patience_ms": -1}, "patience_ms", "patience_ms is a whole number of milliseconds from 0 to 86400000."),
    ({"patience_ms": True}, "patience_ms", "patience_ms is a whole number of milliseconds from 0 to 86400000."),
    ({"detection_ms": 99}, "detection_ms", "detection_ms is a whole number of milliseconds from 100 to 60000."),
    ({"detection_model": "a\nb"}, "detection_model", "detection_model is the name of a model of this box, or empty."),
    ({"for": {}}, "for", "for is a list of at most 100 objects of provider, model and mode."),
    ({"for": [{"provider": "a", "mode": "ask"}] * 101}, "for", "for is a list of at most 100 objects of"),
    ({"for": ["openai"]}, "for", "Each of for has a provider and a mode, may have a model, and nothing else."),
    ({"for": [{"provider": "a"}]}, "for", "Each of for has a provider and a mode, may have a model, and nothing else."),
    ({"for": [{"provider": "a", "mode": "ask", "x": 1}]}, "for", "Each of for has a provider and a mode, may have a"),
    ({"for": [{"provider": "", "mode": "ask"}]}, "for", "Providers and models in for are names, or patterns with *"),
    ({"for": [{"provider": "a", "model": 7, "mode": "ask"}]}, "for", "Providers and models in for are names, or"),
    ({"for": [{"provider": "a", "mode": ["ask"]}]}, "for", "Each mode in for is one of never, ask, pseudonymised"),
    ({"modes": "ask"}, "modes", "There is no field called 'modes'. There are: is_on, mode, "),
    ({"for_": []}, "for_", "There is no field called 'for_'. There are: is_on, mode, "),
]


@pytest.mark.parametrize(("said", "field", "sentence"), BAD)
def test_bad_policies_are_refused_by_field(said: dict[str, object], field: str, sentence: str) -> None:
    """With a sentence for whoever wrote it."""
    with pytest.raises(PolicyError) as caught:
        check("box", said)
    assert caught.value.field == field
    assert caught.value.sentence.startswith(sentence)
    assert caught.value.sentence.endswith(".")


def test_each_scope_says_what_is_its_own() -> None:
    """A person cannot switch the cloud on, choose who detects, or admit councils; nor does a cap."""
    good = stored(
        Policy(
            is_on=True,
            mode="ask",
            on_personal_data="ask",
            allows_code=True,
            for_=(For(provider=PROVIDERS[0], model=MODELS[0], mode="ask"),),
            patience_ms=1,
            council_members=True,
            detection_model="tiny",
            detection_ms=500,
        )
    )
    assert set(good) == set(FIELDS["box"])
    for scope in ("cap", "own"):
        for name, value in good.items():
            if name in FIELDS[scope]:
                assert stored(check(scope, {name: value})) == {name: value}
                continue
            with pytest.raises(PolicyError, match=f"{name} is no field of "):
                check(scope, {name: value})
