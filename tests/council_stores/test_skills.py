"""What feedback makes of skills: who wins and loses, that it can be taken back exactly, how much one person moves."""

import asyncio
from datetime import timedelta
from fractions import Fraction
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from server.allocator.quality import PERSON_MAX
from server.council import skills as skills_module
from server.council.runs import Run, RunMember, Runs
from server.council.skills import GRAIN, Effect, Feedback, Skills, Tally, effects_of
from server.db.models import AuditEntry, CouncilRun
from server.db.session import Database
from server.errors import InvalidRequest, NotFound
from server.messages import Principal
from tests.clocks import FakeClock
from tests.council_stores.parts import THREE, member, rows, run, someone, tallies

PICKS = st.sampled_from(["A", "B", "C", "D", "E", "F"]).map(lambda label: Feedback(pick=label))
FEEDBACKS = st.one_of(
    PICKS, st.sampled_from([Feedback(thumb="up"), Feedback(thumb="down"), Feedback(regenerated=True)])
)
SIZES = st.integers(1, 6)


def council(size: int) -> tuple[RunMember, ...]:
    """So many members, of which the fourth is of the first one's model."""
    names = ["small", "large", "other", "small", "fifth", "sixth"][:size]
    return tuple(
        member(label, model, "leader" if label == "A" else "member")
        for label, model in zip("ABCDEF", names, strict=False)
    )


def effects(feedback: Feedback, *members: RunMember, winner: str | None = "A") -> dict[tuple[str, str], Any]:
    """By model and role: wins and losses."""
    found = effects_of(feedback, members, winner, "open")
    return {(each.model, each.role): (each.wins, each.losses) for each in found}


def test_the_picked_one_wins_and_the_others_share_a_loss() -> None:
    """Evenly; two answers of one model lose twice its part."""
    assert effects(Feedback(pick="B"), *THREE) == {
        ("large", "answer"): (1.0, 0.0),
        ("small", "answer"): (0.0, 0.5),
        ("other", "answer"): (0.0, 0.5),
    }
    third = (GRAIN // 3) / GRAIN
    assert effects(Feedback(pick="B"), *council(4)) == {
        ("large", "answer"): (1.0, 0.0),
        ("small", "answer"): (0.0, 2 * third),
        ("other", "answer"): (0.0, third),
    }


def test_answers_of_one_model_say_nothing_of_each_other() -> None:
    """A pick among samples compares nobody; one of a mixed council compares with the other models alone."""
    samples = (member("A", "small", "leader"), member("B", "small"))
    assert effects(Feedback(pick="B"), *samples) == {}
    assert effects(Feedback(pick="B"), *samples, member("C", "other")) == {
        ("small", "answer"): (1.0, 0.0),
        ("other", "answer"): (0.0, 1.0),
    }
    assert effects(Feedback(pick="A"), THREE[0]) == {}


def test_whoever_gave_no_answer_neither_loses_nor_is_picked() -> None:
    """Stopped, failed or late; nor do those who ranked, judged and chaired."""
    parts = [member("C", "other", state=state) for state in ("failed", "revoked", "late", "dropped")]
    parts += [member("B", "large", role) for role in ("rank", "judge", "debate", "chair")]
    members = (*THREE[:2], *parts)
    assert effects(Feedback(pick="A"), *members) == {("small", "answer"): (1.0, 0.0), ("large", "answer"): (0.0, 1.0)}
    for label in ("C", "Z", "", "a", "A ", "\0"):
        with pytest.raises(InvalidRequest, match="There are: A, B") as caught:
            effects(Feedback(pick=label), *members)
        assert caught.value.param == "pick"


@pytest.mark.parametrize(
    ("feedback", "change"),
    [
        (Feedback(thumb="up"), (1.0, 0.0)),
        (Feedback(thumb="down"), (0.0, 1.0)),
        (Feedback(regenerated=True), (0.0, 0.5)),
    ],
)
def test_thumbs_are_for_whoever_wrote_the_answer(feedback: Feedback, change: tuple[float, float]) -> None:
    """The chair as chair, the one that took over if it died; else the winner; else the leader; nobody if nobody did."""
    dead, heir = member("B", "large", "chair", "failed"), member("C", "other", "chair")
    assert effects(feedback, *THREE, dead, heir, winner=None) == {("other", "chair"): change}
    assert effects(feedback, *THREE, dead, winner="C") == {("other", "answer"): change}
    assert effects(feedback, *THREE, winner=None) == {("small", "answer"): change}
    assert effects(feedback, member("A", "small", "leader", "failed"), winner=None) == {}


@given(st.lists(st.tuples(SIZES, PICKS), max_size=60), st.randoms(use_true_random=False))
def test_effects_add_up_without_rounding(asked: list[tuple[int, Feedback]], chance: Any) -> None:
    """In any order, and taken off again in any order, doubles give what exact numbers give."""
    shares = [
        amount
        for size, feedback in asked
        if feedback.pick in list("ABCDEF"[:size])
        for effect in effects_of(feedback, council(size), "A", "open")
        for amount in (effect.wins, effect.losses)
    ]
    assert all(Fraction(share) * GRAIN == int(share * GRAIN) for share in shares)
    total = sum(shares)
    assert Fraction(total) == sum(map(Fraction, shares), Fraction(0))
    for share in chance.sample(shares, len(shares)):
        total -= share
    assert total == 0


async def stored(runs: Runs, who: Principal, *members: RunMember, **fields: Any) -> Run:
    """A council that ended."""
    made = run(who.id, members or THREE, **fields)
    runs.record(made)
    await runs.settle(made.id)
    return made


async def test_what_is_said_later_takes_the_place_of_what_was_said(
    runs: Runs, skills: Skills, database: Database
) -> None:
    """Once per council and person: nothing of the earlier stays, not even a row of nothing."""
    ann = someone()
    council = await stored(runs, ann)
    await skills.give(ann, council.id, Feedback(pick="B"))
    assert len(await tallies(database)) == 3
    for _ in range(3):
        given = await skills.give(ann, council.id, Feedback(thumb="down"))
        assert given.effects == (Effect(model="small", kind="open", role="answer", losses=1.0),)
        assert await tallies(database) == {("small", "open", "answer"): (0.0, 1.0)}
    row = (await rows(database))[council.id]
    assert row.feedback is not None
    assert row.feedback["feedback"] == {"pick": None, "thumb": "down", "regenerated": False}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    councils=st.lists(SIZES, min_size=1, max_size=3),
    said=st.lists(st.tuples(st.integers(0, 2), FEEDBACKS), max_size=12),
)
@example(councils=[4, 6, 3], said=[(0, Feedback(pick="B")), (1, Feedback(pick="C")), (0, Feedback(pick="A"))])
async def test_only_the_last_word_counts(
    runs: Runs, skills: Skills, database: Database, councils: list[int], said: list[tuple[int, Feedback]]
) -> None:
    """After any feedback, skills are to the last bit what the last one of each council alone would make."""
    ann = someone()
    await skills.reset(ann)
    asked = [await stored(runs, ann, *council(size)) for size in councils]
    last: dict[int, list[Effect]] = {}
    for number, feedback in said:
        chosen = asked[number % len(asked)]
        try:
            await skills.give(ann, chosen.id, feedback)
        except InvalidRequest:
            assert feedback.pick is not None
            assert feedback.pick not in [each.label for each in chosen.members]
        else:
            last[number % len(asked)] = effects_of(feedback, chosen.members, chosen.winner, "open")
    expected: dict[Any, Any] = {}
    for effect in (each for found in last.values() for each in found):
        wins, losses = expected.get(effect.key, (Fraction(0), Fraction(0)))
        expected[effect.key] = (wins + Fraction(effect.wins), losses + Fraction(effect.losses))
    assert await tallies(database) == expected
    assert {key: (tally.wins, tally.losses) for key, tally in skills.tallies.items()} == expected


async def test_a_replica_knows_at_once_and_the_others_soon(
    runs: Runs, skills: Skills, database: Database, clock: FakeClock
) -> None:
    """Without asking Postgres again; where nobody said anything there is nothing."""
    ann, other = someone(), Skills(database, clock, runs)
    asked = await stored(runs, ann)
    await other.read()
    await skills.give(ann, asked.id, Feedback(pick="A"))
    won = {("small", "open", "answer"): Tally(1.0, 0.0)}
    assert skills.tallies == won | {(each, "open", "answer"): Tally(0.0, 0.5) for each in ("large", "other")}
    assert other.tallies == {}
    await other.read()
    assert other.tallies == skills.tallies
    await other.reset(ann, model="small")
    assert skills.tallies.keys() - other.tallies.keys() == won.keys()


async def test_of_one_person_only_so_much_counts(runs: Runs, skills: Skills) -> None:
    """However often somebody says it; several people say more. An admin sees both numbers."""
    ann, ben = someone(), someone("ben")
    for number in range(2 * int(PERSON_MAX)):
        asked = await stored(runs, ann)
        await skills.give(ann, asked.id, Feedback(thumb="down" if number % 4 == 0 else "up"))
    (skill,) = await skills.all()
    assert (skill.tally, skill.people) == (Tally(15.0, 5.0), 1)
    assert skill.pooled == Tally(0.75 * PERSON_MAX, 0.25 * PERSON_MAX)
    await skills.give(ben, (await stored(runs, ben)).id, Feedback(thumb="up"))
    (skill,) = await skills.all()
    assert (skill.tally, skill.people) == (Tally(16.0, 5.0), 2)
    assert skill.pooled == Tally(0.75 * PERSON_MAX + 1, 0.25 * PERSON_MAX)
    assert skills.tallies == {skill.key: skill.pooled}


async def test_feedback_is_for_ones_own_councils(runs: Runs, skills: Skills, database: Database) -> None:
    """Somebody else's is not there, nor is one that never was or still runs; and exactly one thing is said."""
    ann, ben = someone(), someone("ben")
    asked = await stored(runs, ann)
    runs.record(begun := run(ann.id, outcome="running", total_ms=0))
    for who, which in ((ben, asked.id), (ann, uuid4()), (ann, begun.id)):
        with pytest.raises(NotFound):
            await skills.give(who, which, Feedback(thumb="up"))
    for wrong in (Feedback(), Feedback(pick="A", thumb="up"), Feedback(thumb="up", regenerated=True)):
        with pytest.raises(InvalidRequest, match="exactly one"):
            await skills.give(ann, asked.id, wrong)
    assert await tallies(database) == {}


async def test_a_run_that_is_still_in_memory_is_found(runs: Runs, skills: Skills) -> None:
    """Who is quick to say what they think is not told that there is no such council."""
    ann = someone()
    asked = run(ann.id)
    runs.record(asked)
    assert (await skills.give(ann, asked.id, Feedback(pick="C"))).effects
    assert runs.waiting == 0


async def test_a_person_moves_only_so_much_in_a_day(
    runs: Runs, skills: Skills, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said beyond that is kept and counts nothing; changing one's mind takes no other place."""
    monkeypatch.setattr(skills_module, "COUNTED_PER_DAY_MAX", 3)
    ann, ben = someone(), someone("ben")
    asked = [await stored(runs, ann) for _ in range(5)]
    up = ("small", "open", "answer")
    for council in asked:
        await skills.give(ann, council.id, Feedback(thumb="up"))
    assert await tallies(database) == {up: (3.0, 0.0)}
    for council in (asked[0], asked[4]):
        await skills.give(ann, council.id, Feedback(thumb="down"))
    assert await tallies(database) == {up: (2.0, 1.0)}
    await skills.give(ben, (await stored(runs, ben)).id, Feedback(thumb="up"))
    assert await tallies(database) == {up: (3.0, 1.0)}
    clock.advance(timedelta(days=1))
    await skills.give(ann, asked[3].id, Feedback(thumb="up"))
    assert await tallies(database) == {up: (4.0, 1.0)}
    assert [row.feedback["counted_on"] for row in await said(database, asked)] == [
        *("2026-11-23", "2026-11-23", "2026-11-23", "2026-11-24", None),
    ]


async def said(database: Database, asked: list[Run]) -> list[Any]:
    """The rows of these councils, in this order."""
    found = await rows(database)
    return [found[each.id] for each in asked]


async def test_many_at_once_count_once_each(
    runs: Runs, skills: Skills, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas, one person on several councils and one of them again and again: no place is taken twice."""
    monkeypatch.setattr(skills_module, "COUNTED_PER_DAY_MAX", 4)
    ann, other = someone(), Skills(database, clock, runs)
    asked = [await stored(runs, ann) for _ in range(6)]
    thumbs = [(store, each) for each in asked for store in (skills, other)]
    await asyncio.gather(*(store.give(ann, each.id, Feedback(thumb="up")) for store, each in thumbs))
    assert await tallies(database) == {("small", "open", "answer"): (4.0, 0.0)}


@pytest.mark.parametrize(("model", "kind", "left"), [(None, None, 0), ("small", None, 4), (None, "vote", 3)])
async def test_a_reset_forgets_and_nothing_of_it_is_undone_later(
    runs: Runs, skills: Skills, database: Database, model: str | None, kind: str | None, left: int
) -> None:
    """Who changes their mind after it takes away nothing that is not there any more."""
    ann = someone()
    asked = [await stored(runs, ann, kind=each) for each in ("open", "vote")]
    for council in asked:
        await skills.give(ann, council.id, Feedback(pick="B"))
    assert await skills.reset(ann, model=model, kind=kind) == 6 - left
    assert len(await tallies(database)) == len(skills.tallies) == left
    for council in asked:
        await skills.give(ann, council.id, Feedback(thumb="up"))
    assert await tallies(database) == {("small", each, "answer"): (1.0, 0.0) for each in ("open", "vote")}
    async with database.transaction(everybody=True) as session:
        (entry,) = await session.scalars(select(AuditEntry))
    assert entry.before is not None
    assert (entry.action, entry.actor_name, entry.before["skills"]) == ("skills.reset", "ann", 6 - left)


async def test_a_reset_of_what_is_not_there(runs: Runs, skills: Skills, database: Database) -> None:
    """Nothing goes."""
    ann = someone()
    await skills.give(ann, (await stored(runs, ann)).id, Feedback(pick="B"))
    for model in ("unknown", "a\0b", "$", '"', "small' || true"):
        assert await skills.reset(ann, model=model) == 0
    assert len(await tallies(database)) == 3


async def test_models_may_have_any_name(runs: Runs, skills: Skills, database: Database) -> None:
    """Quotes, dots and spaces are names, not paths."""
    ann = someone()
    names = ['a"b', "a.b $x", "ü ' ; --"]
    for order in permutations(names):
        members = [member(label, name) for label, name in zip("ABC", order, strict=True)]
        await skills.give(ann, (await stored(runs, ann, *members)).id, Feedback(pick="A"))
    for left, name in zip((2, 1, 0), names, strict=True):
        assert await skills.reset(ann, model=name) == 1
        assert len(await tallies(database)) == left
    async with database.transaction(everybody=True) as session:
        feedback = (await session.scalars(select(CouncilRun.feedback))).all()
    assert [each["effects"] for each in feedback if each is not None] == [[]] * 6
