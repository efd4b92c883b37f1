"""Why it is so many and not one more, in one plain sentence with the numbers."""

from server.allocator.limits import Breach
from server.allocator.terms import Policy
from server.allocator.worth import Worth

MIB = 1 << 20
GIB = 1 << 30
WORDS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def ordinal(size: int) -> str:
    """As a word, with its article."""
    if size <= len(WORDS):
        return f"an {WORDS[size - 1]}" if WORDS[size - 1].startswith("e") else f"a {WORDS[size - 1]}"
    return f"an {size}th" if size in (11, 18) else f"a {size}th"


def of_breach(breach: Breach, size: int) -> str:
    """What the next member would break."""
    another, where, figure, bound = f"{ordinal(size + 1)} member", breach.where, breach.figure, breach.bound
    match breach.rule:
        case "first_token":
            late, limit = _seconds(figure), _seconds(bound)
            sentence = f"none could begin to answer within {limit} s; the soonest is {where} in {late} s."
        case "wait":
            sentence = f"{another}, {where}, would wait for {_seconds(figure)} s."
        case "slots":
            sentence = f"{another} would need {_slots(figure)} of {where}, which has {bound:g} free."
        case "others":
            others = f"{figure:g} of the {bound:g} that are free"
            sentence = f"{another} would take a slot that others wait for or need soon ({others})."
        case "memory_unknown":
            sentence = f"{another} would have to be loaded, and how much memory {where} has left is not known."
        case "memory":
            sentence = f"{another} would need {_size(figure)} of memory on {where}, which has {_size(bound)} left."
        case "too_many":
            busy = f"{figure:g} busy models on {where}"
            sentence = f"{another} would make {busy}, and beyond {bound:g} each takes more than it adds."
        case "streams":
            sentence = f"{another} would leave a stream below {bound:g} tokens a second ({figure:.1f})."
        case _:
            sentence = f"{another} would answer below {bound:g} tokens a second ({where}: {figure:.1f})."
    return sentence


def of_worth(worth: Worth, size: int) -> str:
    """What the next member would add and cost."""
    if worth.gain <= 0:
        return f"{ordinal(size + 1)} answer adds nothing to this kind of question."
    return (
        f"{ordinal(size + 1)} answer would add {worth.gain * 100:.1f} points of quality, "
        f"and cost {worth.price * 100:.1f} in time and load."
    )


def of_wanted(first_token_ms: int | None) -> str:
    """As asked for; with the time to the first token where that is late."""
    if first_token_ms is None:
        return "as many as were asked for."
    return f"as many as were asked for, but nobody can begin sooner than in {_seconds(first_token_ms)} s."


def of_policy(policy: Policy) -> str:
    """The largest council that is allowed."""
    return f"councils of at most {policy.size_max} are allowed."


def of_models(count: int) -> str:
    """There are no more."""
    if count == 0:
        return "the question is longer than the context of any model."
    return "there is no other model for this." if count == 1 else f"there are {count} models for this, and no more."


def of_quality(below: float, gap_max: float) -> str:
    """The others are not good enough."""
    return f"the next best model is {below * 100:.0f} points below the best, and {gap_max * 100:.0f} are allowed."


def of_quota(tokens_left: int, tokens_each: int) -> str:
    """The asker's own tokens."""
    return f"your quota has {tokens_left} tokens left, and each member takes about {tokens_each}."


def of_steady(possible: int) -> str:
    """Growth takes time."""
    return f"{possible} would be possible by now, and councils grow by one at a time when it stays calm."


def _seconds(amount_ms: float) -> str:
    return f"{amount_ms / 1000:.1f}"


def _slots(count: float) -> str:
    return "a slot" if count == 1 else f"{count:g} slots"


def _size(amount_bytes: float) -> str:
    return f"{amount_bytes / GIB:.1f} GiB" if amount_bytes >= GIB else f"{amount_bytes / MIB:.0f} MiB"
