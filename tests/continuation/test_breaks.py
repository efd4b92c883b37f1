"""Whatever goes wrong while an answer is paused: one row, an empty ledger, and everybody is told."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from quotas.ledger import Ledger
from server.chat.salts import Salts
from server.engines.promises import Promises
from tests.continuation.stage import Stage, is_whole
from tests.stand_ins.storyteller import FAST, HOLD, PROMPT_TOKENS, WORDS, asked


async def test_a_paused_answer_goes_on(stage: Stage) -> None:
    """The rows say how often and how long; the budget holds what was used, once."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    await stage.box.allow(hog, tokens_per_day=100_000)
    told, guests = await stage.paused(hog, guest)
    stage.tellers["one"].go.set()
    await is_whole([*told, guests])
    rows = await stage.settled(3)
    assert sorted((row.pauses, row.outcome) for row in rows) == [(0, "completed")] * 2 + [(1, "completed")]
    used = sum(row.input_tokens + row.output_tokens for row in rows if row.user_id == hog.user.id)
    assert used == 2 * (PROMPT_TOKENS + WORDS)
    assert (await stage.box.ledger.budget(str(hog.user.id))).tokens_per_day == used


PHASES = ("is paused", "waits", "gets its slot", "is opened again", "goes on")


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_may_leave_at_any_time(stage: Stage, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its answer is being paused, waits, has a slot again, is opened again: one row, and nothing is left."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    await stage.box.allow(hog, tokens_per_day=100_000)
    teller, came, stays = stage.tellers["one"], asyncio.Event(), asyncio.Event()
    real_requeue, real_salt = Ledger.requeue, Salts.of

    async def requeue(*args: Any, **named: Any) -> Any:
        state = await real_requeue(*args, **named)
        if phase == "is paused":
            came.set()
            await stays.wait()
        return state

    async def salt(*args: Any) -> str:
        if phase == "gets its slot" and came.is_set():
            stays.set()
            await asyncio.Event().wait()
        return await real_salt(*args)

    monkeypatch.setattr(Ledger, "requeue", requeue)
    monkeypatch.setattr(Salts, "of", salt)
    told, guests = await stage.paused(hog, guest)
    left = told[0][1]
    if phase in {"gets its slot", "is opened again", "goes on"}:
        came.set()
        teller.way = "hangs" if phase == "is opened again" else "well"
        teller.held_after = 50  # where it goes on, and holds its breath again
        guests[1].cancel()
        if phase == "gets its slot":
            await stays.wait()
        elif phase == "is opened again":
            await stage.until(lambda: teller.begun[-1] == 3)
        else:
            await stage.until(lambda: bool(told[0][0].comments("resumed")) and "wörd40" in told[0][0].text)
    left.cancel()
    await asyncio.wait([left])
    teller.way = "well"
    stays.set()
    teller.go.set()
    await is_whole([told[1]])
    rows = await stage.settled(3)
    mine = [row for row in rows if row.user_id == hog.user.id]
    assert sorted((row.outcome, row.pauses) for row in mine) == [("cancelled", 1), ("completed", 0)]
    cancelled = next(row for row in mine if row.outcome == "cancelled")
    assert cancelled.output_tokens >= 3
    assert cancelled.paused_ms > 0
    used = sum(row.input_tokens + row.output_tokens for row in mine)
    assert (await stage.box.ledger.budget(str(hog.user.id))).tokens_per_day == used


async def test_a_client_that_takes_nothing_gives_its_slot_up_at_once(stage: Stage) -> None:
    """The guest is served while both of the hog's clients sleep; when these go, nothing is left."""
    teller = stage.tellers["one"]
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    teller.word_bytes = 110_000
    clients = [await _sleeper(stage.box.url, hog.key, number) for number in range(2)]
    await stage.pausable("one", 2)
    teller.word_bytes = 0
    async with asyncio.timeout(10):
        assert (await stage.ask(guest, asked(FAST, max_tokens=4))).status_code == 200
    for client in clients:
        client.close()
    rows = await stage.settled(3)
    assert sorted(row.outcome for row in rows) == ["cancelled", "cancelled", "completed"]
    assert sorted(row.pauses for row in rows) == [0, 0, 1]


async def _sleeper(url: str, key: str, number: int) -> socket.socket:
    """A client that asks for a stream and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003 (the library's signature)
    parts = urlsplit(url)
    await asyncio.get_running_loop().sock_connect(client, (parts.hostname, parts.port))
    body = json.dumps(asked(f"sleep {number}", stream=True)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(client, head.encode() + body)
    return client


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("refuses", "engine_does_not_continue"),
        ("hangs", "engine_timeout"),
        ("rubbish", "engine_failed"),
        ("breaks", "engine_failed"),
        ("empty", "engine_stopped"),
    ],
)
async def test_an_engine_that_does_not_go_on_after_all(stage: Stage, way: Any, code: str) -> None:
    """Its client gets one error, its row says failed; the engine is not taken out for it."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    stage.tellers["one"].way = way
    stage.tellers["one"].go.set()
    async with asyncio.timeout(20):
        await told[0][1]
    heard = told[0][0]
    assert heard.error is not None
    assert heard.error["code"] == code, heard.error
    await is_whole([told[1], guests])
    rows = await stage.settled(3)
    assert sorted((row.outcome, row.pauses) for row in rows) == [("completed", 0), ("completed", 0), ("failed", 1)]
    assert (await stage.ask(guest, asked(FAST, max_tokens=2))).status_code == 200


NEVER: list[dict[str, Any]] = [
    {"n": 2},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    {"response_format": {"type": "json_object"}},
    {"logprobs": True},
    {"add_generation_prompt": False},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": HOLD}]}]},
    {"messages": [{"role": "user", "content": HOLD}, {"role": "assistant", "content": " wörd0"}]},
]


@pytest.mark.parametrize("more", NEVER, ids=lambda more: next(iter(more)))
async def test_what_cannot_go_on_is_never_paused(stage: Stage, more: dict[str, Any]) -> None:
    """The guest gets the slot of the other answer, or waits for an end."""
    teller = stage.tellers["one"]
    teller.held_after = 3
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    is_alone = more.get("n") == 2
    never = stage.hear(hog, asked(HOLD) | more)
    others = [] if is_alone else [stage.hear(hog, asked(f"{HOLD} other"))]
    await stage.until(lambda: all(heard.text for heard, _ in [never, *others]))
    if others:
        await stage.pausable("one", 1)
    guests = stage.hear(guest, asked(FAST, max_tokens=4))
    if others:
        async with asyncio.timeout(20):
            await guests[1]
    teller.go.set()
    async with asyncio.timeout(20):
        await asyncio.gather(never[1], guests[1], *(task for _, task in others))
    assert not never[0].comments("paused")
    assert [len(heard.comments("resumed")) for heard, _ in others] == [1] * len(others)
    assert never[0].error is None
    await stage.settled(2 + len(others))


async def test_an_engine_that_writes_on_alone_is_not_paused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slot would not be free: the guest waits."""
    monkeypatch.setattr(Promises, "stops", lambda *_: "no")
    stage.tellers["one"].held_after = 3
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told = [stage.hear(hog, asked(f"{HOLD} {number}")) for number in range(2)]
    await stage.until(lambda: all(heard.text for heard, _ in told))
    guests = stage.hear(guest, asked(FAST))

    async def waits() -> bool:
        return await stage.box.ledger.load("one") == (2, 1)

    await stage.until(waits)
    await stage.pausable("one", 0)
    stage.tellers["one"].go.set()
    await is_whole([*told, guests])
    assert [row.pauses for row in await stage.settled(3)] == [0, 0, 0]


async def test_an_answer_that_begins_to_think_is_not_paused_and_another_is(stage: Stage) -> None:
    """Thoughts are shown apart, and cannot be given back."""
    teller = stage.tellers["one"]
    teller.held_after = 3
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    teller.delta = "reasoning_content"
    thinking = stage.hear(hog, asked(f"{HOLD} a thought"))
    await stage.until(lambda: any("reasoning_content" in line for line in thinking[0].lines))
    teller.delta = "content"
    plain = stage.hear(hog, asked(f"{HOLD} a longer prompt than the other"))
    await stage.until(lambda: bool(plain[0].text))
    await stage.pausable("one", 1)
    async with asyncio.timeout(20):
        assert (await stage.ask(guest, asked(FAST, max_tokens=4))).status_code == 200
    teller.go.set()
    async with asyncio.timeout(20):
        await asyncio.gather(thinking[1], plain[1])
    assert not thinking[0].comments("paused")
    assert plain[0].comments("paused")
    await stage.settled(3)


async def test_a_pause_that_comes_after_the_end_was_told_is_declined(stage: Stage) -> None:
    """Between the finish reason and usage: the answer ends, with one reason."""
    teller = stage.tellers["one"]
    teller.waits_at_end = True
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told = [stage.hear(hog, asked(f"{HOLD} {number}")) for number in range(2)]
    await stage.until(lambda: all(heard.reasons for heard, _ in told))
    guests = stage.hear(guest, asked(FAST, max_tokens=4))

    async def waits() -> bool:
        return await stage.box.ledger.load("one") == (2, 1)

    await stage.until(waits)
    await stage.pausable("one", 0)
    assert not any(heard.comments("paused") for heard, _ in told)
    teller.go.set()
    await is_whole(told)
    async with asyncio.timeout(20):
        await guests[1]
    assert [row.pauses for row in await stage.settled(3)] == [0, 0, 0]
