"""What may leave this box, where to, and what did."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base

SCOPES = ("box", "cap", "own")


class CloudPolicy(Base):
    """What an admin says for the box (`box`) or allows one person at the most (`cap`), or a person wants (`own`).

    `user_id` is NULL for the box alone. No foreign key: a person's removal deletes them (server/upkeep).
    """

    __tablename__ = "cloud_policies"
    __table_args__ = (
        CheckConstraint(f"scope IN ({', '.join(map(repr, SCOPES))})", name="scope"),
        CheckConstraint("(scope = 'box') = (user_id IS NULL)", name="person"),
        Index("ix_cloud_policies_scope_user_id", "scope", "user_id", unique=True, postgresql_nulls_not_distinct=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    scope: Mapped[str]
    user_id: Mapped[UUID | None]
    policy: Mapped[dict[str, Any]] = mapped_column(JSONB)
    updated_at: Mapped[datetime]


class CloudVersion(Base):
    """One row: counts every change of a policy or a provider. Who sends holds it FOR SHARE, who changes FOR UPDATE."""

    __tablename__ = "cloud_version"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class CloudProvider(Base):
    """Somebody else's models. `sealed_key` is the API key, encrypted (server/privacy/sealed.py).

    `models` is a list of what it offers, with prices and for which local models each stands in.
    """

    __tablename__ = "cloud_providers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    url: Mapped[str]
    sealed_key: Mapped[bytes]
    models: Mapped[list[Any]] = mapped_column(JSONB)
    is_enabled: Mapped[bool]
    updated_at: Mapped[datetime]


class CloudConsent(Base):
    """One question to a person whether one exact body may leave, and the answer.

    `id` is the digest of the token that its person has. `body_sha256` is of the body that would be sent.
    `given_at`, `refused_at`, `used_at`: each at the most once.
    """

    __tablename__ = "cloud_consents"
    __table_args__ = (Index("ix_cloud_consents_user_id", "user_id"),)

    id: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    request_id: Mapped[UUID]
    conversation_id: Mapped[UUID | None]
    provider: Mapped[str]
    model: Mapped[str]
    body_sha256: Mapped[bytes]
    body_bytes: Mapped[int]
    asked_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    given_at: Mapped[datetime | None]
    refused_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class Egress(Base):
    """The ledger of what left this box: rows are added, never changed, and each holds the hash of the one before.

    `kind` is `send`, written before the first byte leaves, or `end`, what became of it. No text of anybody is here:
    `findings` counts kinds, `sha256` and `body_bytes` are of the exact body. Amounts of money are millionths of the
    admin's currency. No foreign keys: it outlives the people in it.
    """

    __tablename__ = "egress"
    __table_args__ = (
        CheckConstraint("kind IN ('send', 'end')", name="kind"),
        Index("ix_egress_user_id_seq", "user_id", "seq"),
        Index("ix_egress_request_id_kind", "request_id", "kind", unique=True),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str]
    request_id: Mapped[UUID]
    user_id: Mapped[UUID]
    conversation_id: Mapped[UUID | None]
    provider: Mapped[str]
    model: Mapped[str]
    policy_version: Mapped[int]
    detectors: Mapped[dict[str, Any]] = mapped_column(JSONB)
    findings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    form: Mapped[str]
    consent_id: Mapped[bytes | None]
    body_bytes: Mapped[int]
    sha256: Mapped[bytes]
    reserved_micros: Mapped[int]
    outcome: Mapped[str | None]
    answer_bytes: Mapped[int | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    spent_micros: Mapped[int | None]
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]


class EgressHead(Base):
    """One row: the last number and hash of the ledger. Who appends holds it FOR UPDATE."""

    __tablename__ = "egress_head"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    hash: Mapped[bytes]


class CloudSpend(Base):
    """What one person's requests to clouds cost in a month (UTC, its first day), settled and still reserved."""

    __tablename__ = "cloud_spend"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    reserved_micros: Mapped[int]
    spent_micros: Mapped[int]
