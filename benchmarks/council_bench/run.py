"""All questions, all ways, one request after the other."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from benchmarks.council_bench import figures
from benchmarks.council_bench.asking import Heard, Server
from benchmarks.council_bench.figures import Alone, Results, Slowdown, WayFigures
from benchmarks.council_bench.questions import Question
from benchmarks.council_bench.ways import Way, ways
from server import VERSION
from server.clock import Clock
from server.council.names import is_council
from server.errors import InvalidRequest, NotFound

TOKENS_MAX = 300
# How long councils may take to grow before they are measured.
SETTLE_MS_MAX = 120_000
LOOK_MS = 2_000


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be measured.

    Attributes:
        models: the first leads; empty is all that the server has.
        sizes: of councils.
        strategies: by name, or `auto`.
        source: what the questions are called.
        tokens_max: of every answer.
    """

    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2, 3)
    strategies: tuple[str, ...] = ("auto",)
    questions: tuple[Question, ...]
    source: str
    tokens_max: int = TOKENS_MAX


class Given(Struct, frozen=True, kw_only=True):
    """One answer, for whoever wants to see more than figures."""

    question: int
    way: str
    is_right: bool
    heard: Heard


class Measured(Struct, frozen=True, kw_only=True):
    """Everything that was found.

    Attributes:
        how: sentences about how it was measured, and what was left out.
    """

    version: str
    models: tuple[str, ...]
    source: str
    alone: tuple[Alone, ...]
    ways: tuple[WayFigures, ...]
    slowdowns: tuple[Slowdown, ...]
    how: tuple[str, ...]
    answers: tuple[Given, ...]


async def measure(
    server: Server, wanted: Wanted, clock: Clock, tell: Callable[[str], None] = lambda _: None
) -> Measured:
    """Ask everything, and count.

    Args:
        tell: gets a line on how far it is, now and then.

    Raises:
        InvalidRequest, NotFound, StartError: a model that there is not, or a server that refuses or is not there.
    """
    models = _models(wanted.models, await server.models())
    chosen, left_out = ways(models, wanted.sizes, wanted.strategies)
    await _settle(server, chosen, wanted, clock, tell)
    results: Results = {way.name: [] for way in chosen}
    for index, question in enumerate(wanted.questions):
        tell(f"question {index + 1} of {len(wanted.questions)}, asked in {len(chosen)} ways")
        for way in in_turn(chosen, index):
            results[way.name].append(await server.ask(question.ask, wanted.tokens_max, way.body()))
    alone = {way.model: way.name for way in chosen if way.size == 1}
    leader = alone[models[0]]
    return Measured(
        version=VERSION,
        models=tuple(models),
        source=wanted.source,
        alone=tuple(figures.alone_figures(model, results[name]) for model, name in alone.items()),
        ways=tuple(figures.way_figures(way, results, leader, wanted.questions) for way in chosen),
        slowdowns=tuple(figures.slowdowns(chosen, results, alone)),
        how=(*_how(wanted, len(chosen)), *left_out),
        answers=_answers(results, wanted.questions),
    )


async def _settle(
    server: Server, chosen: Sequence[Way], wanted: Wanted, clock: Clock, tell: Callable[[str], None]
) -> None:
    """Try every way, and wait as long as the server says that it still grows (server/allocator/steadiness.py)."""
    deadline_ms = clock.monotonic_ms() + SETTLE_MS_MAX
    for way in chosen:
        while (heard := await server.ask(wanted.questions[0].ask, wanted.tokens_max, way.body())).council is not None:
            if heard.council.binding != "steady" or clock.monotonic_ms() > deadline_ms:
                break
            tell(heard.council.reason)
            await clock.sleep_ms(LOOK_MS)


def in_turn(chosen: Sequence[Way], index: int) -> list[Way]:
    """The order for a question: forwards and backwards, then the next one begins."""
    start = index // 2 % len(chosen)
    order = [*chosen[start:], *chosen[:start]]
    return order[::-1] if index % 2 else order


def _models(wanted: Sequence[str], there: Sequence[str]) -> list[str]:
    """Those that are to answer.

    Raises:
        InvalidRequest, NotFound: there is none, one is there twice, or is unknown.
    """
    if not there:
        raise NotFound("The server lists no model that this key may ask.")
    for index, model in enumerate(wanted):
        if model in wanted[:index]:
            raise InvalidRequest(f"{model!r} is there twice; samples of one model are measured anyway.")
        if is_council(model):
            raise InvalidRequest(f"{model!r} is a council; name the models of which councils are to be made.")
        if model not in there:
            raise NotFound(f"The server has no model {model!r}. It has {', '.join(there)}.")
    return list(wanted or there)


def _how(wanted: Wanted, count: int) -> list[str]:
    asked = (
        f"{len(wanted.questions)} questions ({wanted.source}), each asked in {count} ways one after the other, in "
        f"another order each time; at most {wanted.tokens_max} tokens an answer, the models' own sampling, "
        "streamed, times taken at the client; every way was tried before, uncounted."
    )
    compared = (
        "Beside the leader alone: geometric means of the ratios question by question; brackets hold 95 % (shares: "
        "Wilson; everything else: bootstrap over the questions)."
    )
    slowed = (
        "Contention: completion tokens after the first by the time from a member's first piece of text to its last, "
        "beside the same model alone with the same question."
    )
    return [asked, compared, slowed]


def _answers(results: Results, questions: Sequence[Question]) -> tuple[Given, ...]:
    return tuple(
        Given(question=index, way=name, is_right=is_right, heard=each)
        for name, heard in results.items()
        for index, (each, is_right) in enumerate(zip(heard, figures.rights(heard, questions), strict=True))
    )
