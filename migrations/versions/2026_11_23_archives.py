"""Which months of which tables are in files."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

APP = "wirthforge_app"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "archives",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("file_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rewritten_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_archives"),
        sa.UniqueConstraint("table_name", "month", name="uq_archives_table_name_month"),
    )
    op.create_table(
        "restored_conversations",
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("archive_id", sa.Uuid, nullable=False),
        sa.Column("restored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "archive_id", name="pk_restored_conversations"),
        sa.ForeignKeyConstraint(
            ["archive_id"], ["archives.id"], "fk_restored_conversations_archive_id", ondelete="CASCADE"
        ),
    )
    op.execute(f"GRANT SELECT ON archives TO {APP}")
    op.execute(f"GRANT SELECT, INSERT ON restored_conversations TO {APP}")


def downgrade() -> None:
    """Drop them, unless something is in files alone."""
    if count := op.get_bind().scalar(sa.text("SELECT count(*) FROM archives")):
        raise RuntimeError(
            f"{count} files are in the archive, which no older version reads: `wirthforge upkeep unarchive` first."
        )
    op.drop_table("restored_conversations")
    op.drop_table("archives")
