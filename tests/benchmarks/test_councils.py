"""Councils keep their rules over a short simulated day; how fast it is, nobody asks here."""

from collections import defaultdict
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from benchmarks.councils.box import HARDWARE, Crowded
from benchmarks.councils.council import Played, Way
from benchmarks.councils.day import LIGHT, Day, Habit
from benchmarks.councils.figures import figures, pictures
from benchmarks.councils.play import play
from benchmarks.sharing.job import Job
from server.allocator.steadiness import COOL_MS, RISE_MS
from server.council.floor import FIRST_TOKEN_MS_MAX

HOURS = 0.1
SIZE_MAX = 6
WAYS: tuple[Way, ...] = ("allocated", "maximum", "solo")


@pytest.fixture(scope="module")
async def days(redis_server_url: str) -> dict[str, Played]:
    """Six minutes, every way; `play` checks the ledger's books at the end of each."""
    async with Redis.from_url(redis_server_url, decode_responses=True) as redis:
        found = {str(way): await play(redis, Day(HOURS, 7), way) for way in WAYS}
        return found | {"alone": await play(redis, Day(HOURS, 7), "solo", ())}


@pytest.mark.parametrize("way", WAYS)
def test_sizes_keep_their_bounds(days: dict[str, Played], way: Way) -> None:
    """Nobody sits beyond policy, wish and ceiling, and there is always a reason."""
    assert len(days[way].councils) > 10
    for council in days[way].councils:
        allocation = council.allocation
        assert 1 <= allocation.size == len(allocation.members) <= min(SIZE_MAX, allocation.wanted)
        assert allocation.size <= council.size_max <= SIZE_MAX
        assert allocation.reason.startswith(f"{allocation.size} of {allocation.wanted}: ")
        assert [each.is_leader for each in allocation.members] == [True] + [False] * (allocation.size - 1)
        if council.ceiling is not None:
            assert allocation.size <= council.ceiling


@pytest.mark.parametrize("way", WAYS)
def test_only_what_was_lent_is_taken_back(days: dict[str, Played], way: Way) -> None:
    """Every member that was revoked was not a leader, and leaders are all answered."""
    played = days[way]
    taken = {job.id for _, job in played.taken_back}
    assert taken == {record.job.id for record in played.result.records if record.outcome == "revoked"}
    for council in played.councils:
        for call in council.calls:
            if call.record is not None:
                assert call.record.job.is_revocable == (call.role != "leader")
                assert call.role != "leader" or call.record.job.id not in taken
        if council.ended_ms >= 0:
            assert council.leader.is_done
            assert not any(call.is_open for call in council.calls)


async def test_members_are_taken_back_for_a_light_user(redis: Redis) -> None:
    """Where councils fill the box, a light request without a slot gets a member's, and the council goes on smaller."""
    many = Habit("heavy", "day", 0.0, depth=8)
    played = await play(redis, Day(HOURS, 1), "maximum", (many,))
    lent = [record for record, was_lent in played.waited if was_lent]
    assert lent
    assert all(0 <= record.dispatched_ms - record.arrived_ms < 1000 for record in lent)
    taken = {job.id.split("/")[0] for _, job in played.taken_back}
    smaller = [council for council in played.councils if council.id in taken and council.ended_ms >= 0]
    assert smaller
    assert all(1 <= len(council.done) < len(council.members) for council in smaller)


def test_the_ceiling_does_not_flap(days: dict[str, Played]) -> None:
    """It rises by one, not within ten seconds of another rise, nor within thirty of a fall."""
    looks = [(look.at_ms, look.ceiling) for look in days["allocated"].looks if look.ceiling is not None]
    steps = [(at_ms, after - before) for (_, before), (at_ms, after) in pairwise(looks) if after != before]
    assert all(step <= 1 for _, step in steps)
    for (before_ms, before), (at_ms, step) in pairwise(steps):
        if step > 0:
            assert at_ms - before_ms >= (RISE_MS if before > 0 else COOL_MS)


def test_leaders_begin_before_the_others(days: dict[str, Played]) -> None:
    """Nobody else is asked before the leader's first token, unless that takes half a minute."""
    for council in days["maximum"].councils:
        leader = council.leader.record
        for call in council.calls[1:]:
            if call.record is not None:
                assert leader is not None
                waited_ms = call.record.arrived_ms - leader.arrived_ms
                assert waited_ms >= FIRST_TOKEN_MS_MAX or 0 <= leader.first_token_ms <= call.record.arrived_ms


def test_everybody_has_the_same_light_user(days: dict[str, Played]) -> None:
    """The light user asks the same whatever councils do, so that first tokens can be compared."""
    asked: dict[str, set[Job]] = defaultdict(set)
    for way, played in days.items():
        asked[way] = {record.job for record in played.result.records if record.job.client == LIGHT}
    assert asked["alone"]
    assert all(jobs == asked["alone"] for jobs in asked.values())


def test_figures_and_pictures_can_be_made(days: dict[str, Played]) -> None:
    """All days have the same figures, and what is drawn is SVG."""
    names = [list(figures(days[way], days["alone"], days["maximum"])) for way in WAYS]
    assert all(each == names[0] for each in names)
    images = pictures({way: [played] for way, played in days.items()})
    assert set(images) >= {"council-day-allocated.svg", "council-day-maximum.svg"}
    assert all(image.startswith("<svg") for image in images.values())


def test_engines_of_a_box_slow_each_other() -> None:
    """Four busy engines each take two and a half times as long, as the saturation law says."""
    box: dict[str, Crowded] = {}
    for name, hardware in HARDWARE.items():
        box[name] = Crowded(hardware, box)
        box[name].submit(Job(name, "ann", 0.0, 100, 10, engine=name))
    alone_ms = [engine.hardware.step_ms(100, 100) for engine in box.values()]
    took_ms = [engine.begin() for engine in box.values()]
    assert took_ms[0] == pytest.approx(alone_ms[0])
    assert took_ms[3] == pytest.approx(alone_ms[3] * 4 / 1.6)
