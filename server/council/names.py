"""What the asker wants of a council: the model's name, and more of it in the body.

    council           as many members as are worth it and have room
    council:3         so many, 1 to 64; fewer where the box or the quota allows fewer
    council:self      samples of one model; council:self:3 so many
    council:thinkers  one that an admin has put together

The body may say more, in `wirthforge.council`: see `Options`. A name or an option that cannot be read is refused with
the place where it stands; what can be read but not had (too many members for the box) is cut down and told.
"""

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from server.errors import InvalidRequest

PREFIX = "council"
SELF = "self"
SIZE_MAX = 64
ROUNDS_MAX = 4
MEMBERS_MAX = SIZE_MAX
NAME_CHARACTERS_MAX = 40
MODEL_CHARACTERS_MAX = 200
DEADLINE_MS_MAX = 600_000
# What an admin may call one: no number and not `self`, which mean something else.
NAME = re.compile(rf"(?!self\Z|[0-9]+\Z)[a-z0-9][a-z0-9-]{{0,{NAME_CHARACTERS_MAX - 1}}}")
SIZE = re.compile(r"[1-9][0-9]{0,2}")

Step = Literal["smaller_council", "smaller_model", "shorter_answer", "queue", "cloud"]
Confidence = Literal["fast", "balanced", "careful"]
ModelName = Annotated[str, Meta(min_length=1, max_length=MODEL_CHARACTERS_MAX)]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`wirthforge.council` of a request's body.

    Attributes:
        strategy: one of the registry (strategies/); None is what suits the question.
        members: the models that may sit; empty is the allocator's choice. The first leads until people have judged them
            for this kind of question, then the best.
        chair: the model that joins the answers; None is the one that is best at it.
        size: as in the name.
        rounds: of a debate.
        deadline_ms: every member but the leader has so long; None is 1.5 times as long as the leader took, at least
            20 s.
        steps: of the ladder that may be taken before the request is refused; None is all of them.
        confidence: how sure a vote must be before it stops asking.
    """

    strategy: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    members: Annotated[tuple[ModelName, ...], Meta(max_length=MEMBERS_MAX)] = ()
    chair: ModelName | None = None
    size: Annotated[int, Meta(ge=1, le=SIZE_MAX)] | None = None
    rounds: Annotated[int, Meta(ge=1, le=ROUNDS_MAX)] | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=DEADLINE_MS_MAX)] | None = None
    steps: Annotated[tuple[Step, ...], Meta(max_length=16)] | None = None
    confidence: Confidence | None = None


class Wish(Struct, frozen=True, kw_only=True):
    """What the asker wants, name and options together.

    Attributes:
        named: of one that an admin has put together; whether it exists is not known here.
        samples_only: answers of one model instead of several.
        size: None is as many as are worth it.
        options: the rest; its size is `size`.
    """

    named: str | None = None
    samples_only: bool = False
    size: int | None = None
    options: Options = Options()


def is_council(model: str) -> bool:
    """Whether the name asks for a council, well written or not. `councillor` is a model like any other."""
    return model == PREFIX or model.startswith(PREFIX + ":")


def parse(model: str, options: object = None, *, strategies: Collection[str] = ()) -> Wish:
    """Read a council's name, and what stands in the body's `wirthforge.council`.

    Args:
        strategies: those that there are; empty lets any name through.

    Raises:
        InvalidRequest: `council_name` (param `model`) or `council_options` (param with the path in the body);
            `council_member` where a member or the chair is itself a council.
    """
    named, samples_only, size = _name(model)
    read = _options(options)
    if size is not None and read.size is not None and size != read.size:
        raise _wrong(f"The name asks for {size} members and the options for {read.size}.", "size")
    if read.strategy is not None and strategies and read.strategy not in strategies:
        there = ", ".join(sorted(strategies))
        raise _wrong(f"There is no strategy {read.strategy[:100]!r}; there are {there}.", "strategy")
    if samples_only and len(read.members) > 1:
        raise _wrong("council:self asks one model several times; it takes one member.", "members")
    size = size if size is not None else read.size
    return Wish(named=named, samples_only=samples_only, size=size, options=msgspec.structs.replace(read, size=size))


def check_models(options: Options, known: Collection[str]) -> None:
    """Refuse members and a chair that nobody serves.

    Raises:
        InvalidRequest: `council_member`, naming the first that is unknown.
    """
    for place, model in _models(options):
        if model not in known:
            raise InvalidRequest(
                f"No engine serves {model[:100]!r}, which is to sit in the council.",
                code="council_member",
                param=f"wirthforge.council.{place}",
            )


def options_of(body: Mapping[str, object]) -> object:
    """`wirthforge.council` of a request's body, unread; None where there is none.

    Raises:
        InvalidRequest: `wirthforge` is no object.
    """
    ours = body.get("wirthforge")
    if ours is None:
        return None
    if not isinstance(ours, dict):
        raise InvalidRequest("wirthforge must be an object.", code="council_options", param="wirthforge")
    return ours.get("council")


def _name(model: str) -> tuple[str | None, bool, int | None]:
    match model.split(":"):
        case ["council"]:
            return None, False, None
        case ["council", "self"]:
            return None, True, None
        case ["council", "self", number]:
            return None, True, _size(model, number)
        case ["council", name] if NAME.fullmatch(name):
            return name, False, None
        case ["council", number]:
            return None, False, _size(model, number)
        case _:
            raise _no_name(model)


def _size(model: str, number: str) -> int:
    if SIZE.fullmatch(number) is None or int(number) > SIZE_MAX:
        raise _no_name(model)
    return int(number)


def _no_name(model: str) -> InvalidRequest:
    return InvalidRequest(
        f"A council is called council, council:N with 1 to {SIZE_MAX} members, council:self, council:self:N "
        f"or council:NAME, not {model[:100]!r}.",
        code="council_name",
        param="model",
    )


def _options(options: object) -> Options:
    try:
        read = Options() if options is None else msgspec.convert(options, Options)
    except (msgspec.ValidationError, RecursionError) as error:
        reason, _, path = str(error).partition(" - at `$")
        raise _wrong(f"{reason}.", path.strip(".`")) from None
    seen = set()
    for place, model in _models(read):
        if is_council(model):
            raise InvalidRequest(
                f"A council's member is a model, not another council: {model[:100]!r}.",
                code="council_member",
                param=f"wirthforge.council.{place}",
            )
        if place != "chair" and model in seen:
            raise _wrong(f"{model[:100]!r} is there twice; council:self asks one model several times.", place)
        seen.add(model)
    return read


def _models(options: Options) -> list[tuple[str, str]]:
    chair = [] if options.chair is None else [("chair", options.chair)]
    return [(f"members[{index}]", model) for index, model in enumerate(options.members)] + chair


def _wrong(sentence: str, place: str) -> InvalidRequest:
    param = f"wirthforge.council.{place}" if place else "wirthforge.council"
    return InvalidRequest(f"{param}: {sentence}", code="council_options", param=param)
