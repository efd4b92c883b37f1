"""Redis goes, forgets, or loses a reply while an answer is paused: one row, an empty ledger, and everybody is told."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisAway

from quotas.ledger import Ledger
from server.sharing.gate import Gate
from tests.continuation.stage import Stage, is_whole
from tests.stand_ins.storyteller import HOLD, asked


@pytest.mark.parametrize("when", ["requeued", "before"])
async def test_a_reply_of_redis_may_be_lost(stage: Stage, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause is told once more, and counts once."""
    real, calls = Ledger.requeue, []

    async def requeue(*args: Any, **named: Any) -> Any:
        calls.append(named["pause"])
        if when == "before" and len(calls) < 3:
            raise RedisAway
        state = await real(*args, **named)
        if len(calls) < 3:
            raise RedisAway
        return state

    monkeypatch.setattr(Ledger, "requeue", requeue)
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    stage.tellers["one"].go.set()
    await is_whole([*told, guests])
    assert calls == [1, 1, 1]
    assert sorted(row.pauses for row in await stage.settled(3)) == [0, 0, 1]


async def test_redis_may_be_away_for_longer_than_the_grace(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that was to be paused ends with an error; its row is written when Redis is back."""
    real, is_away = Ledger.requeue, True

    async def requeue(*args: Any, **named: Any) -> Any:
        if is_away:
            raise RedisAway
        return await real(*args, **named)

    monkeypatch.setattr(Ledger, "requeue", requeue)
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    async with asyncio.timeout(20):
        await told[0][1]
    assert told[0][0].error is not None
    assert told[0][0].error["code"] == "queue_unavailable"
    is_away = False
    stage.tellers["one"].go.set()
    await is_whole([told[1], guests])
    assert sorted((row.outcome, row.pauses) for row in await stage.settled(3)) == [
        ("completed", 0),
        ("completed", 0),
        ("failed", 1),
    ]


@pytest.mark.parametrize("leaves", [False, True])
async def test_redis_may_forget_everything_while_an_answer_is_paused(stage: Stage, *, leaves: bool) -> None:
    """FLUSHDB: it is entered again as paused, and goes on, or ends where its client leaves."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    await stage.redis.flushdb()

    async def is_entered() -> bool:
        return await stage.box.ledger.load("one") == (2, 1)

    await stage.until(is_entered)
    if leaves:
        told[0][1].cancel()
        await asyncio.wait([told[0][1]])
    stage.tellers["one"].go.set()
    await is_whole([*told[leaves:], guests])
    rows = await stage.settled(3)
    assert sorted((row.outcome, row.pauses) for row in rows) == sorted(
        [("cancelled" if leaves else "completed", 1), ("completed", 0), ("completed", 0)]
    )


async def test_redis_may_forget_everything_before_it_hears_of_a_pause(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is entered as one that is paused."""
    real = Ledger.requeue

    async def requeue(*args: Any, **named: Any) -> Any:
        await stage.redis.flushdb()
        return await real(*args, **named)

    monkeypatch.setattr(Ledger, "requeue", requeue)
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    stage.tellers["one"].held_after = 3
    told = [stage.hear(hog, asked(f"{HOLD} {number}")) for number in range(2)]
    await stage.until(lambda: all(heard.text for heard, _ in told))
    await stage.pausable("one", 2)
    guests = stage.hear(guest, asked(f"{HOLD} guest"))
    await stage.until(lambda: any(heard.comments("paused") for heard, _ in told))
    stage.tellers["one"].go.set()
    await is_whole([*told, guests])
    assert sorted(row.pauses for row in await stage.settled(3)) == [0, 0, 1]


async def test_who_leaves_while_it_is_entered_again_is_not_entered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has forgotten the answer, whose client leaves just when Redis is told of it once more."""
    entering, real = asyncio.Event(), Gate._enter_again

    async def enter_again(*args: Any) -> Any:
        entering.set()
        admission = await real(*args)
        await asyncio.Event().wait()
        return admission

    real_requeue = Ledger.requeue

    async def requeue(*args: Any, **named: Any) -> Any:
        await stage.redis.delete(f"wf:{{box}}:request:{args[1]}")
        await stage.redis.zrem("wf:{box}:running:one", args[1])
        await stage.redis.srem(f"wf:{{box}}:holds:{hog.user.id}", args[1])
        await stage.redis.srem("wf:{box}:recalled:one", args[1])
        await stage.redis.hincrby("wf:{box}:live:one", "slots", -1)
        return await real_requeue(*args, **named)

    monkeypatch.setattr(Gate, "_enter_again", enter_again)
    monkeypatch.setattr(Ledger, "requeue", requeue)
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    await entering.wait()
    told[0][1].cancel()
    await asyncio.wait([told[0][1]])
    stage.tellers["one"].go.set()
    await is_whole([told[1], guests])

    async def is_empty() -> bool:
        return await stage.box.ledger.load("one") == (0, 0)

    await stage.until(is_empty)
    rows = await stage.box.usage(3)
    assert sorted(row.outcome for row in rows) == ["cancelled", "completed", "completed"]
