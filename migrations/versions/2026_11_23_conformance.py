"""What is known of engines' promises, for engines of the settings as well: it moves out of the table of engines."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table, and take over what is known."""
    op.create_table(
        "conformance",
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("found", JSONB),
        sa.Column("tested_at", sa.DateTime(timezone=True)),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("engine", name="pk_conformance"),
    )
    op.execute(
        "INSERT INTO conformance (engine, kind, url, version, found, tested_at)"
        " SELECT name, spec->>'kind', rtrim(spec->>'url', '/'), '', learned, updated_at"
        " FROM engines WHERE learned IS NOT NULL"
    )
    op.drop_column("engines", "learned")


def downgrade() -> None:
    """Give it back to the registered engines; of those in the settings it is lost."""
    op.add_column("engines", sa.Column("learned", JSONB))
    op.execute("UPDATE engines SET learned = found FROM conformance WHERE conformance.engine = engines.name")
    op.drop_table("conformance")
