"""The decision: the first question that says no is told, what is not known is no, and every answer has a sentence."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.privacy.decision import Budget, Decision, Facts, decide
from server.privacy.findings import Finding, Kind, Verdict
from server.privacy.modes import MODES, ON_PERSONAL_DATA
from server.privacy.policy import For, Policy, Scopes, Wishes, resolve

OUTCOMES = ("local", "ask", "send")
TYPES: dict[Kind, str] = {"secret": "PRIVATE_KEY", "personal": "EMAIL", "code": "CODE", "file": "FILE_NAME"}
TEXT = "ann@example.org"
UNSURE = "The detector model took too long."
KINDS: tuple[Kind, ...] = ("secret", "personal", "code", "file")


def _found(*kinds: Kind, unclear: str | None = None, name: str = "patterns") -> Verdict:
    """A verdict of detectors that found one of each of these."""
    findings = tuple(Finding(kind, TYPES[kind], 0, 0, len(TEXT), name) for kind in kinds)
    return Verdict(findings, {name: "1"}, unclear, 5, () if unclear is None else (name,))


def _free(**changes: Any) -> Facts:
    """A request that nothing keeps here, but for these."""
    own = Policy(mode="allow", on_personal_data="pseudonymise", allows_code=True)
    said = Scopes(box=Policy(is_on=True, detection_model="tiny", council_members=True), own=own)
    facts = Facts(
        is_on=True,
        is_private=False,
        stands_in=True,
        is_council_part=False,
        in_force=resolve(said, provider="openai", model="gpt-5"),
        by_form=_found(),
        by_model=_found(name="model"),
        price_micros=1_000,
        budget=Budget(limit_micros=10_000, spent_micros=3_000, reserved_micros=2_000),
        wait_ms=45_000,
        is_refused=False,
    )
    return replace(facts, **changes)


def _under(own: Policy | None = None, box: Policy | None = None, **wishes: Any) -> Any:
    """What is in force at a box that is switched on."""
    said = Scopes(box=replace(box or Policy(), is_on=True, detection_model="tiny"), own=own or Policy(mode="allow"))
    return resolve(said, Wishes(**wishes), "openai", "gpt-5")


# One reason for each question, in the order of the questions.
REASONS: list[tuple[str, dict[str, Any]]] = [
    ("switched_off", {"is_on": False}),
    ("private", {"is_private": True}),
    ("policy", {"stands_in": False}),
    ("code_or_files", {"code": True}),
    ("secret", {"secret": True}),
    ("personal_data", {"personal": True}),
    ("unclear", {"by_model": _found(unclear=UNSURE)}),
    ("budget", {"price_micros": 5_001}),
    ("wait", {"wait_ms": 30_000}),
]


def _facts_with(reasons: list[dict[str, Any]]) -> Facts:
    """Facts with several reasons to stay."""
    merged = {name: value for reason in reasons for name, value in reason.items()}
    kinds = [kind for kind in KINDS if merged.pop(kind, False)]
    own = Policy(mode="allow", on_personal_data="deny", allows_code=False)
    return _free(by_form=_found(*kinds), in_force=_under(own), **merged)


def test_the_first_reason_is_told() -> None:
    """Whatever else speaks against it: the order is that of the questions."""
    for count in (1, 2, 3, len(REASONS)):
        for chosen in itertools.combinations(REASONS, count):
            decision = decide(_facts_with([reason for _, reason in chosen]))
            assert (decision.outcome, decision.rule) == ("local", chosen[0][0])
            assert decision.form is None


def test_nothing_in_the_way_sends() -> None:
    """Whole, since there is nothing to replace; and with the rule that let it."""
    assert decide(_free()) == Decision(
        outcome="send",
        rule="send",
        form="whole",
        sentence="It would wait about 45 s here. It goes to gpt-5 at openai: your own policy lets it.",
        won_by="own",
    )


def test_what_is_not_known_stays() -> None:
    """Each fact alone; and all of them."""
    for name in Facts.__struct_fields__:
        decision = decide(_free(**{name: None}))
        assert (decision.outcome, decision.rule) == ("local", "unclear"), name
        assert decision.sentence.startswith("It stays on this box: "), name
    assert decide(Facts()).rule == "unclear"


def test_a_detector_that_was_not_asked_is_no_detector() -> None:
    """An empty verdict says nothing of a text; nor does one that names who failed and not why."""
    nobody = Verdict((), {}, None, 0)
    failed = Verdict((), {"patterns": "1"}, None, 0, ("patterns",))
    for verdict in (nobody, failed):
        for place in ("by_form", "by_model"):
            assert decide(_free(**{place: verdict})).rule == "unclear"


def test_a_private_wish_in_the_policies_is_enough() -> None:
    """Also where nobody told the decision separately."""
    decision = decide(_free(in_force=_under(conversation="private")))
    assert (decision.rule, decision.won_by) == ("private", "conversation")
    assert decision.sentence == "It stays on this box: this conversation is private."
    off = resolve(Scopes(box=Policy(is_on=False)), provider="openai", model="gpt-5")
    assert decide(_free(in_force=off)).rule == "switched_off"


@pytest.mark.parametrize(
    ("own", "box", "outcome", "form", "rule"),
    [
        (Policy(mode="ask"), None, "ask", "whole", "policy"),
        (Policy(mode="ask", on_personal_data="deny"), None, "local", None, "personal_data"),
        (Policy(mode="ask", on_personal_data="pseudonymise"), None, "ask", "pseudonymised", "policy"),
        (Policy(mode="ask"), Policy(on_personal_data="deny"), "local", None, "personal_data"),
        (Policy(mode="ask"), Policy(mode="pseudonymised"), "ask", "pseudonymised", "policy"),
        (Policy(mode="pseudonymised"), None, "send", "pseudonymised", "send"),
        (Policy(mode="pseudonymised", on_personal_data="ask"), None, "ask", "pseudonymised", "personal_data"),
        (Policy(mode="allow"), None, "local", None, "personal_data"),
        (Policy(mode="allow"), Policy(mode="pseudonymised"), "local", None, "personal_data"),
        (Policy(mode="allow"), Policy(on_personal_data="pseudonymise"), "local", None, "personal_data"),
        (Policy(mode="allow", on_personal_data="ask"), None, "ask", "whole", "personal_data"),
        (Policy(mode="allow", on_personal_data="pseudonymise"), None, "send", "pseudonymised", "send"),
        (Policy(mode="never"), None, "local", None, "policy"),
    ],
)
def test_personal_data(own: Policy, box: Policy | None, outcome: str, form: str | None, rule: str) -> None:
    """Kept, asked about, or replaced, as the policies say; both tiers count."""
    for place in ("by_form", "by_model"):
        decision = decide(_free(in_force=_under(own, box), **{place: _found("personal")}))
        assert (decision.outcome, decision.form, decision.rule) == (outcome, form, rule)
        if rule != "policy" or outcome == "ask":
            assert "an e-mail address" in decision.sentence


def test_a_secret_stays_whatever_anybody_says() -> None:
    """Neither asked about nor replaced."""
    for mode, personal in itertools.product(MODES[1:], ON_PERSONAL_DATA):
        own = Policy(mode=mode, on_personal_data=personal, allows_code=True)
        for place in ("by_form", "by_model"):
            decision = decide(_free(in_force=_under(own), **{place: _found("secret")}))
            assert (decision.outcome, decision.rule) == ("local", "secret")
            assert (
                decision.sentence == "It stays on this box: it holds a private key. What holds a secret never leaves."
            )


def test_code_stays_unless_its_person_lets_it_go() -> None:
    """And every bound above them does."""
    for kind in ("code", "file"):
        for own, box, outcome in (
            (Policy(mode="allow"), None, "local"),
            (Policy(mode="allow"), Policy(allows_code=True), "local"),
            (Policy(mode="allow", allows_code=True), None, "send"),
            (Policy(mode="allow", allows_code=True), Policy(allows_code=False), "local"),
            (Policy(mode="ask", allows_code=False), None, "local"),
            (Policy(mode="ask", allows_code=True), None, "ask"),
        ):
            decision = decide(_free(in_force=_under(own, box), by_form=_found(kind)))
            assert decision.outcome == outcome
            assert decision.rule == ("code_or_files" if outcome == "local" else decision.rule)


def test_where_its_person_looks_the_model_may_be_silent() -> None:
    """In `ask` the doubt is told; where nobody looks it keeps the request here. Patterns must always have looked."""
    silent: tuple[Verdict | None, ...] = (None, _found(unclear=UNSURE, name="model"))
    for verdict in silent:
        asked = decide(_free(in_force=_under(Policy(mode="ask")), by_model=verdict))
        assert (asked.outcome, asked.rule) == ("ask", "policy")
        assert "Patterns alone have looked through it, and they miss much." in asked.sentence
        for own in (Policy(mode="pseudonymised"), Policy(mode="allow", on_personal_data="ask")):
            assert decide(_free(in_force=_under(own), by_model=verdict)).rule == "unclear"
    for mode in MODES[1:]:
        unsure = decide(_free(in_force=_under(Policy(mode=mode)), by_form=_found(unclear=UNSURE)))
        assert (unsure.outcome, unsure.rule) == ("local", "unclear")
        assert unsure.sentence.endswith(UNSURE)


def test_members_of_councils() -> None:
    """Stay, unless the box says otherwise."""
    said = resolve(Scopes(box=Policy(is_on=True), own=Policy(mode="allow")), provider="openai", model="gpt-5")
    decision = decide(_free(is_council_part=True, in_force=said))
    assert (decision.rule, decision.won_by) == ("policy", "built-in")
    assert decide(_free(is_council_part=True)).outcome == "send"


def test_a_budget_of_nothing_is_nothing() -> None:
    """Also for a model that costs nothing; and unlimited is unlimited."""
    for limit, price, outcome in (
        (0, 0, "local"),
        (None, 10**12, "send"),
        (10_000, 5_000, "send"),
        (10_000, 5_001, "local"),
    ):
        budget = Budget(limit_micros=limit, spent_micros=3_000, reserved_micros=2_000)
        assert decide(_free(budget=budget, price_micros=price)).outcome == outcome


def test_patience() -> None:
    """As long as its person is patient it waits here; where the box cannot take it there is nothing to wait for."""
    assert decide(_free(wait_ms=30_000)).rule == "wait"
    assert decide(_free(wait_ms=30_001)).outcome == "send"
    assert decide(_free(wait_ms=0, is_refused=True)).outcome == "send"
    assert decide(_free(wait_ms=None, is_refused=True)).sentence.startswith("This box cannot take it now. It goes to")


def test_another_mode_for_one_model() -> None:
    """What holds is what is in force for exactly this model."""
    own = Policy(mode="allow", for_=(For(provider="openai", model="gpt-*", mode="never"),))
    decision = decide(_free(in_force=_under(own)))
    assert decision.sentence == "It stays on this box: your own policy lets nothing go to gpt-5 at openai."


verdicts = st.one_of(
    st.none(),
    st.builds(
        lambda kinds, unclear: _found(*kinds, unclear=unclear),
        st.lists(st.sampled_from(KINDS), unique=True),
        st.sampled_from((None, UNSURE)),
    ),
)
said_by_all = st.builds(
    lambda own, box, request: _under(own, box, request=request),
    st.builds(
        Policy,
        mode=st.sampled_from(MODES),
        on_personal_data=st.sampled_from(ON_PERSONAL_DATA),
        allows_code=st.booleans(),
    ),
    st.builds(Policy, council_members=st.booleans()),
    st.one_of(st.none(), st.sampled_from(MODES)),
)
yes_or_no = st.one_of(st.none(), st.booleans())
mostly = st.sampled_from((True, True, True, False, None))
rarely = st.sampled_from((False, False, False, True, None))
all_facts = st.builds(
    Facts,
    is_on=mostly,
    is_private=rarely,
    stands_in=mostly,
    is_council_part=rarely,
    in_force=st.one_of(said_by_all, said_by_all, st.none()),
    by_form=verdicts,
    by_model=verdicts,
    price_micros=st.one_of(st.none(), st.integers(0, 10_000)),
    budget=st.one_of(
        st.none(),
        st.builds(
            Budget,
            limit_micros=st.one_of(st.none(), st.integers(0, 20_000)),
            spent_micros=st.integers(0, 10_000),
            reserved_micros=st.integers(0, 10_000),
        ),
    ),
    wait_ms=st.one_of(st.none(), st.integers(0, 100_000)),
    is_refused=yes_or_no,
)


def _worse(facts: Facts, data: st.DataObject) -> Facts:
    """The same with one fact that speaks more against it."""
    name = data.draw(st.sampled_from(Facts.__struct_fields__))
    value = getattr(facts, name)
    if value is None:
        return facts
    match name:
        case "is_on" | "stands_in" | "is_refused":
            worse: Any = False
        case "is_private" | "is_council_part":
            worse = True
        case "price_micros":
            worse = value + data.draw(st.integers(0, 10_000))
        case "wait_ms":
            worse = max(0, value - data.draw(st.integers(0, 100_000)))
        case "budget":
            worse = replace(value, spent_micros=value.spent_micros + data.draw(st.integers(0, 10_000)))
        case "by_form" | "by_model":
            more = _found(data.draw(st.sampled_from(KINDS))).findings
            unclear = data.draw(st.sampled_from((value.unclear, UNSURE)))
            worse = replace(value, findings=(*value.findings, *more), unclear=unclear)
        case _:
            worse = data.draw(st.sampled_from(list(_stricter(value))))
    return replace(facts, **{name: data.draw(st.sampled_from((worse, worse, None)))})


def _stricter(said: Any) -> Any:
    """What is in force, with one value stricter."""
    for name, order in (("mode", MODES), ("on_personal_data", ON_PERSONAL_DATA), ("allows_code", (False, True))):
        value = getattr(said, name)
        for lower in order[: order.index(value.value) + 1]:
            yield replace(said, **{name: replace(value, value=lower)})
    yield replace(said, is_on=replace(said.is_on, value=False))
    yield replace(said, private_by="request")
    yield replace(said, replaces=replace(said.replaces, value=True))
    yield replace(said, council_members=replace(said.council_members, value=False))
    yield replace(said, patience_ms=replace(said.patience_ms, value=said.patience_ms.value + 10_000))


@given(all_facts, st.data())
def test_a_worse_fact_never_lets_more_leave(facts: Facts, data: st.DataObject) -> None:
    """One that becomes unknown, a finding more, a doubt, a dearer request, a shorter wait, a stricter word."""
    before = decide(facts)
    worse = _worse(facts, data)
    # Whether the local model must have looked depends on who looks instead: that is the only doubt that `ask` lifts.
    if worse.in_force != facts.in_force and before.rule == "unclear":
        return
    after = decide(worse)
    assert OUTCOMES.index(after.outcome) <= OUTCOMES.index(before.outcome), (before, after)
    if after.outcome == before.outcome == "send" and before.form == "pseudonymised":
        assert after.form == "pseudonymised"


@given(all_facts)
def test_what_leaves_was_allowed_by_every_question(facts: Facts) -> None:
    """Asked one by one, and not in the order of the decision."""
    decision = decide(facts)
    if decision.outcome == "local":
        assert decision.form is None
        return
    said, form, model, budget = facts.in_force, facts.by_form, facts.by_model, facts.budget
    assert said is not None
    assert form is not None
    assert budget is not None
    assert facts.price_micros is not None
    assert (facts.is_on, facts.is_private, facts.stands_in) == (True, False, True)
    assert said.mode.value != "never"
    assert not facts.is_council_part or said.council_members.value
    assert form.unclear is None
    findings = (*form.findings, *(model.findings if model is not None else ()))
    kinds = {finding.kind for finding in findings}
    assert "secret" not in kinds
    assert said.allows_code.value or not kinds & {"code", "file"}
    assert "personal" not in kinds or said.on_personal_data.value != "deny"
    assert budget.has_room_for(facts.price_micros)
    assert facts.is_refused or (facts.wait_ms is not None and facts.wait_ms > said.patience_ms.value)
    if decision.outcome == "send":
        assert said.mode.value in {"pseudonymised", "allow"}
        assert model is not None
        assert model.unclear is None
        assert "personal" not in kinds or (said.on_personal_data.value, decision.form) == (
            "pseudonymise",
            "pseudonymised",
        )


@given(all_facts)
def test_every_decision_has_its_sentence(facts: Facts) -> None:
    """It is one for people, says which way it goes, and holds nothing of a text."""
    decision = decide(facts)
    assert decision.sentence.endswith(".")
    assert "None" not in decision.sentence
    assert TEXT not in decision.sentence
    assert "\n" not in decision.sentence
    assert decision.sentence.startswith("It stays on this box: ") == (decision.outcome == "local")
    assert (decision.outcome == "send") == (decision.rule == "send")
    assert (decision.form is None) == (decision.outcome == "local")


def test_many_types_are_told_shortly() -> None:
    """Each once, in plain words, and not more than five."""
    types = ("EMAIL", "PERSON", "EMAIL", "PHONE", "IBAN", "PLACE", "AGE", "URL")
    findings = tuple(Finding("personal", each, 0, at, at + 1, "patterns") for at, each in enumerate(types))
    verdict = Verdict(findings, {"patterns": "1"}, None, 1)
    decision = decide(_free(in_force=_under(Policy(mode="allow")), by_form=verdict))
    assert decision.sentence == (
        "It stays on this box: it holds an e-mail address, a person's name, a phone number, "
        "a bank account number (IBAN) and 3 more kinds of what is looked for, and the built-in rule lets no personal "
        "data leave."
    )
