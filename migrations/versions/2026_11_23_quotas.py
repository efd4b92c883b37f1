"""Quotas, and the log of who changed them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "quotas",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("role", sa.Text),
        sa.Column("user_id", sa.Uuid),
        sa.Column("rule", JSONB, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.Uuid),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.UniqueConstraint("role", name="uq_quotas_role"),
        sa.UniqueConstraint("user_id", name="uq_quotas_user_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], "fk_quotas_user_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "(scope = 'default' AND role IS NULL AND user_id IS NULL)"
            " OR (scope = 'role' AND role IS NOT NULL AND role IN ('admin', 'member') AND user_id IS NULL)"
            " OR (scope = 'user' AND role IS NULL AND user_id IS NOT NULL)",
            name="ck_quotas_scope",
        ),
    )
    op.create_index(
        "uq_quotas_default", "quotas", ["scope"], unique=True, postgresql_where=sa.text("scope = 'default'")
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Uuid),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])


def downgrade() -> None:
    """Drop them."""
    for table in ("audit_log", "quotas"):
        op.drop_table(table)
