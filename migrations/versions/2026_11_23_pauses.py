"""How often and how long answers were paused."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; older rows were never paused."""
    for name in ("pauses", "paused_ms"):
        op.add_column("usage", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove them."""
    for name in ("pauses", "paused_ms"):
        op.drop_column("usage", name)
