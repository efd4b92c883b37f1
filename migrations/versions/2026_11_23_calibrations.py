"""How fast engines are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("hardware", sa.Text, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("server_version", sa.Text, nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("figures", JSONB),
        sa.Column("failure", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
        sa.UniqueConstraint(
            "engine", "model", "hardware", "engine_version", name="uq_calibrations_engine_model_hardware_engine_version"
        ),
        sa.CheckConstraint("(figures IS NULL) <> (failure IS NULL)", name="ck_calibrations_result"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("calibrations")
