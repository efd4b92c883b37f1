"""What may leave, over HTTP: what people say for themselves, what admins bound, and what is in force and why."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, put
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody
from litestar.params import FromPath, RawBody
from msgspec import UNSET, Meta, Struct, UnsetType

from server.accounts.quotas import Quotas
from server.cloud.providers import Providers
from server.cloud.registry import NO_SEAL
from server.engines.pool import Pool
from server.errors import InvalidRequest
from server.messages import Principal
from server.privacy.checks import BOUNDS, MEANINGS, stored
from server.privacy.modes import Mode, OnPersonalData
from server.privacy.policies import BOX, Actor, Cap, Policies, Target, Whose
from server.privacy.policy import Policy, Said, Scopes, Winner, resolve

# A hundred exceptions, however they are escaped.
BODY_BYTES_MAX = 1024 * 1024


class CloudException(Struct):
    """Another mode for some providers and models: names, or patterns with `*`."""

    provider: str
    mode: Mode
    model: str = "*"


def _meant(name: str) -> Meta:
    """What the schema tells. The policy itself is checked by server/privacy/checks.py, whose sentences are better."""
    least, most = BOUNDS.get(name, (None, None))
    return Meta(ge=least, le=most, description=MEANINGS[name])


class CloudRule(Struct, kw_only=True):
    """What one scope says; a field that is absent says nothing. The last four and `is_on` are the box's alone."""

    is_on: Annotated[bool, _meant("is_on")] | UnsetType = UNSET
    mode: Annotated[Mode, _meant("mode")] | UnsetType = UNSET
    on_personal_data: Annotated[OnPersonalData, _meant("on_personal_data")] | UnsetType = UNSET
    allows_code: Annotated[bool, _meant("allows_code")] | UnsetType = UNSET
    for_: Annotated[list[CloudException], _meant("for")] | UnsetType = msgspec.field(default=UNSET, name="for")
    patience_ms: Annotated[int, _meant("patience_ms")] | UnsetType = UNSET
    council_members: Annotated[bool, _meant("council_members")] | UnsetType = UNSET
    detection_model: Annotated[str, _meant("detection_model")] | UnsetType = UNSET
    detection_ms: Annotated[int, _meant("detection_ms")] | UnsetType = UNSET


class CloudValue(Struct):
    """A value in force, and who said it: `box`, `cap`, `own`, `conversation`, `request` or `built-in`."""

    value: bool | int | str
    won_by: Winner


class CloudTarget(Struct):
    """What is in force for a model of a provider.

    Attributes:
        won_by: who said the mode.
        replaces: whether personal data is replaced in whatever leaves, also where its person is asked.
    """

    provider: str
    model: str
    mode: Mode
    won_by: Winner
    on_personal_data: CloudValue
    replaces: CloudValue


class CloudBudget(Struct):
    """What one's requests to clouds may cost and have cost this month (UTC), in millionths of the admin's currency.

    Attributes:
        limit_micros: null: unlimited; 0: nothing may leave.
        reserved_micros: by requests that still run.
    """

    limit_micros: int | None
    spent_micros: int
    reserved_micros: int


class CloudStanding(Struct):
    """What may leave of the caller's requests, and who said so.

    Attributes:
        mode: in general; `in_force` has it for each model of each provider.
        own, cap, box: what each of them says: the caller, an admin about the caller, and an admin about everybody.
        problems: sentences on what keeps requests here, or lets less leave than was meant.
    """

    is_on: bool
    mode: CloudValue
    in_force: list[CloudTarget]
    on_personal_data: CloudValue
    allows_code: CloudValue
    patience_ms: CloudValue
    own: CloudRule
    cap: CloudRule
    box: CloudRule
    budget: CloudBudget
    problems: list[str]


class CloudCap(Struct):
    """What an admin allows one person at the most; an empty policy where no bound is set."""

    user_id: UUID
    name: str
    policy: CloudRule


class CloudBox(Struct):
    """What an admin says for everybody, the bounds of single people, and what is wrong with it."""

    policy: CloudRule
    caps: list[CloudCap]
    problems: list[str]


@dataclass
class CloudRuleOperation(Operation):
    """PUT of a policy. Its body is read as it is, since its sentences say more than a schema's."""

    def __post_init__(self) -> None:
        reference = Reference(ref="#/components/schemas/CloudRule")
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(reference)})


class CloudPolicies(Controller):
    """One's own policy."""

    path = "/api/cloud"
    tags = ("Cloud",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/")
    async def own_standing(
        self,
        principal: NamedDependency[Principal],
        cloud_policies: NamedDependency[Policies],
        quotas: NamedDependency[Quotas],
        cloud_providers: NamedDependency[Providers],
        pool: NamedDependency[Pool],
    ) -> CloudStanding:
        """What may leave of one's own requests, and which rule says so."""
        return await _standing(principal, cloud_policies, quotas, _Surroundings(cloud_providers, pool))

    @put("/policy", operation_class=CloudRuleOperation)
    async def set_own(
        self,
        body: RawBody,
        principal: NamedDependency[Principal],
        cloud_policies: NamedDependency[Policies],
        quotas: NamedDependency[Quotas],
        cloud_providers: NamedDependency[Providers],
        pool: NamedDependency[Pool],
    ) -> CloudStanding:
        """Replace one's own policy. Nobody else can, and nobody else's can be."""
        await cloud_policies.set(_actor(principal), Whose.own_of(principal.id), _parsed(body))
        return await _standing(principal, cloud_policies, quotas, _Surroundings(cloud_providers, pool))


class CloudPolicyAdmin(Controller):
    """The box's policy, and bounds of single people. The `admin` dependency refuses members."""

    path = "/api/admin/cloud"
    tags = ("Cloud",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/policy")
    async def show_box(
        self,
        admin: NamedDependency[Principal],
        cloud_policies: NamedDependency[Policies],
        cloud_providers: NamedDependency[Providers],
        pool: NamedDependency[Pool],
    ) -> CloudBox:
        """What is said for everybody."""
        return await _box(cloud_policies, _Surroundings(cloud_providers, pool))

    @put("/policy", operation_class=CloudRuleOperation)
    async def set_box(
        self,
        body: RawBody,
        admin: NamedDependency[Principal],
        cloud_policies: NamedDependency[Policies],
        cloud_providers: NamedDependency[Providers],
        pool: NamedDependency[Pool],
    ) -> CloudBox:
        """Replace what is said for everybody."""
        await cloud_policies.set(_actor(admin), BOX, _parsed(body))
        return await _box(cloud_policies, _Surroundings(cloud_providers, pool))

    @get("/caps/{user_id:uuid}")
    async def show_cap(
        self, user_id: FromPath[UUID], admin: NamedDependency[Principal], cloud_policies: NamedDependency[Policies]
    ) -> CloudCap:
        """What a person may choose at the most. What they chose is theirs, and not told."""
        return _cap(await cloud_policies.cap(user_id))

    @put("/caps/{user_id:uuid}", operation_class=CloudRuleOperation)
    async def set_cap(
        self,
        user_id: FromPath[UUID],
        body: RawBody,
        admin: NamedDependency[Principal],
        cloud_policies: NamedDependency[Policies],
    ) -> CloudCap:
        """Replace a person's bound."""
        await cloud_policies.set(_actor(admin), Whose.cap_of(user_id), _parsed(body))
        return _cap(await cloud_policies.cap(user_id))

    @delete("/caps/{user_id:uuid}")
    async def clear_cap(
        self, user_id: FromPath[UUID], admin: NamedDependency[Principal], cloud_policies: NamedDependency[Policies]
    ) -> None:
        """Remove a person's bound."""
        await cloud_policies.set(_actor(admin), Whose.cap_of(user_id), {})


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What policies need to be of any use."""

    providers: Providers
    pool: Pool

    async def problems(self, box: Policy, targets: Sequence[Target]) -> list[str]:
        """Why nothing leaves, or less than was meant."""
        found = []
        if not box.is_on:
            found.append("The cloud is switched off on this box: nothing leaves.")
        if not self.providers.has_seal:
            found.append(NO_SEAL)
        found += [each for each in (await self.providers.current()).problems if each not in found]
        if not targets:
            found.append("No provider has a model that may be asked: nothing leaves.")
        if not box.detection_model:
            found.append(f"No detection model is set: {_ONLY_ASKED}")
        elif not any(route.model.id == box.detection_model for route in self.pool.routes()):
            found.append(f"No engine serves the detection model {box.detection_model!r} now: {_ONLY_ASKED}")
        return found


_ONLY_ASKED = "patterns alone miss most personal data, so nothing leaves unless its person is asked (the mode `ask`)."


async def _standing(
    principal: Principal, policies: Policies, quotas: Quotas, surroundings: _Surroundings
) -> CloudStanding:
    scopes = (await policies.read(principal.id)).scopes
    targets = await policies.targets()
    limits = (await quotas.in_force(principal.id)).limits
    budget = await policies.budget(principal.id, limits.cloud_cents_per_month)
    said = resolve(scopes)
    problems = await surroundings.problems(scopes.box, targets)
    if budget.limit_micros == 0:
        problems.append("Your budget for clouds is 0, so nothing leaves. An admin can raise it.")
    return CloudStanding(
        is_on=said.is_on.value,
        mode=_value(said.mode),
        in_force=[_target(scopes, target) for target in targets],
        on_personal_data=_value(said.on_personal_data),
        allows_code=_value(said.allows_code),
        patience_ms=_value(said.patience_ms),
        own=_rule(scopes.own),
        cap=_rule(scopes.cap),
        box=_rule(scopes.box),
        budget=CloudBudget(budget.limit_micros, budget.spent_micros, budget.reserved_micros),
        problems=problems,
    )


async def _box(policies: Policies, surroundings: _Surroundings) -> CloudBox:
    policy = await policies.box()
    problems = await surroundings.problems(policy, await policies.targets())
    return CloudBox(_rule(policy), [_cap(each) for each in await policies.caps()], problems)


def _target(scopes: Scopes, target: Target) -> CloudTarget:
    said = resolve(scopes, provider=target.provider, model=target.model)
    return CloudTarget(
        provider=target.provider,
        model=target.model,
        mode=said.mode.value,
        won_by=said.mode.won_by,
        on_personal_data=_value(said.on_personal_data),
        replaces=_value(said.replaces),
    )


def _value(said: Said[Any]) -> CloudValue:
    return CloudValue(said.value, said.won_by)


def _rule(policy: Policy) -> CloudRule:
    return msgspec.convert(stored(policy), CloudRule)


def _cap(cap: Cap) -> CloudCap:
    return CloudCap(cap.user_id, cap.name, _rule(cap.policy))


def _actor(principal: Principal) -> Actor:
    return Actor(principal.name, principal.id)


def _parsed(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("The body is no JSON object of fields of a policy.") from error
