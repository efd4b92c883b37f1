"""The way around the queue: who waits too long on a full box may be answered by somebody else's model.

    private, or the cloud is off ──────────────────────────────► the pipeline, and nothing else
    all others ─► the pipeline ─┬─ a slot, as ever ────────────► this box answers
                                └─ a wait longer than patience,
                                   or a refusal ─► one decision ─► hop.py

The pipeline knows nothing of this. It tells about every second where a waiting request stands; behind that a task finds
out whether the request may leave (deciding.py), asks its person if need be, and sends (sending.py). The request keeps
its place in the queue meanwhile, and leaves it in the moment in which the provider has begun to answer, by an exception
that `tell` raises. So a provider that fails costs nobody a place, and whichever answers first answers. If that is this
box, the provider is hung up on. A cloud never holds a slot here, and moves nobody else's place but forward.

A private request, and any request as long as the cloud is off, is handed to the pipeline with nothing of this around
it: from what it is given no object of a cloud can be reached.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog

from server.chat.pipeline import Answer, Identify, Way
from server.clock import Clock
from server.cloud.hop import Hop, Hops, Leaves, is_refusal
from server.errors import Unavailable
from server.messages import ModelRequest
from server.privacy.findings import Detector, examine
from server.privacy.payload import Part
from server.privacy.policies import Policies
from server.privacy.version import Version
from server.sharing.lease import Tell

LOOK_MS = 500
WARMING = (Part(("messages",), "Good morning, 12345."),)
WARMING_MS_MAX = 60_000

log = structlog.get_logger(__name__)


class Switch:
    """Whether the cloud is on, as this replica knows it. It only chooses a way: what leaves is checked at the send.

    Args:
        detectors: warmed up before the first request needs them; some take seconds to get ready.
    """

    def __init__(self, policies: Policies, version: Version, detectors: Sequence[Detector], clock: Clock) -> None:
        self._policies = policies
        self._version = version
        self._detectors = detectors
        self._clock = clock
        self._is_warm = False
        self._seen: int | None = None
        self.is_on = False

    async def look(self) -> None:
        """Look whether it was changed. Where nobody can tell, it is off."""
        try:
            known = await self._version.known()
            if known != self._seen:
                self.is_on = (await self._policies.box()).is_on is True
                self._seen = known
        except Unavailable as error:
            if self.is_on:
                log.warning("the cloud is off while nobody can tell whether it is on", reason=error.message)
            self.is_on, self._seen = False, None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            if self.is_on and not self._is_warm:
                self._is_warm = True
                await examine(WARMING, self._detectors, self._clock, WARMING_MS_MAX)
            await self._clock.sleep_ms(LOOK_MS)


class Overflow:
    """See the module. It is a `Way` like the pipeline, which it stands before."""

    def __init__(self, plain: Way, hops: Hops, switch: Switch) -> None:
        self._plain = plain
        self._hops = hops
        self._switch = switch

    async def answer(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None = None
    ) -> Answer:
        """As `Pipeline.answer`; whoever answers, the headers say it.

        Raises:
            ConsentRequired: this box does not take the request, and a cloud may if its person says yes.
        """
        if request.cloud.mode == "private" or request.surface != "chat.completions" or not self._switch.is_on:
            return await self._plain.answer(request, identify, stack, tell)
        hop = Hop(request, identify, tell, self._hops)
        local = await stack.enter_async_context(AsyncExitStack())
        # Unwound before it.
        stack.push_async_callback(hop.close)
        try:
            answer = await self._plain.answer(request, identify, local, hop.tell)
        except Leaves:
            await local.aclose()
            return await hop.answer()
        except Unavailable as refused:
            if not is_refusal(refused):
                hop.stay()
                raise
            await local.aclose()
            return await hop.after(refused)
        except BaseException:
            hop.stay()  # at once: nothing is sent for whoever has gone
            raise
        await hop.over()
        return answer
