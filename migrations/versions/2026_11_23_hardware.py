"""Devices, and what they did."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "hardware_devices",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_hardware_devices"),
        sa.UniqueConstraint("uuid", name="uq_hardware_devices_uuid"),
    )
    op.create_table(
        "hardware_samples",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("used_mib", sa.Integer),
        sa.Column("used_mib_max", sa.Integer),
        sa.Column("power_mw", sa.Integer),
        sa.Column("energy_mj", sa.Integer),
        sa.Column("utilisation_percent", sa.SmallInteger),
        sa.Column("temperature_c", sa.SmallInteger),
        sa.Column("throttled_percent", sa.SmallInteger),
        sa.Column("xid", sa.SmallInteger),
        sa.PrimaryKeyConstraint("at", "device_id", name="pk_hardware_samples"),
        sa.ForeignKeyConstraint(
            ["device_id"], ["hardware_devices.id"], "fk_hardware_samples_device_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("hardware_samples", "hardware_devices"):
        op.drop_table(table)
