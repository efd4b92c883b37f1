"""What is to be known about a request before it may leave, found out; and the decision that follows from it.

    who asks, policies, conversation ─► an offer ─► the exact body ─► what stands in it ─► decision (server/privacy)

Nothing is sent from here, and no connection is opened but to Postgres, and through the pipeline to a local model. The
local model is asked last, and only where nothing else keeps the request here: it takes a slot of an engine. Where
pseudonyms are needed the body is made anew, and that is the one that leaves.
"""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import select

from server.accounts.quotas import Quotas
from server.chat.pipeline import Identify
from server.clock import Clock
from server.cloud.consents import Found, Question
from server.cloud.marking import MakeRestorer
from server.cloud.prices import reserved_micros
from server.cloud.protocol import CloudModel, Provider
from server.cloud.sending import Outbound
from server.db.models import Conversation
from server.db.session import Database
from server.errors import InvalidRequest
from server.messages import ModelRequest, Principal
from server.privacy.decision import Decision, Facts, decide
from server.privacy.findings import Detector, Finding, Verdict, examine, merged
from server.privacy.modes import MODES, Wish, wish_of
from server.privacy.payload import Part, TooDeep, parts_of
from server.privacy.policies import Policies
from server.privacy.policy import InForce, Wishes, resolve
from server.privacy.spend import MICROS_PER_CENT
from server.privacy.words import words_for

FINDINGS_SHOWN_MAX = 100
EXCERPT_CHARACTERS_MAX = 80

Offer = tuple[Provider, CloudModel]


class Offering(Protocol):
    """The providers as of one version (server/cloud/providers.py)."""

    @property
    def version(self) -> int:
        """Of policies and providers."""
        ...

    def offers(self, local_model: str) -> Sequence[Offer]:
        """Who has a model that stands in for this one, the cheapest first."""
        ...


class Replaced(Struct, frozen=True):
    """A body with pseudonyms in it, and what takes these out of an answer again."""

    body: bytes
    restorer: MakeRestorer


# What a body becomes for one person in one conversation. Raises ValueError where it cannot be done safely.
Replace = Callable[[UUID, str, dict[str, Any], Sequence[Part], Sequence[Finding]], Awaitable[Replaced]]
# The detector that asks a local model, which may take so long, in the name of whoever asks.
ByModel = Callable[[str, int, ModelRequest, Identify], Detector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """What came of looking at a request.

    Attributes:
        outbound: what would leave; None where it stays, or where nobody came that far.
        restorer: of its answer; None: nothing is replaced.
        found: what stands in the body.
    """

    decision: Decision
    principal: Principal
    outbound: Outbound | None = None
    restorer: MakeRestorer | None = None
    found: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A request in the midst of it."""

    request: ModelRequest
    principal: Principal
    identify: Identify
    version: int
    conversation_says: str | None
    facts: Facts
    in_force: InForce
    offer: Offer | None


class Deciding:
    """Decides.

    Args:
        offering: the providers as they are now; asked again with True where what is remembered may be old.
        by_form: detectors that need no model.
        by_model: the one that does.
    """

    def __init__(  # noqa: PLR0913 (what it asks)
        self,
        *,
        database: Database,
        clock: Clock,
        quotas: Quotas,
        policies: Policies,
        offering: Callable[[bool], Awaitable[Offering]],
        by_form: Sequence[Detector],
        by_model: ByModel,
        replaced: Replace,
    ) -> None:
        self._database = database
        self._clock = clock
        self._quotas = quotas
        self._policies = policies
        self._offering = offering
        self._by_form = by_form
        self._by_model = by_model
        self._replaced = replaced

    async def patience_ms(self, user_id: UUID) -> int:
        """How long a person waits on this box before a cloud is considered. Raises Unavailable."""
        return resolve((await self._policies.of(user_id)).scopes).patience_ms.value

    async def limit_micros(self, principal: Principal) -> int | None:
        """What a person may spend on clouds in a month, now."""
        limits, _ = await self._quotas.of(principal)
        cents = limits.cloud_cents_per_month
        return None if cents is None else cents * MICROS_PER_CENT

    async def consider(
        self, request: ModelRequest, identify: Identify, *, wait_ms: int | None, is_refused: bool
    ) -> Considered:
        """Look at a request, and decide.

        Args:
            wait_ms: how long it waits here, or is expected to.
            is_refused: this box does not take it.

        Raises:
            WirthforgeError: something that must be known is not to be had; it stays then.
        """
        case = await self._case(request, identify, wait_ms=wait_ms, is_refused=is_refused)
        decision = decide(case.facts)
        if case.offer is None or decision.rule != "unclear":
            return Considered(decision=decision, principal=case.principal)
        provider, model = case.offer
        try:
            body = provider.compose(request, request.body, model)
            read = msgspec.json.decode(body, type=dict[str, Any])
            parts = parts_of(read)
        except (InvalidRequest, TooDeep) as error:
            return Considered(decision=_stays(str(error)), principal=case.principal)
        facts, decision = await self._examined(case, body, parts)
        return await self._made(case, facts, decision, body, read, parts)

    async def _case(self, request: ModelRequest, identify: Identify, *, wait_ms: int | None, is_refused: bool) -> _Case:
        principal = await identify()
        limits, _ = await self._quotas.of(principal)
        standing = await self._policies.read(principal.id)
        offering = await self._offering(False)  # noqa: FBT003 (a callable takes no names)
        if offering.version != standing.version:
            offering = await self._offering(True)  # noqa: FBT003
        says, wish = await self._conversation(principal, request.cloud.conversation_id)
        wishes = Wishes(conversation=wish, request=_wish(request.cloud.mode))
        scopes = standing.scopes
        in_force, offer = resolve(scopes, wishes), None
        known = [
            (resolve(scopes, wishes, provider.name, model.name), (provider, model))
            for provider, model in offering.offers(request.model)
        ]
        if known:
            # Of those that permit as much the cheapest.
            in_force, offer = max(known, key=lambda each: MODES.index(each[0].mode.value))
        facts = Facts(
            is_on=in_force.is_on.value,
            is_private=in_force.private_by is not None,
            stands_in=bool(known) if offering.version == standing.version else None,
            is_council_part=request.council_id is not None or request.is_revocable,
            in_force=in_force,
            budget=await self._policies.budget(principal.id, limits.cloud_cents_per_month),
            wait_ms=wait_ms,
            is_refused=is_refused,
        )
        return _Case(
            request=request,
            principal=principal,
            identify=identify,
            version=standing.version,
            conversation_says=says,
            facts=facts,
            in_force=in_force,
            offer=offer,
        )

    async def _conversation(self, principal: Principal, conversation_id: UUID | None) -> tuple[str | None, Wish | None]:
        """What the conversation says, as it stands there and as it is meant; one that is gone is private."""
        if conversation_id is None:
            return None, None
        query = select(Conversation.cloud).where(Conversation.id == conversation_id)
        async with self._database.transaction(of=principal.id) as session:
            row = (await session.execute(query)).first()
        return (None, "private") if row is None else (row.cloud, _wish(row.cloud))

    async def _examined(self, case: _Case, body: bytes, parts: Sequence[Part]) -> tuple[Facts, Decision]:
        """What stands in it, by form; then, if nothing else keeps it here, what a local model finds."""
        assert case.offer is not None, "there is somebody to send it to"
        said, model = case.in_force, case.offer[1]
        by_form = await examine(parts, self._by_form, self._clock, said.detection_ms.value)
        price = reserved_micros(body, case.request.body, model)
        facts = replace(case.facts, by_form=by_form, price_micros=price)
        decision = decide(facts)
        may_leave = decision.outcome != "local" or (decision.rule == "unclear" and by_form.unclear is None)
        if may_leave and said.detection_model.value:
            name, limit_ms = said.detection_model.value, said.detection_ms.value
            detector = self._by_model(name, limit_ms, case.request, case.identify)
            facts = replace(facts, by_model=await examine(parts, [detector], self._clock, limit_ms))
            decision = decide(facts)
        return facts, decision

    async def _made(
        self,
        case: _Case,
        facts: Facts,
        decision: Decision,
        body: bytes,
        read: dict[str, Any],
        parts: Sequence[Part],
    ) -> Considered:
        """What would leave, exactly."""
        verdicts = [each for each in (facts.by_form, facts.by_model) if each is not None]
        findings = merged(finding for each in verdicts for finding in each.findings)
        found = _shown(findings, parts)
        if decision.outcome == "local" or case.offer is None or facts.price_micros is None:
            return Considered(decision=decision, principal=case.principal, found=found)
        (provider, model), request = case.offer, case.request
        restorer = None
        if decision.form == "pseudonymised":
            # Without a conversation: what the same body asked again is given once more, so that a consent holds.
            place = str(request.cloud.conversation_id or hashlib.sha256(body).hexdigest())
            try:
                replaced = await self._replaced(case.principal.id, place, read, parts, findings)
            except ValueError:
                return Considered(decision=_stays(_NOT_REPLACED), principal=case.principal, found=found)
            body, restorer = replaced.body, replaced.restorer
        question = Question(
            request_id=request.id,
            user_id=case.principal.id,
            conversation_id=request.cloud.conversation_id,
            provider=provider.name,
            model=model.name,
            body=body,
            sha256=hashlib.sha256(body).digest(),
            findings=dict(Counter(finding.type for finding in findings)),
            found=found,
            sentence=decision.sentence,
            # Pseudonyms may be longer than what they stand for.
            reserved_micros=max(facts.price_micros, reserved_micros(body, request.body, model)),
        )
        assert decision.form is not None, "what leaves has a form"
        outbound = Outbound(
            question=question,
            provider=provider,
            model=model,
            version=case.version,
            conversation_says=case.conversation_says,
            form=decision.form,
            detectors=_versions(verdicts),
            consent_id=None,
        )
        return Considered(
            decision=decision, principal=case.principal, outbound=outbound, restorer=restorer, found=found
        )


_NOT_REPLACED = "It stays on this box: not everything in it that would have to be replaced can be."


def _stays(sentence: str) -> Decision:
    return Decision(outcome="local", rule="unclear", form=None, sentence=sentence)


def _wish(word: str | None) -> Wish | None:
    """A word that nobody knows means the strictest there is."""
    try:
        return wish_of(word)
    except ValueError:
        return "private"


def _versions(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {name: version for each in verdicts for name, version in each.detectors.items()}


def _shown(findings: Sequence[Finding], parts: Sequence[Part]) -> tuple[Found, ...]:
    """For its person, who wrote it."""
    return tuple(
        Found(
            kind=each.kind,
            type=each.type,
            what=words_for(each.type, each.kind),
            where=".".join(map(str, parts[each.part].path)),
            text=parts[each.part].text[each.start : each.end][:EXCERPT_CHARACTERS_MAX],
        )
        for each in findings[:FINDINGS_SHOWN_MAX]
    )
