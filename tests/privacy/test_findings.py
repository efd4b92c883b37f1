"""What a verdict says when detectors find something, find nothing, fail, hang, or are not there."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import SystemClock
from server.privacy.detectors.code import Code
from server.privacy.detectors.looking import in_thread
from server.privacy.detectors.secrets import Secrets
from server.privacy.detectors.structured import Structured
from server.privacy.findings import Detector, Finding, Kind, Unclear, Verdict, examine, merged
from server.privacy.payload import Part, parts_of
from tests.clocks import FakeClock

PARTS = (Part(("messages", 0, "content"), "Petra lives in Ulm"),)
PETRA = Finding("personal", "PERSON", 0, 0, 5, "one", 0.5)
ULM = Finding("personal", "PLACE", 0, 15, 18, "two", 0.5)
TIMEOUT_MS = 2_000
# Detectors that load their rules first may take their time on a busy machine.
REAL_MS_MAX = 60_000


class Scripted:
    """A detector that does what a test says."""

    version = "7"
    kinds: frozenset[Kind] = frozenset({"personal"})

    def __init__(self, name: str, find: Callable[[], Awaitable[list[Finding]]]) -> None:
        self.name = name
        self._find = find

    async def find(self, parts: Sequence[Part]) -> list[Finding]:
        """What the test says."""
        assert parts
        return await self._find()


def _says(name: str, *findings: Finding) -> Scripted:
    async def find() -> list[Finding]:
        return list(findings)

    return Scripted(name, find)


def _fails(name: str, fault: BaseException) -> Scripted:
    async def find() -> list[Finding]:
        raise fault

    return Scripted(name, find)


async def _examined(*detectors: Detector, parts: Sequence[Part] = PARTS) -> Verdict:
    return await examine(parts, detectors, FakeClock(), TIMEOUT_MS)


async def test_findings_of_all_are_united_and_nothing_is_unclear() -> None:
    """Names and versions of those that were asked go along, for the ledger."""
    verdict = await _examined(_says("two", ULM), _says("one", PETRA))
    assert verdict.findings == (PETRA, ULM)
    assert verdict.unclear is None
    assert verdict.failed == ()
    assert verdict.detectors == {"two": "7", "one": "7"}
    assert verdict.of("personal") == (PETRA, ULM)
    assert verdict.of("secret") == ()


@pytest.mark.parametrize(
    "fault", [ValueError("Petra"), RuntimeError("Petra"), RecursionError(), asyncio.CancelledError("Petra"), OSError()]
)
async def test_a_detector_that_fails_makes_it_unclear(fault: BaseException) -> None:
    """What the other one found counts; the sentence holds nothing of the text, whatever the fault says."""
    verdict = await _examined(_fails("one", fault), _says("two", ULM))
    assert verdict.findings == (ULM,)
    assert verdict.unclear is not None
    assert "one" in verdict.unclear
    assert "Petra" not in verdict.unclear
    assert verdict.failed == ("one",)


async def test_a_detector_that_is_not_sure_gives_its_reason_and_its_findings() -> None:
    """Its own sentence is told."""
    verdict = await _examined(_fails("one", Unclear("The text is wrapped.", [PETRA])), _says("two"))
    assert (verdict.findings, verdict.unclear, verdict.failed) == ((PETRA,), "The text is wrapped.", ("one",))


async def test_a_detector_that_hangs_makes_it_unclear_in_time_and_is_stopped() -> None:
    """After the time that was given, not before, and without waiting for it to agree."""
    clock, stopped = FakeClock(), asyncio.Event()

    async def hang() -> list[Finding]:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return []

    task = asyncio.create_task(examine(PARTS, [Scripted("one", hang), _says("two", ULM)], clock, TIMEOUT_MS))
    for passed_ms in (0, TIMEOUT_MS - 1):
        clock.advance(timedelta(milliseconds=passed_ms))
        await _turns()
        assert not task.done()
    clock.advance(timedelta(milliseconds=1))
    verdict = await task
    await _turns()
    assert stopped.is_set()
    assert (verdict.findings, verdict.unclear) == ((ULM,), "The detector one took too long.")
    assert verdict.took_ms == TIMEOUT_MS
    assert verdict.failed == ("one",)


async def test_whoever_goes_away_stops_the_detectors() -> None:
    """A request that is cancelled leaves nothing running behind."""
    stopped = asyncio.Event()

    async def hang() -> list[Finding]:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return []

    task = asyncio.create_task(_examined(Scripted("one", hang)))
    await _turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _turns()
    assert stopped.is_set()


async def test_without_detectors_nobody_is_sure() -> None:
    """None asked is not none found."""
    assert (await _examined()).unclear == "No detector is set."


async def test_a_body_over_the_limit_is_unclear_and_nobody_is_asked() -> None:
    """Bytes count, not characters; exactly the limit is still looked through."""
    parts = (Part(("messages", 0, "content"), "ä" * 50),)
    at_limit = await examine(parts, [_says("one")], FakeClock(), TIMEOUT_MS, size_max_bytes=100)
    assert at_limit.unclear is None
    over = await examine(parts, [_fails("one", AssertionError())], FakeClock(), TIMEOUT_MS, size_max_bytes=99)
    assert over.unclear == "The request is larger than the 99 bytes that are looked through."
    assert over.failed == ("one",)


@pytest.mark.parametrize(("part", "start", "end"), [(0, 5, 5), (0, 0, 19), (0, -1, 3), (1, 0, 1), (-1, 0, 1)])
async def test_a_finding_outside_the_text_is_a_fault(part: int, start: int, end: int) -> None:
    """A detector that points beside the text has not understood it; its sound findings count."""
    wrong = Finding("personal", "PERSON", part, start, end, "one")
    verdict = await _examined(_says("one", wrong, PETRA))
    assert verdict.findings == (PETRA,)
    assert verdict.unclear == "The detector one found something outside the text."


async def test_what_overlaps_becomes_one_that_spans_all() -> None:
    """The surest says what it is; all who found it are named; another kind stays apart."""
    whole = Finding("personal", "ADDRESS", 0, 6, 18, "two", 0.9)
    secret = Finding("secret", "PASSWORD", 0, 15, 18, "three", 0.8)
    lives = Finding("personal", "PERSON", 0, 0, 11, "one", 0.5)
    assert merged([secret, whole, lives]) == (
        Finding("personal", "ADDRESS", 0, 0, 18, "one+two", 0.9),
        secret,
    )


_FINDINGS = st.builds(
    lambda kind, part, start, size, name, score: Finding(kind, "X", part, start, start + size, name, score),
    st.sampled_from(["personal", "secret"]),
    st.integers(0, 2),
    st.integers(0, 20),
    st.integers(1, 8),
    st.sampled_from(["one", "two"]),
    st.sampled_from([0.5, 1.0]),
)


@given(found=st.lists(_FINDINGS, max_size=12))
def test_merging_loses_and_adds_no_character(found: list[Finding]) -> None:
    """Every character that somebody found is in exactly one finding of its kind, and no other character is."""

    def covered(findings: Sequence[Finding]) -> list[tuple[str, int, int]]:
        return [(one.kind, one.part, at) for one in findings for at in range(one.start, one.end)]

    result = merged(found)
    assert sorted(covered(result)) == sorted(set(covered(found)))
    assert merged(result) == result


async def test_a_detector_that_computes_leaves_the_event_loop_free() -> None:
    """The busy detector waits for a step that only the loop can take: if it held the loop, neither would go on."""
    begun, let_go = Event(), Event()

    def compute(stop: Event) -> list[Finding]:
        begun.set()
        assert let_go.wait(REAL_MS_MAX / 1000)
        assert not stop.is_set()
        return [PETRA]

    task = asyncio.create_task(_examined(Scripted("one", lambda: in_thread(compute))))
    assert await asyncio.to_thread(begun.wait, REAL_MS_MAX / 1000)
    assert not task.done()
    let_go.set()
    assert (await task).findings == (PETRA,)


async def test_a_detector_in_its_thread_is_told_to_stop() -> None:
    """When its time is over, the thread learns it, so that no thread computes for nobody."""
    clock, begun, told = FakeClock(), Event(), Event()

    def compute(stop: Event) -> list[Finding]:
        begun.set()
        if stop.wait(REAL_MS_MAX / 1000):
            told.set()
        return []

    task = asyncio.create_task(examine(PARTS, [Scripted("one", lambda: in_thread(compute))], clock, TIMEOUT_MS))
    assert await asyncio.to_thread(begun.wait, REAL_MS_MAX / 1000)
    clock.advance(timedelta(milliseconds=TIMEOUT_MS))
    assert (await task).unclear == "The detector one took too long."
    assert await asyncio.to_thread(told.wait, REAL_MS_MAX / 1000)


async def test_the_real_ones_together_say_what_a_body_holds_and_open_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """System prompt, history, a tool's result and a file's name are looked through; nobody is asked over a network."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"something asked the network: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "The user's address is petra@example.org."},
            {"role": "user", "content": "my password is hunter2!"},
            {"role": "tool", "tool_call_id": "1", "content": '{"iban": "DE89370400440532013000"}'},
            {"role": "user", "content": "Open Kündigung_Meier.docx:\n```\nimport os\n```"},
        ],
    }
    verdict = await examine(parts_of(body), [Code(), Secrets(), Structured()], SystemClock(), REAL_MS_MAX)
    assert verdict.unclear is None
    assert {(finding.kind, finding.type) for finding in verdict.findings} >= {
        ("personal", "EMAIL"),
        ("secret", "PASSWORD"),
        ("personal", "IBAN"),
        ("file", "FILE_NAME"),
        ("code", "CODE"),
    }
    assert set(verdict.detectors) == {"code", "secrets", "structured"}


async def _turns() -> None:
    """Let everything that can go on do so."""
    loop = asyncio.get_running_loop()
    for _ in range(10):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
