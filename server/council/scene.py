"""What the allocator looks at: everything was read for other purposes, so a request costs no query of its own.

pool          which models there are, and on which engine
outlook       who runs and waits, and how fast answers grow (one look at the ledger a second for everybody)
calibrations  what a token costs each model, alone
boxes         what is in memory, and what room is left
skills        what people thought of each model's answers
expectations  what others are likely to ask in the next minutes
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec.structs import replace
from redis.exceptions import RedisError

from quotas.view import EngineView, View
from server.allocator.quality import Skill, prior_of, ranked, settled
from server.allocator.terms import Candidate, Load
from server.council.skills import SkillRole, Skills, Tally
from server.engines.boxes import Boxes
from server.engines.calibrations import Calibrations
from server.engines.places import IN_MEMORY, Placed
from server.engines.pool import Pool, Route
from server.engines.protocol import Engine
from server.errors import Unavailable
from server.sharing.outlook import Outlook
from server.usage.history import REQUESTS_WITHIN_MS

# Of two models that nobody has judged yet the larger one is believed to be better: by so much for each doubling of its
# memory, and never so much that the smaller one is not admitted (allocator, quality_gap_max). A guess.
# Where no engine has answered lately.
ANSWER_MS = 10_000
PRIOR_PER_DOUBLING, PRIOR_SPREAD_MAX = 0.02, 0.08


class Expects(Protocol):
    """What is expected of the next minutes (server/usage/history.py)."""

    def requests_of_others(self, user_id: str) -> float:
        """How many requests other people are likely to send."""
        ...


class Scene:
    """The box, as the allocator sees it.

    Args:
        slots: how much an engine is given at a time, while the ledger has nothing to say of it.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        outlook: Outlook,
        calibrations: Calibrations,
        boxes: Boxes,
        skills: Skills,
        expects: Expects,
        slots: Callable[[Engine], int],
    ) -> None:
        self._pool = pool
        self._outlook = outlook
        self._calibrations = calibrations
        self._boxes = boxes
        self._skills = skills
        self._expects = expects
        self._slots = slots
        # The order of models, by kind of question and role.
        self._standing: dict[tuple[str, SkillRole], tuple[str, ...]] = {}

    def routes(self, allows: Callable[[str], bool]) -> dict[str, Route]:
        """The models that somebody may ask, each on an engine that is well."""
        found = {}
        for route in self._pool.routes():
            health = self._pool.health(route.engine.name)
            if allows(route.model.id) and health is not None and health.is_up and not health.is_draining:
                found[route.model.id] = route
        return found

    async def look(self, flow: str, kind: str, routes: Mapping[str, Route]) -> Load:
        """What goes on now, for a question of this person.

        Raises:
            Unavailable: Redis is away.
        """
        try:
            view = await self._outlook.view()
        except (RedisError, OSError) as error:
            raise Unavailable("The server cannot reach its queue (Redis). Try again.", retry_after_s=5) from error
        engines = {each.name: each for each in view.engines}
        placed = {(each.engine, each.model): each for each in self._boxes.view()}
        boxes = {
            name: self._boxes.name_of(name) for name in {*engines, *(each.engine.name for each in routes.values())}
        }
        busy: dict[str, set[str]] = {}
        for each in view.engines:
            if each.running_count:
                busy.setdefault(boxes[each.name], set()).add(each.name)
        token_us = [each.token_us for each in view.engines if each.running_count and each.token_us]
        sizes = {model: self._size_bytes(route, placed) for model, route in routes.items()}
        answer, chair = (self._qualities(kind, role, sizes) for role in ("answer", "chair"))
        candidates = []
        for model, route in routes.items():
            name = route.engine.name
            candidate = self._candidate(route, boxes[name], engines.get(name), placed.get((name, model)))
            said = self._skills.tallies.get((model, kind, "answer"), Tally())
            candidates.append(
                replace(candidate, quality=answer[model], chair=chair[model], observations=said.wins + said.losses)
            )
        return Load(
            candidates=tuple(candidates),
            free_bytes={boxes[name]: self._boxes.free_bytes(name) for name in boxes},
            busy_engines={box: frozenset(names) for box, names in busy.items()},
            slowest_tokens_per_s=1e6 / max(token_us) if token_us else None,
            waiting_others=sum(queued.flow != flow for each in view.engines for queued in each.queued),
            expected_requests=self._expects.requests_of_others(flow) * _usual_ms(view) / REQUESTS_WITHIN_MS,
        )

    def _candidate(self, route: Route, box: str, engine: EngineView | None, place: Placed | None) -> Candidate:
        name, model = route.engine.name, route.model.id
        is_resident = place is None or place.state in IN_MEMORY
        figures = self._calibrations.figures(name, model)
        # Until it was calibrated, what its answers took lately.
        decode_us = figures.decode_us if figures is not None else float(engine.token_us if engine else 0)
        return Candidate(
            model=model,
            engine=name,
            box=box,
            prefill_us=figures.prefill_us if figures is not None else 0.0,
            decode_us=decode_us,
            slots=engine.slots if engine is not None and engine.slots else self._slots(route.engine),
            running=engine.running_count if engine is not None else 0,
            waiting=engine.waiting if engine is not None else 0,
            wait_ms=_wait_ms(engine),
            is_resident=is_resident,
            load_ms=0 if place is None or is_resident else place.load_ms,
            memory_bytes=0 if place is None or is_resident else place.size_bytes,
            context_tokens_max=route.model.context_tokens,
            together=tuple((each.answers, each.tokens_per_s) for each in figures.together) if figures else (),
        )

    def _size_bytes(self, route: Route, placed: Mapping[tuple[str, str], Placed]) -> int:
        place = placed.get((route.engine.name, route.model.id))
        return 0 if place is None else place.size_bytes

    def _qualities(self, kind: str, role: SkillRole, sizes: Mapping[str, int]) -> dict[str, float]:
        """By model, as decisions are made from them; who was best stays best until another one surpasses it."""
        known = [size for size in sizes.values() if size > 0]
        skills = {}
        for model, size in sizes.items():
            doublings = math.log2(size / min(known)) if size > 0 else 0.0
            prior = prior_of(kind) + min(doublings * PRIOR_PER_DOUBLING, PRIOR_SPREAD_MAX)
            tally = self._skills.tallies.get((model, kind, role), Tally())
            skills[model] = Skill(tally.wins, tally.losses, prior)
        standing = self._standing.get((kind, role), ())
        self._standing[kind, role] = ranked(skills, standing)
        return settled(skills, standing)


def _usual_ms(view: View) -> float:
    """What an answer takes lately. Requests expected within a time hold so many slots at once (Little's law)."""
    known = [each.first_ms + each.answer_tokens * each.token_us / 1000 for each in view.engines if each.token_us]
    return sum(known) / len(known) if known else ANSWER_MS


def _wait_ms(engine: EngineView | None) -> int:
    """About how long a request waits there: one usual answer for each round of slots that is ahead of it."""
    if engine is None or not engine.slots:
        return 0
    ahead = max(engine.running_count + engine.waiting + 1 - engine.slots, 0)
    answer_ms = engine.first_ms + engine.answer_tokens * engine.token_us / 1000
    return int(ahead * answer_ms / engine.slots)
