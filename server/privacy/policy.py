"""What may leave, as far as people said it: policies, and what is in force when several of them speak.

Theory of operation. A person decides about their own requests (`own`); a conversation and a single request can make
that stricter. An admin bounds it: for everybody (`box`), and for one person (`cap`). Nobody can loosen what somebody
else made strict: of all who speak the strictest wins, value by value.

    box ─┐
    cap ─┤
    own ─┼─► the strictest, and who said it
    conversation ─┤    (silent own: ask; personal data as the mode says; no code)
    request ─┘

To be silent is to leave a field out. The box, a cap, a conversation and a request that are silent say nothing; a person
who is silent says what is built in. So a word of an admin never loosens what a silent person has.

A scope may say something else of some providers and models (`for`). The most specific entry that fits speaks for its
scope then, in the place of the scope's `mode`; of equally specific ones the strictest. All scopes are compared after
that. What wins is kept with the value, because the first question is who said it.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Generic, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from server.privacy.modes import MODES, ON_PERSONAL_DATA, Mode, OnPersonalData, Wish

Scope = Literal["box", "cap", "own"]
Winner = Literal["box", "cap", "own", "conversation", "request", "built-in"]

PATIENCE_MS = 30_000
DETECTION_MS = 2_000

Value = TypeVar("Value")


class For(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scope says of some models.

    Attributes:
        provider: a provider's name, or a pattern in which `*` is anything.
        model: the same of the provider's models.
    """

    provider: str
    model: str = "*"
    mode: Mode


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one scope says; a field that is absent is silent. Which scope may say what: checks.py.

    Attributes:
        mode: of every provider and model that `for` does not name.
        on_personal_data: what happens to a text in which personal data was found.
        allows_code: whether code, attachments and file names may leave.
        patience_ms: how long a wait on this box may be before the cloud is considered.
        for_: exceptions, `for` in JSON.
        is_on: of the box: whether anything may leave at all.
        council_members: of the box: whether members of councils may be answered by a cloud.
        detection_model: of the box: the local model that looks for personal data; empty: none.
        detection_ms: of the box: how long detectors may take.
    """

    mode: Mode | UnsetType = UNSET
    on_personal_data: OnPersonalData | UnsetType = UNSET
    allows_code: bool | UnsetType = UNSET
    patience_ms: int | UnsetType = UNSET
    for_: tuple[For, ...] | UnsetType = field(default=UNSET, name="for")
    is_on: bool | UnsetType = UNSET
    council_members: bool | UnsetType = UNSET
    detection_model: str | UnsetType = UNSET
    detection_ms: int | UnsetType = UNSET

    def mode_for(self, provider: str, model: str) -> Mode | UnsetType:
        """What this scope says of a model of a provider."""
        fitting = [each for each in self.for_ or () if _fits(each.provider, provider) and _fits(each.model, model)]
        if not fitting:
            return self.mode
        most = max(map(_specificity, fitting))
        return min((each.mode for each in fitting if _specificity(each) == most), key=MODES.index)


SILENT = Policy()


class Scopes(Struct, frozen=True, kw_only=True):
    """What everybody said who may bound one person's requests; `SILENT` where there is nothing."""

    box: Policy = SILENT
    cap: Policy = SILENT
    own: Policy = SILENT


class Wishes(Struct, frozen=True, kw_only=True):
    """What a conversation and a request say for themselves; None: nothing.

    Attributes:
        patience_ms: the request's own; only one that is longer than the policies' counts.
    """

    conversation: Wish | None = None
    request: Wish | None = None
    patience_ms: int | None = None


NO_WISHES = Wishes()


class Said(Struct, Generic[Value], frozen=True):
    """A value in force, and who said it."""

    value: Value
    won_by: Winner


class InForce(Struct, frozen=True, kw_only=True):
    """What holds for one person's request to one model of one provider.

    Attributes:
        provider, model: whom it is about; empty: in general, without the exceptions for some of them.
        private_by: who said that the request is private, if anybody did; `mode` is `never` then.
        on_personal_data: what happens to personal data. Where its person is silent: what their own mode means (`ask`:
            ask, `pseudonymised`: pseudonymise), and with `allow`: deny.
        replaces: whether personal data is replaced in whatever leaves, also where its person is asked: anybody's
            `pseudonymised` or `pseudonymise` is enough.
    """

    provider: str
    model: str
    is_on: Said[bool]
    private_by: Winner | None
    mode: Said[Mode]
    on_personal_data: Said[OnPersonalData]
    replaces: Said[bool]
    allows_code: Said[bool]
    patience_ms: Said[int]
    council_members: Said[bool]
    detection_model: Said[str]
    detection_ms: Said[int]


def resolve(scopes: Scopes, wishes: Wishes = NO_WISHES, provider: str = "", model: str = "") -> InForce:
    """What is in force, and who won.

    Args:
        provider, model: the provider's name, and its name of the model.
    """
    box, cap, own = scopes.box, scopes.cap, scopes.own
    own_mode = own.mode_for(provider, model)
    wished: tuple[tuple[Winner, Wish | None], ...] = (
        ("conversation", wishes.conversation),
        ("request", wishes.request),
    )
    modes: tuple[tuple[Winner, Mode | UnsetType], ...] = (
        ("box", box.mode_for(provider, model)),
        ("cap", cap.mode_for(provider, model)),
        ("own", own_mode),
        *((who, "never" if wish == "private" else wish or UNSET) for who, wish in wished),
    )
    personal: tuple[tuple[Winner, OnPersonalData | UnsetType], ...] = (
        ("box", box.on_personal_data),
        ("cap", cap.on_personal_data),
        ("own", own.on_personal_data),
    )
    code: tuple[tuple[Winner, bool | UnsetType], ...] = (
        ("box", box.allows_code),
        ("cap", cap.allows_code),
        ("own", own.allows_code),
    )
    replacing = (who for who, said in (*modes, *personal) if said in {"pseudonymised", "pseudonymise"})
    return InForce(
        provider=provider,
        model=model,
        is_on=_first(("box", box.is_on), built_in=False),
        private_by=next((who for who, wish in wished if wish == "private"), None),
        mode=_strictest(MODES, modes, own_mode, silent="ask"),
        on_personal_data=_strictest(ON_PERSONAL_DATA, personal, own.on_personal_data, silent=_MEANT[own_mode or "ask"]),
        replaces=next((Said(value=True, won_by=who) for who in replacing), Said(value=False, won_by="built-in")),
        allows_code=_strictest((False, True), code, own.allows_code, silent=False),
        patience_ms=_patience(box, own, wishes.patience_ms),
        council_members=_first(("box", box.council_members), built_in=False),
        detection_model=_first(("box", box.detection_model), built_in=""),
        detection_ms=_first(("box", box.detection_ms), built_in=DETECTION_MS),
    )


# What a person's own mode says of personal data, where they say nothing else. Not the mode in force: else an admin
# who makes `allow` stricter would have personal data leave that stayed here.
_MEANT: dict[Mode, OnPersonalData] = {
    "never": "deny",
    "ask": "ask",
    "pseudonymised": "pseudonymise",
    "allow": "deny",
}


def _strictest(
    order: Sequence[Value],
    spoken: Sequence[tuple[Winner, Value | UnsetType]],
    own: Value | UnsetType,
    *,
    silent: Value,
) -> Said[Value]:
    """The first in `order` that anybody says; among those who say the same, the first of `spoken`.

    Args:
        silent: what a person means who says nothing, so where `own` is none.
    """
    said = [Said(value, who) for who, value in spoken if not isinstance(value, UnsetType)]
    if isinstance(own, UnsetType):
        said.append(Said(silent, "built-in"))
    return min(said, key=lambda each: order.index(each.value))


def _first(*spoken: tuple[Winner, Value | UnsetType], built_in: Value) -> Said[Value]:
    for who, value in spoken:
        if not isinstance(value, UnsetType):
            return Said(value, who)
    return Said(built_in, "built-in")


def _patience(box: Policy, own: Policy, asked_ms: int | None) -> Said[int]:
    said = _first(("own", own.patience_ms), ("box", box.patience_ms), built_in=PATIENCE_MS)
    longer = asked_ms is not None and asked_ms > said.value
    return Said(asked_ms, "request") if longer and asked_ms is not None else said


def _fits(pattern: str, name: str) -> bool:
    # Other signs of fnmatch are parts of names here.
    return pattern == name or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))


def _specificity(each: For) -> tuple[bool, int, bool, int]:
    """More characters that are no star say more; the provider counts before the model."""
    return (
        "*" not in each.provider,
        len(each.provider.replace("*", "")),
        "*" not in each.model,
        len(each.model.replace("*", "")),
    )
