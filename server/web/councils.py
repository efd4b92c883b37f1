"""Councils over HTTP: what admins define and see of them, and what people say of theirs."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from collections.abc import Mapping
from datetime import datetime
from math import exp
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct, convert

from server.council.contention import Contentions, Observed
from server.council.named import Definition, NamedCouncil, NamedCouncils
from server.council.names import ROUNDS_MAX
from server.council.runs import PAGE_MAX, RunMember, Runs
from server.council.skills import Feedback, Given, Skill, SkillRole, Skills
from server.db.models import CouncilRun
from server.engines.pool import Pool
from server.messages import Principal
from server.web.accounts import BODY_BYTES_MAX


class CouncilDefinition(Struct, forbid_unknown_fields=True):
    """A council as an admin defines it.

    Attributes:
        members: one to six different models; which of them leads is decided for each question.
        strategy: how their answers become one.
        chair: the model that makes one answer of all; null: the best at that.
        rounds: of a strategy that has several.
    """

    members: list[str]
    strategy: str = "council-k"
    chair: str | None = None
    rounds: Annotated[int, Meta(ge=1, le=ROUNDS_MAX)] = 1


class Council(Struct):
    """A council that anybody may ask as `council:NAME`.

    Attributes:
        warnings: sentences about what was accepted and may not be meant.
    """

    name: str
    members: list[str]
    strategy: str
    chair: str | None
    rounds: int
    created_at: datetime
    updated_at: datetime
    updated_by: UUID | None
    warnings: list[str]


class SkillStanding(Struct):
    """How often a model won and lost with a kind of question.

    Attributes:
        role: as the one who answers, or as the chair who makes one answer of several.
        people: how many said so.
        wins_counted, losses_counted: what decisions are made from: of each person only so much counts.
    """

    model: str
    kind: str
    role: SkillRole
    wins: float
    losses: float
    people: int
    wins_counted: float
    losses_counted: float


class ContentionStanding(Struct):
    """What was seen when several engines of a box answered at once.

    Attributes:
        size: how many did.
        count: how often it was seen.
        left: what a stream kept of its rate alone, 1 being everything; the geometric mean.
    """

    box: str
    hardware: str
    size: int
    count: int
    left: float


class Removed(Struct):
    """How many were forgotten."""

    removed: int


class FeedbackRequest(Struct, forbid_unknown_fields=True):
    """What a person says of a council of theirs: exactly one of the three.

    Attributes:
        pick: the label of the answer that they like best.
        thumb: how they like the final answer.
        regenerated: they asked for another answer.
    """

    pick: str | None = None
    thumb: Literal["up", "down"] | None = None
    regenerated: bool = False


class FeedbackStanding(Struct):
    """What was said of a council last.

    Attributes:
        counts: whether it changes what is thought of models. It does not where it compares nothing, or where the person
            has said enough for one day.
    """

    pick: str | None
    thumb: Literal["up", "down"] | None
    regenerated: bool
    counts: bool


class CouncilRunRow(Struct):
    """One request to a council, without what was asked and answered.

    Attributes:
        name: as it was asked for.
        kind: of the question.
        wanted: how many members were asked for; null: as many as are worth it. `size` is how many sat.
        reason: why that size; `binding` is the bound, `steps` what was given up before.
        agreement: 0 to 1.
        winner: the label whose answer is the final one; null where the chair wrote it.
        shadow: what another policy would have chosen.
        feedback: what the person said of it last.
    """

    id: UUID
    user_id: UUID
    name: str
    strategy: str
    kind: str
    wanted: int | None
    size: int
    reason: str
    binding: str
    steps: list[str]
    members: list[RunMember]
    chair: str | None
    verdict_method: str | None
    agreement: float | None
    winner: str | None
    shadow: dict[str, Any] | None
    outcome: str
    started_at: datetime
    total_ms: int
    feedback: FeedbackStanding | None


class CouncilAdmin(Controller):
    """Councils of the box, and what is learned from them. The `admin` dependency refuses members."""

    path = "/api/admin"
    tags = ("Councils",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/councils")
    async def list_councils(
        self,
        admin: NamedDependency[Principal],
        named_councils: NamedDependency[NamedCouncils],
        pool: NamedDependency[Pool],
    ) -> list[Council]:
        """Every named council."""
        return [_council(each, pool) for each in await named_councils.all()]

    @get("/councils/{name:str}")
    async def show_council(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        named_councils: NamedDependency[NamedCouncils],
        pool: NamedDependency[Pool],
    ) -> Council:
        """One named council."""
        return _council(await named_councils.one(name), pool)

    @put("/councils/{name:str}")
    async def define_council(
        self,
        name: FromPath[str],
        data: JSONBody[CouncilDefinition],
        admin: NamedDependency[Principal],
        named_councils: NamedDependency[NamedCouncils],
        pool: NamedDependency[Pool],
    ) -> Council:
        """Define a council, or define it anew."""
        definition = Definition(
            members=tuple(data.members), strategy=data.strategy, chair=data.chair, rounds=data.rounds
        )
        return _council(await named_councils.put(admin, name, definition), pool)

    @delete("/councils/{name:str}")
    async def remove_council(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        named_councils: NamedDependency[NamedCouncils],
    ) -> None:
        """Forget a council; requests that run go on."""
        await named_councils.remove(admin, name)

    @get("/skills")
    async def list_skills(
        self, admin: NamedDependency[Principal], skills: NamedDependency[Skills]
    ) -> list[SkillStanding]:
        """What people's feedback says of models."""
        return [_skill(each) for each in await skills.all()]

    @delete("/skills", status_code=200)
    async def reset_skills(
        self,
        admin: NamedDependency[Principal],
        skills: NamedDependency[Skills],
        model: FromQuery[str | None] = None,
        kind: FromQuery[str | None] = None,
    ) -> Removed:
        """Forget them, those of one model or one kind of question where they are named."""
        return Removed(await skills.reset(admin, model=model, kind=kind))

    @get("/contention")
    async def list_contention(
        self, admin: NamedDependency[Principal], contentions: NamedDependency[Contentions]
    ) -> list[ContentionStanding]:
        """What engines of a box take from each other, as it was seen; also of hardware that is gone."""
        return [_contention(each) for each in await contentions.all()]

    @delete("/contention", status_code=200)
    async def reset_contention(
        self,
        admin: NamedDependency[Principal],
        contentions: NamedDependency[Contentions],
        box: FromQuery[str | None] = None,
    ) -> Removed:
        """Forget it, that of one box where it is named."""
        return Removed(await contentions.reset(admin, box=box))

    @get("/council-runs")
    async def list_runs(
        self,
        admin: NamedDependency[Principal],
        council_runs: NamedDependency[Runs],
        before: FromQuery[UUID | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = PAGE_MAX,
    ) -> list[CouncilRunRow]:
        """What councils did, newest first; `before` is the last id of the page before."""
        return [_run(row) for row in await council_runs.newest(before=before, count_max=limit)]


@post("/api/councils/{council_id:uuid}/feedback", tags=["Councils"], status_code=200)
async def give_feedback(
    council_id: FromPath[UUID],
    data: JSONBody[FeedbackRequest],
    principal: NamedDependency[Principal],
    skills: NamedDependency[Skills],
) -> FeedbackStanding:
    """Say what you think of a council of yours; it takes the place of what you said before."""
    feedback = Feedback(pick=data.pick, thumb=data.thumb, regenerated=data.regenerated)
    return _feedback(await skills.give(principal, council_id, feedback))


def _council(council: NamedCouncil, pool: Pool) -> Council:
    definition = council.definition
    served = {route.model.id for route in pool.routes()}
    asked = dict.fromkeys((*definition.members, *([] if definition.chair is None else [definition.chair])))
    return Council(
        name=council.name,
        members=list(definition.members),
        strategy=definition.strategy,
        chair=definition.chair,
        rounds=definition.rounds,
        created_at=council.created_at,
        updated_at=council.updated_at,
        updated_by=council.updated_by,
        # It may be meant: engines come and go.
        warnings=[f"No engine serves {model!r} now." for model in asked if model not in served],
    )


def _skill(skill: Skill) -> SkillStanding:
    return SkillStanding(
        model=skill.model,
        kind=skill.kind,
        role=skill.role,
        wins=skill.tally.wins,
        losses=skill.tally.losses,
        people=skill.people,
        wins_counted=skill.pooled.wins,
        losses_counted=skill.pooled.losses,
    )


def _contention(observed: Observed) -> ContentionStanding:
    seen = observed.seen
    return ContentionStanding(
        box=observed.box,
        hardware=observed.hardware,
        size=observed.size,
        count=seen.count,
        left=exp(seen.log_sum / seen.count) if seen.count else 1.0,
    )


def _feedback(given: Given) -> FeedbackStanding:
    said = given.feedback
    return FeedbackStanding(said.pick, said.thumb, said.regenerated, counts=bool(given.effects))


def _run(row: CouncilRun) -> CouncilRunRow:
    fields: Mapping[str, Any] = {name: getattr(row, name) for name in CouncilRunRow.__struct_fields__}
    given = None if row.feedback is None else _feedback(convert(row.feedback, Given))
    return CouncilRunRow(**{**fields, "members": convert(row.members, list[RunMember]), "feedback": given})
