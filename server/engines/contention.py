"""What models leave each other that are in memory at the same time, on one box.

Of each set (all pairs first, then larger ones, then all at once) each model is timed while the others answer without a
pause, and compared with what it does alone. The number of sets is bounded: of many models only the first sets are
tried, and all of them together. Engines on machines of their own leave each other everything, which is seen as 1.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import Generic, TypeVar

from server.clock import Clock
from server.engines.calibration import Calibration, decode_us
from server.engines.protocol import Engine
from server.engines.timing import ANSWER_TOKENS, SHORT_WORDS, Asker

SETS_MAX = 12
# Nobody is faster because others answer too: more than this is not believed.
LEFT_MAX = 1.5
# Models come and go, and form ever new sets; so many are known of each.
BESIDE_MAX = 48

# An engine and its model.
Resident = tuple[Engine, str]


Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Contention(Generic[Name]):
    """One set of models, and what is left of each one's own rate while all the others answer: 1 is no contention."""

    left: Mapping[Name, float]


def sets_of(names: Sequence[Name]) -> list[tuple[Name, ...]]:
    """Which sets are tried: small ones first, SETS_MAX at the most, and always all together."""
    if len(names) < 2:  # noqa: PLR2004 (it takes two)
        return []
    smaller = chain.from_iterable(combinations(names, size) for size in range(2, len(names)))
    return [*islice(smaller, SETS_MAX - 1), tuple(names)]


def missing_sets(known: Mapping[tuple[str, str], Calibration]) -> list[tuple[tuple[str, str], ...]]:
    """Of the sets of these models, by engine and name, those that one of their members knows nothing of yet."""
    return [
        chosen
        for chosen in sets_of(sorted(known))
        if any(
            {other for other in chosen if other != place} not in [set(each.others) for each in known[place].beside]
            and len(known[place].beside) < BESIDE_MAX
            for place in chosen
        )
    ]


async def contention(
    residents: Mapping[Name, Resident],
    *,
    clock: Clock,
    nonce: Callable[[], str],
    sets: Sequence[tuple[Name, ...]] | None = None,
) -> list[Contention[Name]]:
    """Measure sets of these models; None is those of `sets_of`. Raises like `calibrate`; then none of them goes on."""
    askers = {name: Asker(engine, model, clock=clock, nonce=nonce) for name, (engine, model) in residents.items()}
    sets = sets_of(list(askers)) if sets is None else sets
    alone = {name: await decode_us(askers[name]) for name in dict.fromkeys(chain.from_iterable(sets))}
    found = []
    for names in sets:
        left = {}
        for name in names:
            async with _busy([askers[other] for other in names if other != name]):
                left[name] = alone[name] / await decode_us(askers[name], least_us=alone[name] / LEFT_MAX)
        found.append(Contention(left))
    return found


@asynccontextmanager
async def _busy(askers: Sequence[Asker]) -> AsyncIterator[None]:
    """While the block runs, all of these answer, one answer after the other. Raises what one of them raises."""
    began = [asyncio.Event() for _ in askers]

    async def answer(asker: Asker, event: asyncio.Event) -> None:
        while True:
            await asker.ask(SHORT_WORDS, ANSWER_TOKENS, on_begun=event.set)

    try:
        async with asyncio.TaskGroup() as tasks:
            answering = [tasks.create_task(answer(*each)) for each in zip(askers, began, strict=True)]
            for event in began:
                await event.wait()
            yield
            for task in answering:
                task.cancel()
    except ExceptionGroup as group:  # of one, as a rule: the first fault ends the others
        raise group.exceptions[0] from None
