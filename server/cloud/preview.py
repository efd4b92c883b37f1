"""What would leave this box of a request, and why it would or would not; nothing is sent, and nobody is asked."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from server.chat.pipeline import Identify
from server.clock import Clock, uuid7
from server.cloud.consents import Found
from server.cloud.deciding import Deciding
from server.messages import ModelRequest, Surface
from server.privacy.decision import Outcome, Rule
from server.privacy.modes import Form
from server.privacy.policy import Winner

Parse = Callable[[Surface, bytes, UUID], ModelRequest]


class Preview(Struct, frozen=True, kw_only=True):
    """The decision as it would be now, if this box could not take the request.

    Attributes:
        outcome: local, ask, send.
        rule: which question decided.
        sentence: why.
        won_by: whose word it was, where a policy decided.
        provider, model, form, body: where it would go, in which form, and exactly what; null where it stays.
        findings: what was found in it, also where that keeps it here.
        reserved_micros: what it may cost at the most, in millionths of the admin's currency.
    """

    outcome: Outcome
    rule: Rule
    sentence: str
    won_by: Winner | None
    provider: str | None = None
    model: str | None = None
    form: Form | None = None
    body: str | None = None
    findings: tuple[Found, ...] = ()
    reserved_micros: int | None = None


class Previews:
    """Makes them.

    Args:
        parse: checks a body of /v1/chat/completions.
    """

    def __init__(self, deciding: Deciding, parse: Parse, clock: Clock) -> None:
        self._deciding = deciding
        self._parse = parse
        self._clock = clock

    async def of(
        self, body: dict[str, Any], identify: Identify, *, wish: str | None, conversation_id: UUID | None
    ) -> Preview:
        """See `Preview`. The detection model is asked, as it would be.

        Raises:
            WirthforgeError: who asks may not, or something that must be known is not to be had.
        """
        request = self._parse("chat.completions", msgspec.json.encode(body), uuid7(self._clock.now()))
        cloud = replace(request.cloud, mode=wish or request.cloud.mode, conversation_id=conversation_id)
        request = replace(request, cloud=cloud)
        considered = await self._deciding.consider(request, identify, wait_ms=None, is_refused=True)
        decision, outbound = considered.decision, considered.outbound
        told = Preview(
            outcome=decision.outcome,
            rule=decision.rule,
            sentence=decision.sentence,
            won_by=decision.won_by,
            findings=considered.found,
        )
        if outbound is None:
            return told
        question = outbound.question
        return Preview(
            outcome=told.outcome,
            rule=told.rule,
            sentence=told.sentence,
            won_by=told.won_by,
            provider=question.provider,
            model=question.model,
            form=outbound.form,
            body=question.body.decode(),
            findings=told.findings,
            reserved_micros=question.reserved_micros,
        )
