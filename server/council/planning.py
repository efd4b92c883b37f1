"""From a wish to a plan: which models sit, how many, who chairs, by which strategy.

Quotas, the asker's own choice and an admin's named council bound what the allocator may choose from. What is chosen is
told in the first event, with the reason. How large councils may be on this box changes only as fast as steadiness
allows; `watch` looks once a second, so that it also grows while nobody asks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from msgspec import Struct
from msgspec.structs import replace

from quotas.policy import Limits
from server.allocator.allocate import OF_LOAD, allocate, room
from server.allocator.contention import Contention, Prior
from server.allocator.kinds import kind_of
from server.allocator.ladder import Possible, descend
from server.allocator.steadiness import Steady
from server.allocator.terms import Allocation, Demand, Load, Policy
from server.clock import Clock
from server.council.briefing import SIZE_MAX, brief_of, idle, last_text, policy_of
from server.council.calls import Message, Seat
from server.council.contention import Contentions
from server.council.events import Allocated, Seated
from server.council.named import NamedCouncils
from server.council.names import Wish, check_models
from server.council.overlaps import Where
from server.council.scene import Scene
from server.council.strategies import suited
from server.council.table import Brief
from server.engines.pool import Route
from server.errors import InvalidRequest, NotFound, Unavailable
from server.messages import ModelRequest, Principal

WATCH_MS = 1_000
# The outlook is up to a second old, and members are asked when their leader has begun.
UNSEEN_MS = 2_000
ANSWER_TOKENS = 400

log = structlog.get_logger(__name__)


@dataclass
class Plan:
    """What one council will be.

    Attributes:
        wish: what the asker wanted.
        question: their messages.
        demand: the same as the allocator sees it.
        policy: what bounds the choice.
        routes: the models that the asker may ask.
        load: what went on when it was made.
        shadow: what the allocator would have chosen, where it only watches.
    """

    wish: Wish
    question: tuple[Message, ...]
    demand: Demand
    policy: Policy
    routes: dict[str, Route]
    allocation: Allocation
    strategy: str
    brief: Brief
    load: Load
    shadow: Allocation | None = None

    @property
    def places(self) -> dict[str, Where]:
        """Where each model is, and how fast it is alone."""
        return {each.model: Where(each.engine, each.box, each.decode_us) for each in self.load.candidates}

    @property
    def busy_engines(self) -> Mapping[str, frozenset[str]]:
        """Those that answered somebody when this was planned, by box."""
        return self.load.busy_engines

    def allocated(self, request_id: str) -> Allocated:
        """As the client is told it."""
        chosen = self.allocation
        return Allocated(
            id=request_id,
            strategy=self.strategy,
            wanted=chosen.wanted,
            size=chosen.size,
            reason=chosen.reason,
            binding=chosen.binding,
            steps=chosen.steps,
            members=tuple(
                Seated(
                    label=seat.label,
                    model=seat.model,
                    engine=seat.engine,
                    is_leader=index == 0,
                    sample=seat.sample,
                )
                for index, seat in enumerate(self.brief.seats)
            ),
            chair=self.brief.chairs[0].model if chosen.size > 1 and self.brief.chairs else None,
        )


class Room(Struct, frozen=True):
    """How large a council for a usual question could be just now, and why it would not be larger."""

    size: int
    reason: str


class Planner:
    """Makes plans, and watches how large councils may be.

    Args:
        prior: what is believed of contention before it was measured: `saturation` or `seed`.
        is_shadow: the allocator is asked and not obeyed; what it would have chosen is told and kept.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        named: NamedCouncils,
        contentions: Contentions,
        clock: Clock,
        prior: Prior = "saturation",
        is_shadow: bool = False,
    ) -> None:
        self._scene = scene
        self._named = named
        self._contentions = contentions
        self._clock = clock
        self._prior = prior
        self._is_shadow = is_shadow
        self._steady = Steady()
        self._ceiling: int | None = None
        # Councils that have just been planned: the outlook does not know of their members yet.
        self._unseen: dict[UUID, tuple[int, tuple[Seat, ...]]] = {}
        self.room: Room | None = None

    async def plan(
        self,
        request: ModelRequest,
        question: tuple[Message, ...],
        wish: Wish,
        principal: Principal,
        limits: Limits,
    ) -> Plan:
        """Decide.

        Raises:
            InvalidRequest, NotFound: a model or a named council that there is not.
            Unavailable: nothing could answer, the asker will not wait, or Redis is away.
        """
        routes = self._scene.routes(limits.allows)
        if not routes:
            raise Unavailable("No model that you may ask is up.", code="no_models", retry_after_s=10)
        wish, strategy = self._named_one(wish)
        check_models(wish.options, routes)
        demand = Demand(
            kind=kind_of(last_text(question)),
            prompt_tokens=request.longest_input_tokens,
            answer_tokens=request.output_tokens_max or ANSWER_TOKENS,
        )
        policy = policy_of(wish, strategy, limits, len(routes))
        load = self._with_unseen(await self._scene.look(str(principal.id), demand.kind, routes))
        allocation = self._allocated(demand, load, policy, self._ceiling)
        shadow = None
        if self._is_shadow:
            shadow, allocation = allocation, self._allocated(demand, idle(load), policy, None)
            log.info("council allocator would have chosen", size=shadow.size, reason=shadow.reason)
        allocation = self._descended(allocation, demand, load, policy)
        brief = brief_of(wish, question, demand, routes, load, allocation)
        self._unseen[request.id] = self._clock.monotonic_ms(), brief.seats
        return Plan(
            wish=wish,
            question=question,
            demand=demand,
            policy=policy,
            routes=routes,
            allocation=allocation,
            strategy=strategy or suited(demand.kind, len(brief.seats), samples_only=wish.samples_only),
            brief=brief,
            load=load,
            shadow=shadow,
        )

    def forget(self, request: UUID) -> None:
        """The council has ended."""
        self._unseen.pop(request, None)

    def _with_unseen(self, load: Load) -> Load:
        """The load with the members of councils that began since anybody looked."""
        now_ms = self._clock.monotonic_ms()
        self._unseen = {key: each for key, each in self._unseen.items() if now_ms - each[0] < UNSEEN_MS}
        coming = Counter(seat.engine for _, seats in self._unseen.values() for seat in seats)
        if not coming:
            return load
        busy = {box: set(engines) for box, engines in load.busy_engines.items()}
        for each in load.candidates:
            if coming[each.engine]:
                busy.setdefault(each.box, set()).add(each.engine)
        candidates = tuple(replace(each, running=each.running + coming[each.engine]) for each in load.candidates)
        return replace(
            load, candidates=candidates, busy_engines={box: frozenset(engines) for box, engines in busy.items()}
        )

    async def more(self, plan: Plan, principal: Principal, seated: Sequence[Seat]) -> Seat | None:
        """One more member than there are, if there is room for one now; the table gives it its label."""
        load = await self._scene.look(str(principal.id), plan.demand.kind, plan.routes)
        allocation = self._allocated(plan.demand, load, plan.policy, self._ceiling)
        if allocation.size <= len(seated):
            return None
        there = {(seat.model, seat.sample) for seat in seated}
        for member in allocation.members:
            if (member.model, member.sample) not in there:
                context_tokens = plan.routes[member.model].model.context_tokens
                return Seat(
                    label="", model=member.model, engine=member.engine, sample=member.sample,
                    context_tokens=context_tokens,
                )  # fmt: skip
        return None

    async def watch(self) -> None:
        """Look once a second how large a council could be, until cancelled."""
        while True:
            try:
                await self._look()
            except Unavailable as error:
                log.debug("councils are not watched", reason=error.message)
            await self._clock.sleep_ms(WATCH_MS)

    async def _look(self) -> None:
        routes = self._scene.routes(lambda _: True)
        if not routes:
            return
        # What the box can carry; who is expected is told where somebody asks, and knows who that is.
        load = replace(await self._scene.look("", "open", routes), expected_requests=0.0)
        contention = self._contention(load)
        size = room(load, Policy(), contention)
        self._steady, self._ceiling = self._steady.step(self._clock.monotonic_ms(), size)
        usual = allocate(Demand(), load, Policy(size_wanted=SIZE_MAX, samples=False), contention, self._ceiling)
        self.room = Room(usual.size, usual.reason)

    def _named_one(self, wish: Wish) -> tuple[Wish, str | None]:
        """The wish with what an admin has laid down, which the asker may narrow and not widen."""
        if wish.named is None:
            return wish, wish.options.strategy
        council = self._named.get(wish.named)
        if council is None:
            raise NotFound(
                f"There is no council {wish.named!r}. GET /v1/models lists them.",
                code="model_not_found",
                param="model",
            )
        given, asked = council.definition, wish.options
        if beyond := [model for model in asked.members if model not in given.members]:
            raise InvalidRequest(
                f"The council {council.name} has no member {beyond[0][:100]!r}.",
                code="council_member",
                param="wirthforge.council.members",
            )
        options = replace(
            asked,
            members=asked.members or given.members,
            chair=asked.chair or given.chair,
            rounds=asked.rounds or given.rounds,
            strategy=asked.strategy or given.strategy,
        )
        return replace(wish, options=options), options.strategy

    def _contention(self, load: Load) -> Mapping[str, Contention]:
        """What is known of each box: a prior, and what was seen there."""
        prior = Contention(prior=self._prior)
        return {
            box: prior.with_sums({size: (seen.log_sum, seen.count) for size, seen in self._contentions.of(box).items()})
            for box in {each.box for each in load.candidates}
        }

    def _descended(self, allocation: Allocation, demand: Demand, load: Load, policy: Policy) -> Allocation:
        """The allocation with the steps of the ladder that it takes, each told in its reason.

        The allocator has taken the first two. Who does not want a smaller council waits for a whole one, and a leader
        without a slot waits too, unless the asker has switched that off.

        Raises:
            Unavailable: what remains is to be refused.
        """
        leader = allocation.members[0]
        seat = next(each for each in load.candidates if (each.model, each.engine) == (leader.model, leader.engine))
        is_smaller = allocation.size < allocation.wanted and allocation.binding in OF_LOAD
        can_begin = seat.is_resident and seat.running + seat.waiting < seat.slots
        wants_whole = is_smaller and "smaller_council" not in policy.steps
        if can_begin and not wants_whole:
            return allocation
        wait_ms = max(seat.wait_ms + seat.load_ms, *(each.wait_ms for each in load.candidates))
        descent = descend(
            Possible(
                size_wanted=allocation.wanted if wants_whole else allocation.size,
                size_possible=allocation.size if can_begin else 0,
                model=leader.model,
                wait_ms=wait_ms,
                retry_after_ms=wait_ms,
            ),
            policy.steps,
        )
        if descent.outcome == "refuse":
            sentence = descent.taken[-1].sentence
            raise Unavailable(sentence, code="box_full", retry_after_s=-(-(descent.retry_after_ms or 0) // 1000))
        if wants_whole:
            allocation = self._allocated(demand, idle(load), policy, None)
        taken = [rung for rung in descent.taken if rung.step == "queue"]
        steps = tuple(dict.fromkeys([*allocation.steps, *(rung.step for rung in taken)]))
        return replace(
            allocation, reason=" ".join([allocation.reason, *(each.sentence for each in taken)]), steps=steps
        )

    def _allocated(self, demand: Demand, load: Load, policy: Policy, ceiling: int | None) -> Allocation:
        return allocate(demand, load, policy, self._contention(load), ceiling)
