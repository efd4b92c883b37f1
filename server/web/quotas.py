"""Quotas over HTTP: what admins set, what is in force and why, and who changed it."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, get_args
from uuid import UUID

import msgspec
import structlog
from litestar import Controller, delete, get, put
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody
from litestar.params import FromPath, RawBody
from msgspec import UNSET, Meta, Struct, UnsetType

from quotas.policy import AMOUNTS, LIMITS, MEANINGS, Limits, Resolved, Rule
from server.accounts.access import FRESH_MS
from server.accounts.quotas import DEFAULT, Actor, Change, Quotas, Scope
from server.db.models import User as UserRow
from server.engines.pool import Pool
from server.errors import InvalidRequest, NotFound
from server.messages import Principal, Role

# A hundred names of models, however they are escaped.
BODY_BYTES_MAX = 512 * 1024

log = structlog.get_logger(__name__)


def _meta(name: str) -> Meta:
    """What the schema tells of a limit. The rule itself is checked by quotas/policy.py, whose sentences are better."""
    amount = AMOUNTS[name]
    return Meta(ge=amount.least, le=amount.most, description=MEANINGS[name])


class QuotaRule(Struct):
    """Limits that a rule sets. One that is absent is inherited; null is unlimited."""

    weight: Annotated[int, _meta("weight")] | UnsetType = UNSET
    requests_per_minute: Annotated[int, _meta("requests_per_minute")] | UnsetType | None = UNSET
    tokens_per_minute: Annotated[int, _meta("tokens_per_minute")] | UnsetType | None = UNSET
    tokens_per_day: Annotated[int, _meta("tokens_per_day")] | UnsetType | None = UNSET
    tokens_per_month: Annotated[int, _meta("tokens_per_month")] | UnsetType | None = UNSET
    in_flight_max: Annotated[int, _meta("in_flight_max")] | UnsetType | None = UNSET
    queue_length_max: Annotated[int, _meta("queue_length_max")] | UnsetType | None = UNSET
    context_tokens_max: Annotated[int, _meta("context_tokens_max")] | UnsetType | None = UNSET
    council_size_max: Annotated[int, _meta("council_size_max")] | UnsetType | None = UNSET
    council_steps: Annotated[list[str] | UnsetType | None, Meta(description=MEANINGS["council_steps"])] = UNSET
    models: Annotated[list[str] | UnsetType | None, Meta(description=MEANINGS["models"])] = UNSET
    cloud_cents_per_month: Annotated[int, _meta("cloud_cents_per_month")] | UnsetType | None = UNSET


class LimitInForce(Struct):
    """A limit, and the rule that won: `user ann`, `role member`, `default`, or `built-in`. Null is unlimited."""

    value: int | list[str] | None
    rule: str


class QuotaPerson(Struct):
    """Whom a rule is for."""

    id: UUID
    name: str
    role: Role


class QuotaStanding(Struct):
    """The rule of a scope, and every limit that is in force there.

    Attributes:
        scope: `default`, `role member`, `user ann`.
        warnings: sentences about what was accepted and may not be meant.
    """

    scope: str
    user: QuotaPerson | None
    rule: QuotaRule
    limits: dict[str, LimitInForce]
    warnings: list[str]


class RoleQuota(Struct):
    """The rule of a role."""

    role: Role
    rule: QuotaRule
    updated_at: datetime


class UserQuota(Struct):
    """The rule of a person."""

    user: QuotaPerson
    rule: QuotaRule
    updated_at: datetime


class QuotaRules(Struct):
    """All rules; `built_in` holds where none of them speaks."""

    built_in: QuotaRule
    default: QuotaRule
    roles: list[RoleQuota]
    users: list[UserQuota]


class OwnQuota(Struct):
    """Every limit of the caller."""

    limits: dict[str, LimitInForce]


class AuditRow(Struct):
    """One change. `actor_id` is null for the command line, `before` or `after` where there was no rule."""

    id: UUID
    at: datetime
    actor: str
    actor_id: UUID | None
    action: str
    subject: str
    subject_id: UUID | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass
class RuleOperation(Operation):
    """PUT of a rule. Its body is read as it is, because to leave a limit out is not to send null."""

    def __post_init__(self) -> None:
        reference = Reference(ref="#/components/schemas/QuotaRule")
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(reference)})


class QuotaAdmin(Controller):
    """Quotas of everybody. The `admin` dependency refuses members."""

    path = "/api/admin"
    tags = ("Quotas",)
    request_max_body_size = BODY_BYTES_MAX

    @get("/quotas")
    async def list_rules(self, admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]) -> QuotaRules:
        """Every rule that was set."""
        entries = await quotas.rules()
        return QuotaRules(
            built_in=_rule({name: Resolved(Limits(), {}).value(name) for name in LIMITS}),
            default=_rule(next((entry.rule for entry in entries if entry.scope == DEFAULT), {})),
            roles=[
                RoleQuota(entry.scope.role, _rule(entry.rule), entry.updated_at)
                for entry in entries
                if entry.scope.role is not None
            ],
            users=[
                UserQuota(_person(entry.user), _rule(entry.rule), entry.updated_at)
                for entry in entries
                if entry.user is not None
            ],
        )

    @put("/quotas/default", operation_class=RuleOperation)
    async def set_default(
        self,
        body: RawBody,
        admin: NamedDependency[Principal],
        quotas: NamedDependency[Quotas],
        pool: NamedDependency[Pool],
    ) -> QuotaStanding:
        """Replace the rule for everybody."""
        return await _set(DEFAULT, body, admin, quotas, pool)

    @delete("/quotas/default")
    async def clear_default(self, admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]) -> None:
        """Remove the rule for everybody; what is built in holds."""
        await _clear(DEFAULT, admin, quotas)

    @put("/quotas/roles/{role:str}", operation_class=RuleOperation)
    async def set_role(
        self,
        role: FromPath[str],
        body: RawBody,
        admin: NamedDependency[Principal],
        quotas: NamedDependency[Quotas],
        pool: NamedDependency[Pool],
    ) -> QuotaStanding:
        """Replace the rule of a role (`admin` or `member`)."""
        return await _set(_role(role), body, admin, quotas, pool)

    @delete("/quotas/roles/{role:str}")
    async def clear_role(
        self, role: FromPath[str], admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]
    ) -> None:
        """Remove the rule of a role."""
        await _clear(_role(role), admin, quotas)

    @get("/quotas/users/{user_id:uuid}")
    async def show_user(
        self, user_id: FromPath[UUID], admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]
    ) -> QuotaStanding:
        """What is in force for a person, and which rule won."""
        return await _standing(Scope.of_user(user_id), quotas, [])

    @put("/quotas/users/{user_id:uuid}", operation_class=RuleOperation)
    async def set_user(
        self,
        user_id: FromPath[UUID],
        body: RawBody,
        admin: NamedDependency[Principal],
        quotas: NamedDependency[Quotas],
        pool: NamedDependency[Pool],
    ) -> QuotaStanding:
        """Replace the rule of a person."""
        return await _set(Scope.of_user(user_id), body, admin, quotas, pool)

    @delete("/quotas/users/{user_id:uuid}")
    async def clear_user(
        self, user_id: FromPath[UUID], admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]
    ) -> None:
        """Remove the rule of a person."""
        await _clear(Scope.of_user(user_id), admin, quotas)

    @get("/audit")
    async def audit(self, admin: NamedDependency[Principal], quotas: NamedDependency[Quotas]) -> list[AuditRow]:
        """The newest changes, at most a hundred."""
        return [
            AuditRow(
                id=row.id,
                at=row.at,
                actor=row.actor_name,
                actor_id=row.actor_id,
                action=row.action,
                subject=row.subject,
                subject_id=row.subject_id,
                before=row.before,
                after=row.after,
            )
            for row in await quotas.audit()
        ]


@get("/api/quota", tags=["Quotas"])
async def own_quota(principal: NamedDependency[Principal], quotas: NamedDependency[Quotas]) -> OwnQuota:
    """One's own limits, and which rule set them."""
    return OwnQuota(_in_force(await quotas.in_force(principal.id)))


def _parsed(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("The body is no JSON object of limits and their values.") from error


async def _set(scope: Scope, body: bytes, admin: Principal, quotas: Quotas, pool: Pool) -> QuotaStanding:
    change = await quotas.set_rule(_actor(admin), scope, _parsed(body))
    return await _standing(scope, quotas, [*_unserved(change.rule, pool), *_unannounced(change)])


async def _clear(scope: Scope, admin: Principal, quotas: Quotas) -> None:
    _unannounced(await quotas.clear_rule(_actor(admin), scope))


async def _standing(scope: Scope, quotas: Quotas, warnings: Sequence[str]) -> QuotaStanding:
    standing = await quotas.standing(scope)
    return QuotaStanding(
        scope=standing.subject,
        user=None if standing.user is None else _person(standing.user),
        rule=_rule(standing.rule),
        limits=_in_force(standing.resolved),
        warnings=list(warnings),
    )


def _unserved(rule: Rule, pool: Pool) -> list[str]:
    """A warning for each name that fits no model now. It may be meant: engines come and go."""
    names = rule.get("models")
    served = [route.model.id for route in pool.routes()]
    return [
        f"No engine serves {name!r} now."
        for name in (names if isinstance(names, list) else [])
        if not any(map(Limits(models=(name,)).allows, served))
    ]


def _unannounced(change: Change) -> list[str]:
    """A warning, also in the log, where other replicas have not been told."""
    if change.is_announced:
        return []
    log.warning("a changed quota is not announced", holds_within_ms=FRESH_MS)
    return [f"Redis cannot be reached: the change holds within {FRESH_MS // 1000} seconds."]


def _in_force(resolved: Resolved) -> dict[str, LimitInForce]:
    return {name: LimitInForce(resolved.value(name), resolved.won[name]) for name in LIMITS}


def _rule(rule: Rule) -> QuotaRule:
    values: dict[str, Any] = {name: rule[name] for name in LIMITS if name in rule}
    return QuotaRule(**values)


def _person(row: UserRow) -> QuotaPerson:
    return QuotaPerson(row.id, row.name, "admin" if row.role == "admin" else "member")


def _actor(admin: Principal) -> Actor:
    return Actor(admin.name, admin.id)


def _role(name: str) -> Scope:
    for role in get_args(Role):
        if role == name:
            return Scope.of_role(role)
    raise NotFound(f"There is no role {name[:100]!r}. There are: {', '.join(get_args(Role))}.")
