"""Councils: their definitions, what they did, what is learned from them, and which usage was theirs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables; older usage belongs to no council."""
    op.create_table(
        "councils",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("members", ARRAY(sa.Text), nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("chair", sa.Text),
        sa.Column("rounds", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.Uuid),
        sa.PrimaryKeyConstraint("name", name="pk_councils"),
    )
    op.create_table(
        "skills",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("wins", sa.Double, nullable=False),
        sa.Column("losses", sa.Double, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "kind", "role", name="pk_skills"),
        sa.CheckConstraint("role IN ('answer', 'chair')", name="ck_skills_role"),
        sa.CheckConstraint("wins >= 0 AND losses >= 0", name="ck_skills_counts"),
    )
    op.create_table(
        "contention",
        sa.Column("box", sa.Text, nullable=False),
        sa.Column("hardware", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("log_sum", sa.Double, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("box", "hardware", "size", name="pk_contention"),
    )
    _create_runs()
    op.add_column("usage", sa.Column("council_id", sa.Uuid))
    op.add_column("usage", sa.Column("role", sa.Text))


def _create_runs() -> None:
    op.create_table(
        "council_runs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("wanted", sa.BigInteger),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("binding", sa.Text, nullable=False),
        sa.Column("steps", ARRAY(sa.Text), nullable=False),
        sa.Column("members", JSONB, nullable=False),
        sa.Column("chair", sa.Text),
        sa.Column("verdict_method", sa.Text),
        sa.Column("agreement", sa.Double),
        sa.Column("winner", sa.Text),
        sa.Column("shadow", JSONB),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.Column("feedback", JSONB),
        sa.PrimaryKeyConstraint("id", name="pk_council_runs"),
    )
    op.create_index("ix_council_runs_user_id_started_at", "council_runs", ["user_id", "started_at"])
    op.create_index("ix_council_runs_started_at_id", "council_runs", ["started_at", "id"])
    op.create_index(
        "ix_council_runs_rated", "council_runs", ["user_id"], postgresql_where=sa.text("feedback IS NOT NULL")
    )


def downgrade() -> None:
    """Drop them all."""
    op.drop_column("usage", "role")
    op.drop_column("usage", "council_id")
    for name in ("council_runs", "contention", "skills", "councils"):
        op.drop_table(name)
