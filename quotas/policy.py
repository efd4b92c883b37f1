"""What an admin allows: rules, and what holds for one person when several rules speak.

Theory of operation. A rule sets some limits and is silent about the others. There is a rule for everybody (the
default), one for each role and one for each person, and any of them may be missing. Each limit is decided by itself:
the strongest rule that sets it wins, and where none does the value below holds.

    person  ──silent──►  role  ──silent──►  default  ──silent──►  built-in

To be silent is to leave a limit out. A null is not silent: it says "unlimited", and wins over weaker rules like any
other value. So a rule is read by its keys first, and nothing here may turn a missing key into a null or back.

What wins is kept with the value, because the first question about a limit is who set it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

BUILT_IN = "built-in"
MODELS_MAX = 100
MODEL_LENGTH_MAX = 500
# What a council may do instead of being refused, in this order (server/allocator/ladder.py).
COUNCIL_STEPS = ("smaller_council", "smaller_model", "shorter_answer", "queue")

Value = int | list[str] | None
Rule = Mapping[str, Value]


class PolicyError(ValueError):
    """A rule that will not do.

    Attributes:
        field: the limit that is wrong, or the name that is none.
        sentence: what is wrong with it, for whoever wrote the rule.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field
        self.sentence = sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for one person; None is unlimited. These values hold where no rule says otherwise; see MEANINGS."""

    weight: int = 100
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    in_flight_max: int | None = None
    queue_length_max: int | None = 100
    context_tokens_max: int | None = None
    council_size_max: int | None = None
    council_steps: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    cloud_cents_per_month: int | None = 0

    def allows(self, model: str) -> bool:
        """Whether the person may ask this model."""
        if self.models is None or model in self.models:
            return True
        return any("*" in pattern and fnmatchcase(model, _only_stars(pattern)) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Limits in force, and for each the name of the rule that won (BUILT_IN where none speaks)."""

    limits: Limits
    won: Mapping[str, str]

    def value(self, name: str) -> Value:
        """The limit of that name, as rules write it."""
        value: int | tuple[str, ...] | None = getattr(self.limits, name)
        return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Amount:
    """What a limit that is a number may be."""

    least: int
    most: int
    may_be_unlimited: bool = True


_TOKENS = Amount(1, 10**12)

# Every limit but the lists. The bounds keep sums of amounts exact in Lua, whose numbers are doubles.
AMOUNTS: Mapping[str, Amount] = {
    "weight": Amount(1, 10_000, may_be_unlimited=False),
    "requests_per_minute": Amount(1, 10**6),
    "tokens_per_minute": _TOKENS,
    "tokens_per_day": _TOKENS,
    "tokens_per_month": _TOKENS,
    "in_flight_max": Amount(1, 10_000),
    "queue_length_max": Amount(1, 10_000),
    "context_tokens_max": _TOKENS,
    "council_size_max": Amount(1, 64),
    "cloud_cents_per_month": Amount(0, 10**9),
}

MEANINGS: Mapping[str, str] = {
    "weight": "Percent of a normal share.",
    "requests_per_minute": "Requests that enter in one minute.",
    "tokens_per_minute": "Tokens, read and written, of requests that enter in one minute.",
    "tokens_per_day": "Tokens of one day (UTC).",
    "tokens_per_month": "Tokens of one month (UTC).",
    "in_flight_max": "Requests that run at a time; more wait.",
    "queue_length_max": "Requests that wait; more are refused.",
    "context_tokens_max": "Tokens of one request, its prompt and its answer together.",
    "council_size_max": "Members of one council.",
    "council_steps": f"What their councils may do before they are refused: some of {', '.join(COUNCIL_STEPS)}.",
    "models": "Models that may be asked: names, or patterns with *.",
    "cloud_cents_per_month": "Money for models in the cloud, in cents.",
}
LIMITS = tuple(field.name for field in fields(Limits))


def check(rule: Mapping[str, object]) -> dict[str, Value]:
    """The rule, in the order of `Limits` and without repeated names.

    Raises:
        PolicyError: a name is no limit, or a value will not do.
    """
    for name in rule:
        if name not in LIMITS:
            raise PolicyError(name, f"There is no limit called {name[:100]!r}. There are: {', '.join(LIMITS)}.")
    return {
        name: LISTS[name](rule[name]) if name in LISTS else _checked_amount(name, rule[name])
        for name in LIMITS
        if name in rule
    }


def resolve(*rules: tuple[str, Rule]) -> Resolved:
    """What holds when these rules speak.

    Args:
        rules: a name and a checked rule each, strongest first.
    """
    values: dict[str, Any] = {}
    won: dict[str, str] = {}
    for name in LIMITS:
        winner = next(((speaker, rule[name]) for speaker, rule in rules if name in rule), None)
        if winner is None:
            won[name] = BUILT_IN
            continue
        won[name], value = winner
        values[name] = tuple(value) if isinstance(value, list) else value
    return Resolved(Limits(**values), won)


def _checked_amount(name: str, value: object) -> int | None:
    amount = AMOUNTS[name]
    if value is None and amount.may_be_unlimited:
        return None
    # A bool is an int to Python, and a mistake in a rule.
    if not isinstance(value, int) or isinstance(value, bool) or not amount.least <= value <= amount.most:
        raise PolicyError(name, _sentence(name, value))
    return value


def _sentence(name: str, value: object) -> str:
    amount = AMOUNTS[name]
    sentence = f"{name} is a whole number from {amount.least} to {amount.most}"
    sentence += ", or null (unlimited)" if amount.may_be_unlimited else ""
    if name == "weight":
        sentence += "; 100 is a normal share"
    if value == 0 and not isinstance(value, bool):
        sentence += "; to lock somebody out, disable them or set models to []"
    return f"{sentence}."


def _checked_models(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) > MODELS_MAX or not all(map(_is_name, value)):
        raise PolicyError(
            "models",
            f"models is a list of at most {MODELS_MAX} names, each of 1 to {MODEL_LENGTH_MAX} characters "
            "without control characters, or null (all models).",
        )
    return list(dict.fromkeys(value))


def _checked_steps(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(step in COUNCIL_STEPS for step in value):
        raise PolicyError(
            "council_steps", f"council_steps is a list of some of {', '.join(COUNCIL_STEPS)}, or null (all steps)."
        )
    return [step for step in COUNCIL_STEPS if step in value]


# Limits that are lists, and what checks each.
LISTS: Mapping[str, Callable[[object], list[str] | None]] = {
    "council_steps": _checked_steps,
    "models": _checked_models,
}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MODEL_LENGTH_MAX and not any(map(_is_control, value))


def _is_control(character: str) -> bool:
    """Control characters of ASCII and beyond, and halves of surrogate pairs, which no database takes."""
    return character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"


def _only_stars(pattern: str) -> str:
    """The pattern for fnmatch, whose other signs are part of names here."""
    return pattern.replace("[", "[[]").replace("?", "[?]")
