"""What may leave this box, where to, and what did.

The rows of `cloud_version` and `egress_head` are made by the first change and the first entry, so that a backup can be
restored into new tables.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"

APP = "wirthforge_app"
OWN = "user_id = nullif(current_setting('wirthforge.user_id', true), '')::uuid"
EVERYBODYS = "current_setting('wirthforge.everybody', true) = 'on'"
PEOPLES = ("cloud_policies", "cloud_consents", "egress", "cloud_spend")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create tables, policies, and the trigger that keeps the egress ledger as it was written."""
    _policies()
    _providers()
    _consents()
    _egress()
    for table in ("cloud_policies", "cloud_version", "cloud_providers", "cloud_consents", "cloud_spend", "egress_head"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}")
    op.execute(f"GRANT SELECT, INSERT ON egress TO {APP}")
    for table in PEOPLES:
        mine = f"{OWN} OR {EVERYBODYS}"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own ON {table} TO {APP} USING ({mine}) WITH CHECK ({mine})")
        op.execute(f"CREATE POLICY upkeep ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.add_column("conversations", sa.Column("cloud", sa.Text))
    op.add_column("messages", sa.Column("cloud", JSONB))
    op.add_column("usage", sa.Column("placement", sa.Text, nullable=False, server_default="local"))
    op.add_column("usage", sa.Column("cost_micros", sa.BigInteger))


def downgrade() -> None:
    """Drop them, unless something has left: the ledger of that is not thrown away by the way."""
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM egress)")):
        raise RuntimeError("Requests have left this box, and no older version can tell of it. Export the ledger first.")
    for column in ("cost_micros", "placement"):
        op.drop_column("usage", column)
    op.drop_column("messages", "cloud")
    op.drop_column("conversations", "cloud")
    for table in ("cloud_spend", "egress_head", "egress", "cloud_consents", "cloud_providers"):
        op.drop_table(table)
    op.execute("DROP FUNCTION egress_is_append_only()")
    op.drop_table("cloud_version")
    op.drop_table("cloud_policies")


def _policies() -> None:
    op.create_table(
        "cloud_policies",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("policy", JSONB, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cloud_policies"),
        sa.CheckConstraint("scope IN ('box', 'cap', 'own')", name="ck_cloud_policies_scope"),
        sa.CheckConstraint("(scope = 'box') = (user_id IS NULL)", name="ck_cloud_policies_person"),
    )
    op.create_index(
        "ix_cloud_policies_scope_user_id",
        "cloud_policies",
        ["scope", "user_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "cloud_version",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cloud_version"),
        sa.CheckConstraint("id = 1", name="ck_cloud_version_one"),
    )


def _providers() -> None:
    op.create_table(
        "cloud_providers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("sealed_key", sa.LargeBinary, nullable=False),
        sa.Column("models", JSONB, nullable=False),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cloud_providers"),
        sa.UniqueConstraint("name", name="uq_cloud_providers_name"),
    )


def _consents() -> None:
    op.create_table(
        "cloud_consents",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("conversation_id", sa.Uuid),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("body_sha256", sa.LargeBinary, nullable=False),
        sa.Column("body_bytes", sa.BigInteger, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("given_at", MOMENT),
        sa.Column("refused_at", MOMENT),
        sa.Column("used_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_cloud_consents"),
    )
    op.create_index("ix_cloud_consents_user_id", "cloud_consents", ["user_id"])


def _egress() -> None:
    op.create_table(
        "egress",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("conversation_id", sa.Uuid),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("policy_version", sa.BigInteger, nullable=False),
        sa.Column("detectors", JSONB, nullable=False),
        sa.Column("findings", JSONB, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("consent_id", sa.LargeBinary),
        sa.Column("body_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("reserved_micros", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("answer_bytes", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("spent_micros", sa.BigInteger),
        sa.Column("previous_hash", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_egress"),
        sa.CheckConstraint("kind IN ('send', 'end')", name="ck_egress_kind"),
    )
    op.create_index("ix_egress_user_id_seq", "egress", ["user_id", "seq"])
    op.create_index("ix_egress_request_id_kind", "egress", ["request_id", "kind"], unique=True)
    op.execute("""
        CREATE FUNCTION egress_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the egress ledger is only added to'; END $$""")
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON egress"
        " FOR EACH STATEMENT EXECUTE FUNCTION egress_is_append_only()"
    )
    op.create_table(
        "egress_head",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_egress_head"),
        sa.CheckConstraint("id = 1", name="ck_egress_head_one"),
    )
    op.create_table(
        "cloud_spend",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("reserved_micros", sa.BigInteger, nullable=False),
        sa.Column("spent_micros", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "month", name="pk_cloud_spend"),
    )
