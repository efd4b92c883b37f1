"""Conversations; the role that the app works as, and row-level security on everything that belongs to a person.

A policy holds for those who ask the table it is on: partitions have none, and the app has no right to name one.
"""

from itertools import pairwise
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

APP = "wirthforge_app"
CONTENT = ("conversations", "messages", "member_answers")
COUNTED = ("api_keys", "login_sessions", "setup_tokens", "usage", "council_runs")
PARTITIONED = ("messages", "member_answers")
# What the app may do elsewhere; nobody changes what the audit log says.
CHANGED = (
    *("users", "quotas", "engines", "calibrations", "conformance", "councils", "skills", "contention"),
    *("hardware_devices", "hardware_samples"),
)
OWN = "user_id = nullif(current_setting('wirthforge.user_id', true), '')::uuid"
EVERYBODYS = "current_setting('wirthforge.everybody', true) = 'on'"
MONTHS_AHEAD = 2
SEARCHED_CHARS = 100_000


def upgrade() -> None:
    """Create tables, role and policies."""
    _conversations()
    _messages()
    _member_answers()
    for table in PARTITIONED:
        _partitions(table)
    _role()
    _search()
    for table in CONTENT + COUNTED:
        own = OWN if table in CONTENT else f"{OWN} OR {EVERYBODYS}"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own ON {table} TO {APP} USING ({own}) WITH CHECK ({own})")
        # The owner's jobs: partitions, archive, backup.
        op.execute(f"CREATE POLICY upkeep ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Drop them. The role stays: it belongs to the whole Postgres, and other databases may use it."""
    for table in COUNTED:
        for policy in ("own", "upkeep"):
            op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION found_messages(text)")
    for table in ("member_answers", "messages", "conversations"):
        op.drop_table(table)
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {APP}")
    op.execute(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {APP}")


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("leaf_id", sa.Uuid),
        sa.Column("pinned_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("imported_from", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], "fk_conversations_user_id", ondelete="CASCADE"),
    )
    op.create_index(
        "ix_conversations_user_id_updated_at",
        "conversations",
        ["user_id", sa.text("updated_at DESC"), sa.text("id DESC")],
    )
    op.create_index(
        "ix_conversations_pinned",
        "conversations",
        ["user_id", sa.text("updated_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("pinned_at IS NOT NULL"),
    )


def _messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("parent_id", sa.Uuid),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("thinking", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("request_id", sa.Uuid),
        sa.Column("council", JSONB),
        sa.Column("finish_reason", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("first_token_ms", sa.BigInteger),
        sa.Column("total_ms", sa.BigInteger),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.CheckConstraint("role IN ('user', 'assistant', 'system')", name="ck_messages_role"),
        sa.CheckConstraint(
            "state IN ('streaming', 'complete', 'stopped', 'failed', 'interrupted')", name="ck_messages_state"
        ),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("ix_messages_conversation_id_id", "messages", ["conversation_id", "id"])
    op.create_index(
        "ix_messages_search",
        "messages",
        [sa.text(f"to_tsvector('simple', left(content, {SEARCHED_CHARS}))")],
        postgresql_using="gin",
        postgresql_where=sa.text("state <> 'streaming'"),
    )


def _member_answers() -> None:
    op.create_table(
        "member_answers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("message_id", sa.Uuid, nullable=False),
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("output_tokens", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_member_answers"),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("ix_member_answers_message_id", "member_answers", ["message_id"])


def _search() -> None:
    """A search that may use the index: as the owner, who sees all rows, for the principal alone."""
    op.execute(f"""
        CREATE FUNCTION found_messages(question text)
        RETURNS TABLE (conversation_id uuid, message_id uuid)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
        BEGIN ATOMIC
            SELECT messages.conversation_id, messages.id FROM messages
            WHERE {OWN} AND state <> 'streaming'
              AND to_tsvector('simple', left(content, {SEARCHED_CHARS})) @@ websearch_to_tsquery('simple', question);
        END""")  # noqa: S608 (words of ours)
    op.execute("REVOKE ALL ON FUNCTION found_messages(text) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION found_messages(text) TO {APP}")


def _partitions(table: str) -> None:
    """This month and the next ones, and one for ids of clocks that are wrong."""
    months = op.get_bind().execute(
        sa.text(
            "SELECT to_char(month, 'YYYY_MM'), extract(epoch FROM month)::bigint * 1000 FROM generate_series("
            "date_trunc('month', now() AT TIME ZONE 'UTC'), date_trunc('month', now() AT TIME ZONE 'UTC') + :ahead"
            " * interval '1 month', interval '1 month') AS month"
        ),
        {"ahead": MONTHS_AHEAD + 1},
    ).all()  # fmt: skip
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    for (name, begin), (_, end) in pairwise(months):
        values = f"FROM ('{_border(begin)}') TO ('{_border(end)}')"
        op.execute(f"CREATE TABLE {table}_{name} PARTITION OF {table} FOR VALUES {values}")


def _border(at_ms: int) -> UUID:
    """The smallest UUIDv7-like number of that time."""
    return UUID(int=at_ms << 80)


def _role() -> None:
    op.execute(
        f"""DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP}') THEN CREATE ROLE {APP} NOLOGIN; END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN RAISE EXCEPTION
                'the role {APP} is missing, and % may not create it: let a superuser CREATE ROLE {APP} and GRANT it',
                current_user;
        END $$"""
    )
    op.execute(
        f"""DO $$ BEGIN
            IF NOT pg_has_role(current_user, '{APP}', 'MEMBER') THEN GRANT {APP} TO CURRENT_USER; END IF;
        END $$"""
    )
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APP}")
    op.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {APP}")
    op.execute(f"GRANT SELECT ON alembic_version TO {APP}")
    op.execute(f"GRANT SELECT, INSERT ON audit_log TO {APP}")
    tables = ", ".join((*CONTENT, *COUNTED, *CHANGED))
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {APP}")
