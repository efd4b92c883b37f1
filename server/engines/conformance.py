"""Does an engine keep the promises that sharing rests on? Asked once, with real requests, when it is registered.

- *stops*: its answer ends when its client goes. Seen on its own page of metrics (requests running); where it has none,
  nobody knows.
- *counts*: a stream ends with usage, as was asked for. Otherwise every event counts as a token.
- *continues*: an answer that was cut off goes on where it was, with nothing said twice and nothing left out: two greedy
  answers, cut at a third and at two thirds, must say what the whole one says. Some templates begin a new answer, and
  some engines repeat what they were given.
- *isolates*: of two people who send the same prompt, the second finds nothing of it in a cache, although the first, who
  sends it again, does. A pair, because an engine without a cache, or one that does not tell, proves nothing.

Each prompt holds a word that was never sent before, so old caches cannot answer. An engine that is in use is tested all
the same, but whether it stops cannot be told from its metrics then.
"""

import asyncio
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Struct

from server.clock import Clock
from server.engines.continuation import Record
from server.engines.metrics import read_running
from server.engines.protocol import Engine, Resumes
from server.errors import WirthforgeError
from server.messages import Surface, Written

WORDS = 300
LONG_TOKENS = 2048
SHORT_TOKENS = 4
STOPS_MS_MAX = 2_000
# A model may be brief.
LEAVINGS_MAX = 5
# What the questions before have left behind.
IDLE_MS_MAX = 5_000
LOOK_EVERY_MS = 50
TEST_MS_MAX = 120_000
CUT_PROMPT = "Tell me in some sentences what the sea is like."
CUT_TOKENS, CUT_PIECES_MIN, CUT_CHARACTERS = 24, 2, 8

log = structlog.get_logger(__name__)

Verdict = Literal["yes", "no", "unknown"]


class Conformance(Struct, frozen=True, kw_only=True):
    """What was found; `error` where the engine could not even be asked."""

    stops: Verdict = "unknown"
    counts: Verdict = "unknown"
    isolates: Verdict = "unknown"
    continues: Verdict = "unknown"
    stopped_after_ms: int | None = None
    error: str | None = None


async def examine(engine: Engine, model: str, nonce: str, clock: Clock) -> Conformance:
    """Test an engine with one of its models.

    Args:
        nonce: a text that no prompt ever held.
    """
    test = _Test(engine, model, nonce, clock)
    try:
        async with asyncio.timeout(TEST_MS_MAX / 1000):
            counts, isolates = await test.caches()
            continues = await test.continuing()
            stops, after_ms = await test.stopping()
    except (WirthforgeError, TimeoutError) as error:
        reason = error.message if isinstance(error, WirthforgeError) else "It took too long."
        log.warning("engine could not be tested", engine=engine.name, reason=reason)
        return Conformance(error=reason)
    return Conformance(stops=stops, counts=counts, isolates=isolates, continues=continues, stopped_after_ms=after_ms)


class _Test:
    """The questions, one after the other."""

    def __init__(self, engine: Engine, model: str, nonce: str, clock: Clock) -> None:
        self._engine = engine
        self._model = model
        self._nonce = nonce
        self._clock = clock
        self._asked = 0

    async def caches(self) -> tuple[Verdict, Verdict]:
        """Whether it counts, and whether it keeps two people apart."""
        prompt = f"{self._nonce} " + " ".join(f"word{number}" for number in range(WORDS))
        first = await self._usage(prompt, "one")
        again = await self._usage(prompt, "one")
        other = await self._usage(prompt, "other")
        counts: Verdict = "yes" if first is not None and _is_plausible(first) else "no"
        if again is None or other is None or not (own := _cached(again)):
            return counts, "unknown"
        # A template's first words are everybody's.
        return counts, "no" if _cached(other) > own // 2 else "yes"

    async def continuing(self) -> Verdict:
        """Whether it goes on with an answer where that was cut off."""
        engine, prompt = self._engine, f"{self._nonce} {CUT_PROMPT}"
        if not isinstance(engine, Resumes) or not engine.continues:
            return "no"
        body = _body(self._model, prompt, CUT_TOKENS) | {"temperature": 0}
        if "chat.completions" not in engine.continues:
            body = {name: value for name, value in body.items() if name != "messages"} | {"prompt": prompt}
        whole = await self._cut(engine, body, None)
        cuts = [len(whole.pieces) // 3, len(whole.pieces) * 2 // 3]
        if cuts[0] < CUT_PIECES_MIN:
            return "unknown"
        matches = 0
        for cut in cuts:
            begun = Written(whole.pieces[:cut], cut)
            rest = whole.text[len(begun.text) :]
            try:
                found = (await self._cut(engine, body, begun)).text
            except WirthforgeError as error:
                log.info("engine does not go on", engine=engine.name, reason=error.message)
                return "no"
            matches += found[:CUT_CHARACTERS] == rest[:CUT_CHARACTERS]
        # Cut into other tokens an answer may differ sooner or later, once.
        return "yes" if matches else "no"

    async def _cut(self, engine: Resumes, body: dict[str, Any], begun: Written | None) -> Written:
        """The whole answer, or what comes after its beginning."""
        self._asked += 1
        request, salt, record = f"{self._nonce}-{self._asked}", f"{self._nonce}-one", Record()
        surface: Surface = "chat.completions" if "messages" in body else "completions"
        if begun is None:
            reply = await self._engine.open(surface, engine.traced(body), request, salt)
        else:
            reply, _ = await engine.resume(surface, body, begun, request, salt)
        try:
            record.keep(await reply.read())
        finally:
            reply.close()
        return record.written(0)

    async def stopping(self) -> tuple[Verdict, int | None]:
        """Whether it stops when its client goes, and after how long."""
        if await self._idle_after_ms(IDLE_MS_MAX) is None:
            return "unknown", None  # it does not tell, or others run on it
        for _ in range(LEAVINGS_MAX):
            reply = await self._open("count to a million", "one", LONG_TOKENS)
            try:
                await anext(reply.chunks(), b"")
                is_running = await self._running()
            finally:
                reply.close()
            if is_running:
                break
        else:
            return "unknown", None  # its answers were over before anybody could leave
        after_ms = await self._idle_after_ms(STOPS_MS_MAX)
        return ("no", None) if after_ms is None else ("yes", after_ms)

    async def _idle_after_ms(self, ms_max: int) -> int | None:
        """How long until nothing runs there; None if that does not come in time, or is not told."""
        began_ms = self._clock.monotonic_ms()
        while (running := await self._running()) != 0:
            if running is None or self._clock.monotonic_ms() - began_ms > ms_max:
                return None
            await self._clock.sleep_ms(LOOK_EVERY_MS)
        return self._clock.monotonic_ms() - began_ms

    async def _running(self) -> int | None:
        page = await self._engine.metrics()
        return None if page is None else read_running(page)

    async def _open(self, prompt: str, person: str, tokens: int) -> Any:  # noqa: ANN401 (a Reply)
        self._asked += 1
        salt = f"{self._nonce}-{person}"
        body = _body(self._model, prompt, tokens)
        return await self._engine.open("chat.completions", body, f"{self._nonce}-{self._asked}", salt)

    async def _usage(self, prompt: str, person: str) -> dict[str, Any] | None:
        reply = await self._open(prompt, person, SHORT_TOKENS)
        try:
            events = await reply.read()
        finally:
            reply.close()
        found = None
        for line in events.splitlines():
            if line.startswith(b"data:") and b'"usage"' in line:
                try:
                    event = msgspec.json.decode(line.removeprefix(b"data:"))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                if isinstance(event, dict) and isinstance(event.get("usage"), dict):
                    found = event["usage"]
        return found


def _body(model: str, prompt: str, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
    }


def _is_plausible(usage: dict[str, Any]) -> bool:
    read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return isinstance(read, int) and isinstance(wrote, int) and read > 0 and 0 <= wrote <= SHORT_TOKENS * 2


def _cached(usage: dict[str, Any]) -> int:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else 0
