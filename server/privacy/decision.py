"""Whether one request may leave this box: one question after the other, and the first that says no is told.

    switched off ─► private ─► policy ─► code or files ─► a secret ─► personal data ─► budget ─► wait ─► send

Two rules keep it safe. What is not known is no: every question takes a value or None, and None keeps the request here,
as does a detector that cannot say that it has looked at everything. And no question is skipped because another one was
answered well: whatever the order, the request leaves only if all of them allow it. The order decides what is told.

A person is asked (outcome `ask`) at the end only, when nothing else is in the way. Then they are the judge of what
they see: so the local model, which finds what patterns cannot, may be silent there, and must not be where nobody looks.

Pure: no clock, no I/O. Nothing here has ever seen a text; sentences name types.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct

from server.privacy.findings import Finding, Verdict
from server.privacy.modes import Form
from server.privacy.policy import InForce, Winner
from server.privacy.words import words_for

Outcome = Literal["local", "ask", "send"]
Rule = Literal[
    "switched_off",
    "private",
    "policy",
    "code_or_files",
    "secret",
    "personal_data",
    "unclear",
    "budget",
    "wait",
    "send",
]
TYPES_TOLD_MAX = 5


class Budget(Struct, frozen=True, kw_only=True):
    """What a person's requests to clouds may cost this month, in millionths of the admin's currency.

    Attributes:
        limit_micros: None is unlimited, and 0 is nothing, also of what costs nothing.
        reserved_micros: by requests that still run.
    """

    limit_micros: int | None
    spent_micros: int
    reserved_micros: int

    def has_room_for(self, micros: int) -> bool:
        """Whether a request that may cost so much fits."""
        if self.limit_micros is None:
            return True
        return self.limit_micros > 0 and self.spent_micros + self.reserved_micros + micros <= self.limit_micros


class Facts(Struct, frozen=True, kw_only=True):
    """All that is known about one request and one model of one provider. None: nobody knows, so nothing leaves.

    Attributes:
        is_on: whether the box lets anything leave.
        is_private: whether the request or its conversation is.
        stands_in: whether a provider that is known and works now has a model for the one that was asked for.
        is_council_part: whether a council asks, and not its person.
        in_force: the policies, for exactly this provider and model.
        by_form: what the detectors found that need no model: secrets, personal data by its form, code, files.
        by_model: what the local model found; None: it was not asked, or there is none.
        price_micros: what the request may cost at the most.
        budget: of its person.
        wait_ms: how long it would wait here, or has waited, whichever is more.
        is_refused: whether this box cannot take it at all now, however long it would wait; `wait_ms` says nothing then.
    """

    is_on: bool | None = None
    is_private: bool | None = None
    stands_in: bool | None = None
    is_council_part: bool | None = None
    in_force: InForce | None = None
    by_form: Verdict | None = None
    by_model: Verdict | None = None
    price_micros: int | None = None
    budget: Budget | None = None
    wait_ms: int | None = None
    is_refused: bool | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """What is to be done, and why.

    Attributes:
        outcome: `ask`: it may leave once its person has seen the exact body and said yes.
        rule: the question that decided.
        form: in which it would leave; None where it stays.
        sentence: for its person; holds no text of theirs.
        won_by: whose word it was, where a policy decided.
    """

    outcome: Outcome
    rule: Rule
    form: Form | None
    sentence: str
    won_by: Winner | None = None


def decide(facts: Facts) -> Decision:
    """The decision, with its sentence. Raises nothing: what is not known keeps the request here."""
    for question in _QUESTIONS:
        stays = question(facts)
        if stays is not None:
            return stays
    assert facts.in_force is not None, "the questions have seen to it"
    return _leaves(facts, facts.in_force)


def _local(rule: Rule, reason: str, won_by: Winner | None = None) -> Decision:
    return Decision(outcome="local", rule=rule, form=None, sentence=f"It stays on this box: {reason}", won_by=won_by)


def _unclear(reason: str) -> Decision:
    return _local("unclear", reason)


def _switched_off(facts: Facts) -> Decision | None:
    said = facts.in_force.is_on if facts.in_force is not None else None
    if facts.is_on is None:
        return _unclear("nobody can tell whether the cloud is switched on.")
    if facts.is_on and (said is None or said.value):
        return None
    who = None if said is None else said.won_by
    return _local("switched_off", "the cloud is switched off here, for everybody.", who)


def _private(facts: Facts) -> Decision | None:
    if facts.is_private is None:
        return _unclear("nobody can tell whether the request is private.")
    by = facts.in_force.private_by if facts.in_force is not None else None
    if not facts.is_private and by is None:
        return None
    what = {"conversation": "this conversation", "request": "this request"}.get(by or "", "it")
    return _local("private", f"{what} is private.", by)


def _stands_in(facts: Facts) -> Decision | None:
    if facts.stands_in is None:
        return _unclear("nobody can tell whether there is a model in a cloud for it.")
    if not facts.stands_in:
        return _local("policy", "no provider that can be reached has a model that stands in for the one you asked.")
    return None


def _mode(facts: Facts) -> Decision | None:
    if facts.in_force is None:
        return _unclear("the rules on what may leave cannot be read.")
    mode = facts.in_force.mode
    if mode.value == "never":
        return _local("policy", f"{_WORDS[mode.won_by]} lets nothing go to {_named(facts.in_force)}.", mode.won_by)
    return None


def _council_part(facts: Facts) -> Decision | None:
    if facts.is_council_part is None or facts.in_force is None:
        return _unclear("nobody can tell whether a council asks.")
    said = facts.in_force.council_members
    if facts.is_council_part and not said.value:
        return _local("policy", f"{_WORDS[said.won_by]} lets no cloud answer for members of councils.", said.won_by)
    return None


def _code_or_files(facts: Facts) -> Decision | None:
    found = [each for each in _findings(facts) if each.kind in {"code", "file"}]
    said = facts.in_force
    if found and said is not None and not said.allows_code.value:
        who = said.allows_code.won_by
        return _local(
            "code_or_files", f"it holds {_told(found)}, and {_WORDS[who]} lets no code and no files leave.", who
        )
    return None


def _secret(facts: Facts) -> Decision | None:
    found = [each for each in _findings(facts) if each.kind == "secret"]
    if found:
        return _local("secret", f"it holds {_told(found)}. What holds a secret never leaves.")
    return None


def _personal_data(facts: Facts) -> Decision | None:
    found = _personal(facts)
    said = facts.in_force
    if found and said is not None and said.on_personal_data.value == "deny":
        who = said.on_personal_data.won_by
        return _local("personal_data", f"it holds {_told(found)}, and {_WORDS[who]} lets no personal data leave.", who)
    return None


def _looked_at_all(facts: Facts) -> Decision | None:
    """Stands after what was found: a secret is told as a secret, also where a detector has failed."""
    if facts.by_form is None:
        return _unclear("nobody has looked through what would leave.")
    if (doubt := _doubt(facts.by_form)) is not None:
        return _unclear(f"nobody can be sure what it holds. {doubt}")
    doubt = _doubt_of_model(facts)
    if doubt is not None and facts.in_force is not None and facts.in_force.mode.value != "ask":
        return _unclear(f"nobody can be sure that it holds no personal data. {doubt}")
    return None


def _budget(facts: Facts) -> Decision | None:
    if facts.budget is None or facts.price_micros is None:
        return _unclear("nobody can tell what it may cost.")
    if facts.budget.has_room_for(facts.price_micros):
        return None
    if facts.budget.limit_micros == 0:
        return _local("budget", "you have no budget for clouds. An admin can give you one.")
    return _local("budget", "what your requests to clouds may cost this month does not reach for it.")


def _wait(facts: Facts) -> Decision | None:
    if facts.is_refused is None:
        return _unclear("nobody can tell whether this box can take it.")
    if facts.is_refused:
        return None
    if facts.wait_ms is None or facts.in_force is None:
        return _unclear("nobody can tell how long it would wait here.")
    patience = facts.in_force.patience_ms
    if facts.wait_ms <= patience.value:
        seconds = _seconds(facts.wait_ms), _seconds(patience.value)
        return _local("wait", f"it waits about {seconds[0]} s here, and {seconds[1]} s are fine.", patience.won_by)
    return None


_QUESTIONS: tuple[Callable[[Facts], Decision | None], ...] = (
    _switched_off,
    _private,
    _stands_in,
    _mode,
    _council_part,
    _code_or_files,
    _secret,
    _personal_data,
    _looked_at_all,
    _budget,
    _wait,
)


def _leaves(facts: Facts, said: InForce) -> Decision:
    """No question keeps it here: ask, or send."""
    found, mode, treatment = _personal(facts), said.mode, said.on_personal_data
    is_replaced = bool(found) and said.replaces.value
    form: Form = "pseudonymised" if is_replaced else "whole"
    holds = f"It holds {_told(found)}. " if found else ""
    where = f"to {_named(said)}, with other words in the place of these" if is_replaced else f"to {_named(said)}"
    if mode.value == "ask" or (found and treatment.value == "ask"):
        rule: Rule = "policy" if mode.value == "ask" else "personal_data"
        who = mode.won_by if mode.value == "ask" else treatment.won_by
        doubt = _doubt_of_model(facts)
        told = f" Patterns alone have looked through it, and they miss much. {doubt}" if doubt is not None else ""
        sentence = f"{holds}{_why(facts)}. It may go {where}, if you say yes: {_WORDS[who]} asks you first.{told}"
        return Decision(outcome="ask", rule=rule, form=form, sentence=sentence, won_by=who)
    sentence = f"{holds}{_why(facts)}. It goes {where}: {_WORDS[mode.won_by]} lets it."
    return Decision(outcome="send", rule="send", form=form, sentence=sentence, won_by=mode.won_by)


# Who says it, as the subject of a sentence.
_WORDS: dict[Winner, str] = {
    "box": "the policy of this box",
    "cap": "the bound that an admin has set for you",
    "own": "your own policy",
    "conversation": "this conversation",
    "request": "the request itself",
    "built-in": "the built-in rule",
}


def _findings(facts: Facts) -> Iterable[Finding]:
    for verdict in (facts.by_form, facts.by_model):
        if verdict is not None:
            yield from verdict.findings


def _personal(facts: Facts) -> list[Finding]:
    return [each for each in _findings(facts) if each.kind == "personal"]


def _doubt(verdict: Verdict) -> str | None:
    """Why it may not be all. That nobody was asked is a reason as well."""
    if not verdict.detectors or (verdict.failed and verdict.unclear is None):
        return "Not all detectors have looked."
    return verdict.unclear


def _doubt_of_model(facts: Facts) -> str | None:
    """Why the local model has not looked through all of it."""
    if facts.by_model is not None:
        return _doubt(facts.by_model)
    is_set = facts.in_force is not None and bool(facts.in_force.detection_model.value)
    return "The detection model has not been asked." if is_set else "No detection model is set on this box."


def _told(found: Iterable[Finding]) -> str:
    """Each type once, in plain words."""
    words = list(dict.fromkeys(words_for(each.type, each.kind) for each in found))
    if len(words) > TYPES_TOLD_MAX:
        words[TYPES_TOLD_MAX - 1 :] = [f"{len(words) - TYPES_TOLD_MAX + 1} more kinds of what is looked for"]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _named(said: InForce) -> str:
    return f"{said.model} at {said.provider}" if said.provider else "a cloud"


def _why(facts: Facts) -> str:
    if facts.is_refused or facts.wait_ms is None:
        return "This box cannot take it now"
    return f"It would wait about {_seconds(facts.wait_ms)} s here"


def _seconds(duration_ms: int) -> int:
    return -(-duration_ms // 1000)
