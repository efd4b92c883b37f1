"""What feedback says of models: how often each won and lost with a kind of question, as answerer and as chair.

A person says one thing of a council of theirs; what they say later takes its place, as if the earlier had never been:

- a pick: the picked answer's model wins, and one loss is split evenly among the other answers, since the pick says that
  they are worse but not which is worst. Answers of the same model say nothing of each other and are left out;
- a thumb: a win or a loss of whoever wrote the final answer: the chair as chair, else the winner's model as answerer;
- a regeneration: half a loss of the same one. It may mean many things.

What can be undone must be undone exactly, though floats round. So every amount is a multiple of 2^-20 (shares are
rounded down to one); doubles add and subtract such numbers without rounding up to 2^33 of them, and the order of all
feedback does not matter. What a feedback changed stands beside it; a reset takes it off there too.

Nobody makes the box's opinion alone. A person's feedback counts for COUNTED_PER_DAY_MAX councils a day (UTC); what
comes after that is stored and changes nothing. And what decisions are made from is not the plain sum: of each person no
more counts than the allocator lets one person say (server/allocator/quality.py, `pooled`), which also says what the
counts mean for a choice.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import cast, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncSession

from server.allocator.quality import pooled
from server.clock import Clock
from server.council.audit import audited
from server.council.runs import RUNNING, RunMember, Runs
from server.db.models import CouncilRun, SkillRow
from server.db.session import Database
from server.errors import InvalidRequest, NotFound, Unavailable
from server.messages import Principal

READ_EVERY_MS = 3_000
COUNTED_PER_DAY_MAX = 50
GRAIN = 1 << 20
REGENERATED_LOSS = 0.5
# Feedback and resets take turns: they are rare, and so a person's day is counted right.
_TURN = text("LOCK TABLE skills IN SHARE ROW EXCLUSIVE MODE")

SkillRole = Literal["answer", "chair"]
# Model, kind of question, role.
Key = tuple[str, str, SkillRole]
# With its wins, losses, and when they changed.
_Total = tuple[Key, float, float, datetime]
# What each person's feedback adds up to.
_PEOPLE = text(
    "SELECT effect->>'model', effect->>'kind', effect->>'role',"
    " sum((effect->>'wins')::float8), sum((effect->>'losses')::float8)"
    " FROM council_runs, jsonb_array_elements(feedback->'effects') AS effect"
    " WHERE feedback IS NOT NULL GROUP BY user_id, 1, 2, 3"
)

log = structlog.get_logger(__name__)


class Tally(Struct, frozen=True):
    """Wins and losses, as sums of multiples of 1 / GRAIN."""

    wins: float = 0.0
    losses: float = 0.0


class Skill(Struct, frozen=True, kw_only=True):
    """A model's tally with a kind of question.

    Attributes:
        tally: all that was said.
        people: how many said it.
        pooled: what of it counts.
    """

    model: str
    kind: str
    role: SkillRole
    tally: Tally
    people: int
    pooled: Tally

    @property
    def key(self) -> Key:
        """Of the tally."""
        return self.model, self.kind, self.role


class Feedback(Struct, frozen=True, kw_only=True):
    """What a person says: exactly one of the three.

    Attributes:
        pick: the label of the answer that they like best.
        regenerated: they asked for another answer.
    """

    pick: str | None = None
    thumb: Literal["up", "down"] | None = None
    regenerated: bool = False


class Effect(Struct, frozen=True, kw_only=True):
    """What a feedback changed in one tally."""

    model: str
    kind: str
    role: SkillRole
    wins: float = 0.0
    losses: float = 0.0

    @property
    def key(self) -> Key:
        """Of the tally."""
        return self.model, self.kind, self.role


class Given(Struct, frozen=True, kw_only=True):
    """A feedback as it is stored beside its council.

    Attributes:
        counted_on: the day (UTC) on which it, or an earlier one of the same council, took one of the person's counted
            places; null where there was none left, or nothing to count.
        effects: what it changed, and a later one would undo.
    """

    feedback: Feedback
    counted_on: str | None
    effects: tuple[Effect, ...]


class Skills:
    """All tallies. Every replica reads them every few seconds, so that a request costs no query."""

    def __init__(self, database: Database, clock: Clock, runs: Runs) -> None:
        self._database = database
        self._clock = clock
        self._runs = runs
        self._tallies: dict[Key, Tally] = {}
        self._seen: list[_Total] | None = None
        self._reading = asyncio.Lock()

    @property
    def tallies(self) -> Mapping[Key, Tally]:
        """What counts of all that was said, as it was last read; asks nobody."""
        return self._tallies

    async def all(self) -> list[Skill]:
        """From Postgres, by model, kind and role. Raises Unavailable."""
        async with self._database.transaction(everybody=True) as session:
            totals = await _totals(session)
            return await _pooled(session, totals)

    async def give(self, principal: Principal, run_id: UUID, feedback: Feedback) -> Given:
        """Take what a person says of a council of theirs, in the place of what they said before.

        Raises:
            NotFound: there is no such council, it has not ended, or it is somebody else's.
            InvalidRequest: not exactly one thing is said, or the pick is no answer of this council.
            Unavailable: Postgres is away.
        """
        if (feedback.pick is not None) + (feedback.thumb is not None) + feedback.regenerated != 1:
            raise InvalidRequest("Say exactly one of: pick, thumb, regenerated.")
        await self._runs.settle(run_id)
        async with self._database.transaction(everybody=True) as session:
            await session.execute(_TURN)
            row = await session.scalar(
                select(CouncilRun)
                .where(CouncilRun.id == run_id, CouncilRun.user_id == principal.id, CouncilRun.outcome != RUNNING)
                .with_for_update()
            )
            if row is None:
                raise NotFound("There is no such council of yours.", code="council_not_found")
            before = None if row.feedback is None else msgspec.convert(row.feedback, Given)
            effects = effects_of(feedback, msgspec.convert(row.members, tuple[RunMember, ...]), row.winner, row.kind)
            counted_on = before.counted_on if before is not None else None
            if counted_on is None and effects:
                counted_on = await self._place(session, principal.id)
            given = Given(feedback=feedback, counted_on=counted_on, effects=tuple(effects) if counted_on else ())
            await self._apply(session, () if before is None else before.effects, given.effects)
            row.feedback = msgspec.to_builtins(given)
        await self._read_soon()
        return given

    async def reset(self, actor: Principal, *, model: str | None = None, kind: str | None = None) -> int:
        """Forget tallies, of one model or one kind of question where they are named; returns how many there were.

        What was said stays with its council, but what it changed is gone: a later feedback undoes nothing of it.
        """
        wanted = {name: value for name, value in (("model", model), ("kind", kind)) if value is not None}
        if any("\0" in value for value in wanted.values()):
            return 0
        chosen = [getattr(SkillRow, name) == value for name, value in wanted.items()]
        kept = " || ".join(f"@.{name} != ${name}" for name in wanted) or "1 == 0"
        effects = CouncilRun.feedback["effects"]
        others = func.jsonb_path_query_array(effects, cast(f"$[*] ? ({kept})", JSONPATH), cast(wanted, JSONB))
        async with self._database.transaction(everybody=True) as session:
            await session.execute(_TURN)
            gone = (await session.scalars(delete(SkillRow).where(*chosen).returning(SkillRow.model))).all()
            await session.execute(
                update(CouncilRun)
                .where(func.jsonb_array_length(effects) > 0)
                .values(feedback=func.jsonb_set(CouncilRun.feedback, ["effects"], others))
                .execution_options(synchronize_session=False)
            )
            before = {"skills": len(gone), **wanted}
            session.add(audited(actor, self._clock.now(), "skills.reset", "skills", before=before))
        await self._read_soon()
        return len(gone)

    async def read(self) -> None:
        """Learn what was said, also to other replicas. Raises Unavailable; then everything stays as it is."""
        async with self._reading, self._database.transaction(everybody=True) as session:
            totals = await _totals(session)
            # Who said what is asked only where something was said since. What comes between both queries is in the
            # second alone, and so makes the next reading look again.
            if totals != self._seen:
                self._tallies = {skill.key: skill.pooled for skill in await _pooled(session, totals)}
                self._seen = totals

    async def _read_soon(self) -> None:
        """Now, or with the next round where Postgres just went away: what was changed is in it."""
        with suppress(Unavailable):
            await self.read()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.read()
            except Unavailable as error:
                log.warning("skills not read", reason=error.message)
            await self._clock.sleep_ms(READ_EVERY_MS)

    async def _place(self, session: AsyncSession, user_id: UUID) -> str | None:
        """Today, if the person has a counted place left."""
        today = self._clock.now().date().isoformat()
        taken = await session.scalar(
            select(func.count())
            .select_from(CouncilRun)
            .where(CouncilRun.user_id == user_id, CouncilRun.feedback["counted_on"].astext == today)
        )
        return today if (taken or 0) < COUNTED_PER_DAY_MAX else None

    async def _apply(self, session: AsyncSession, undone: Sequence[Effect], done: Sequence[Effect]) -> None:
        """Take off and add; a tally of nothing has no row, as if nobody had ever said anything."""
        for key in sorted({effect.key for effect in (*undone, *done)}):
            row = await session.get(SkillRow, key)
            if row is None:
                row = SkillRow(model=key[0], kind=key[1], role=key[2], wins=0.0, losses=0.0)
            wins, losses = row.wins, row.losses
            for sign, effects in ((-1, undone), (1, done)):
                wins += sign * sum(effect.wins for effect in effects if effect.key == key)
                losses += sign * sum(effect.losses for effect in effects if effect.key == key)
            if wins or losses:
                row.wins, row.losses, row.updated_at = wins, losses, self._clock.now()
                session.add(row)
            elif row in session:
                await session.delete(row)


def effects_of(feedback: Feedback, members: Sequence[RunMember], winner: str | None, kind: str) -> list[Effect]:
    """What a feedback says of whom. Raises InvalidRequest where the pick is no answer of this council.

    Args:
        winner: the label of the final answer, where the chair did not write it.
    """
    answered = [each for each in members if each.role in ("leader", "member") and each.state == "done"]
    if feedback.pick is not None:
        picked = next((each.model for each in answered if each.label == feedback.pick), None)
        if picked is None:
            labels = ", ".join(each.label for each in answered)
            raise InvalidRequest(
                f"No answer of this council is labelled {feedback.pick[:20]!r}. There are: {labels or 'none'}.",
                param="pick",
            )
        return _picked(picked, [each.model for each in answered if each.model != picked], kind)
    chair = next((each.model for each in reversed(members) if each.role == "chair" and each.state == "done"), None)
    won = [each.model for each in answered if each.label == winner]
    led = [each.model for each in answered if each.role == "leader"]
    author = chair or next(iter([*won, *led]), None)
    if author is None:
        return []
    role: SkillRole = "answer" if chair is None else "chair"
    if feedback.thumb == "up":
        return [Effect(model=author, kind=kind, role=role, wins=1.0)]
    losses = 1.0 if feedback.thumb == "down" else REGENERATED_LOSS
    return [Effect(model=author, kind=kind, role=role, losses=losses)]


def _picked(winner: str, others: Sequence[str], kind: str) -> list[Effect]:
    """One win, and one loss in equal parts. Nobody beaten, nothing learned."""
    if not others:
        return []
    share = GRAIN // len(others) / GRAIN
    return [
        Effect(model=winner, kind=kind, role="answer", wins=1.0),
        *(
            Effect(model=model, kind=kind, role="answer", losses=share * others.count(model))
            for model in dict.fromkeys(others)
        ),
    ]


async def _totals(session: AsyncSession) -> list[_Total]:
    query = select(SkillRow).order_by(SkillRow.model, SkillRow.kind, SkillRow.role)
    return [
        ((row.model, row.kind, "chair" if row.role == "chair" else "answer"), row.wins, row.losses, row.updated_at)
        for row in await session.scalars(query)
    ]


async def _pooled(session: AsyncSession, totals: Sequence[_Total]) -> list[Skill]:
    """With what counts of each: the parts of people, bounded."""
    parts: dict[Key, list[tuple[float, float]]] = {}
    for model, kind, role, wins, losses in await session.execute(_PEOPLE):
        parts.setdefault((model, kind, role), []).append((wins, losses))
    skills = []
    for key, wins, losses, _ in totals:
        people = parts.get(key, [])
        found = pooled(people)
        model, kind, role = key
        skills.append(
            Skill(
                model=model,
                kind=kind,
                role=role,
                tally=Tally(wins, losses),
                people=len(people),
                pooled=Tally(found.wins, found.losses),
            )
        )
    return skills
