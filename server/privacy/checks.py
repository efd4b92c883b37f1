"""What each scope of a policy may say, and the sentence for whoever says something else."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from server.privacy.modes import MODES, ON_PERSONAL_DATA, one_of
from server.privacy.policy import Policy, Scope

FOR_MAX = 100
NAME_CHARACTERS_MAX = 500
# Of fields that are amounts.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "patience_ms": (0, 24 * 60 * 60 * 1000),
    "detection_ms": (100, 60_000),
}

_EVERYBODYS = ("mode", "on_personal_data", "allows_code", "for")
# In the order in which they are shown.
FIELDS: Mapping[Scope, Sequence[str]] = {
    "box": ("is_on", *_EVERYBODYS, "patience_ms", "council_members", "detection_model", "detection_ms"),
    "cap": _EVERYBODYS,
    "own": (*_EVERYBODYS, "patience_ms"),
}

MEANINGS: Mapping[str, str] = {
    "is_on": "Whether anything may leave this box at all.",
    "mode": f"How much may leave: {', '.join(MODES)}.",
    "on_personal_data": f"What happens where personal data is found: {', '.join(ON_PERSONAL_DATA)}.",
    "allows_code": "Whether code, attachments and names of files may leave.",
    "for": "Other modes for some providers and models.",
    "patience_ms": "How long a wait here may be before a cloud is considered.",
    "council_members": "Whether a cloud may answer for members of councils.",
    "detection_model": "The local model that looks for personal data; empty: none.",
    "detection_ms": "How long detectors may take.",
}


class PolicyError(ValueError):
    """A policy that will not do.

    Attributes:
        field: the field that is wrong, or the name that is none.
        sentence: what is wrong with it, for whoever wrote it.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field
        self.sentence = sentence


def check(scope: Scope, said: Mapping[str, object]) -> Policy:
    """The policy that a scope says.

    Raises:
        PolicyError: a name is no field of this scope, or a value will not do.
    """
    for name, value in said.items():
        if name not in FIELDS[scope]:
            raise PolicyError(name, _no_field(scope, name))
        _CHECKS[name](name, value)
    return msgspec.convert(dict(said), Policy)


def stored(policy: Policy) -> dict[str, object]:
    """As a table keeps it, and as it was said: without what is silent."""
    # Through JSON: a table gives back lists where a policy has tuples, and what is the same must compare as such.
    said: dict[str, object] = msgspec.json.decode(msgspec.json.encode(policy))
    return said


def _no_field(scope: Scope, name: str) -> str:
    if name in MEANINGS:
        whose = {"cap": "the bound of one person", "own": "one's own policy", "box": "the box"}[scope]
        return f"{name} is no field of {whose}. There are: {', '.join(FIELDS[scope])}."
    return f"There is no field called {name[:100]!r}. There are: {', '.join(FIELDS[scope])}."


def _word(words: Sequence[str]) -> Callable[[str, object], None]:
    def check_word(name: str, value: object) -> None:
        try:
            one_of(words, value)
        except ValueError:
            raise PolicyError(name, f"{name} is one of {', '.join(words)}.") from None

    return check_word


def _yes_or_no(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise PolicyError(name, f"{name} is true or false.")


def _milliseconds(name: str, value: object) -> None:
    least, most = BOUNDS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise PolicyError(name, f"{name} is a whole number of milliseconds from {least} to {most}.")


def _model(name: str, value: object) -> None:
    if value != "" and not _is_name(value):
        raise PolicyError(name, f"{name} is the name of a model of this box, or empty.")


def _exceptions(name: str, value: object) -> None:
    if not isinstance(value, list | tuple) or len(value) > FOR_MAX:
        raise PolicyError(name, f"for is a list of at most {FOR_MAX} objects of provider, model and mode.")
    for each in value:
        if not isinstance(each, Mapping) or not {"provider", "mode"} <= set(each) <= {"provider", "model", "mode"}:
            raise PolicyError(name, "Each of for has a provider and a mode, may have a model, and nothing else.")
        if not _is_name(each["provider"]) or not _is_name(each.get("model", "*")):
            raise PolicyError(
                name,
                f"Providers and models in for are names, or patterns with *, of 1 to {NAME_CHARACTERS_MAX} characters.",
            )
        if each["mode"] not in MODES:
            raise PolicyError(name, f"Each mode in for is one of {', '.join(MODES)}.")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX and not any(map(_is_control, value))


def _is_control(character: str) -> bool:
    """Control characters of ASCII and beyond, and halves of surrogate pairs, which no database takes."""
    return character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"


_CHECKS: Mapping[str, Callable[[str, object], None]] = {
    "is_on": _yes_or_no,
    "mode": _word(MODES),
    "on_personal_data": _word(ON_PERSONAL_DATA),
    "allows_code": _yes_or_no,
    "for": _exceptions,
    "patience_ms": _milliseconds,
    "council_members": _yes_or_no,
    "detection_model": _model,
    "detection_ms": _milliseconds,
}
