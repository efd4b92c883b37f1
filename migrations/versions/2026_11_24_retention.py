"""What stays of old rows: shares in their requests, usage by day, devices by hour; runs of jobs; people who left.

A request's shares of the engines and of the energy follow from what its neighbours did and what devices told. Before
either is removed, a job writes the shares into the request's row (server/upkeep/settling.py), and `usage_shares` tells
these instead of finding them. It looks at no more neighbours than requests without settled shares have. What runs in a
cloud has none: no device here worked for it.
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"

APP = "wirthforge_app"
MOMENT = sa.DateTime(timezone=True)
# The walk along beginnings and ends is that of migration 0011, whose words do not change any more.
BEFORE = import_module("migrations.versions.2026_11_23_prices")
TOLD = "request_id, user_id, key_id, council_id, model, engine, started_at, input_tokens, output_tokens"
COLUMNS = """
    request_id uuid, user_id uuid, key_id uuid, council_id uuid, model text, engine text,
    started_at timestamptz, input_tokens bigint, output_tokens bigint,
    run_ms bigint, gpu_us bigint, energy_mj bigint"""


def upgrade() -> None:
    """Create tables, add the settled shares, and let the function tell them."""
    op.add_column("usage", sa.Column("gpu_us", sa.BigInteger))
    op.add_column("usage", sa.Column("energy_mj", sa.BigInteger))
    _usage_days()
    _hardware_hours()
    _jobs()
    op.execute("DROP FUNCTION usage_shares(timestamptz, timestamptz)")
    _shares(
        f"{COLUMNS}, placement text, cost_micros bigint",
        _RAN,
        "coalesce(ran.gpu_us, gpu.gpu_us, 0),"
        " CASE WHEN ran.gpu_us IS NULL THEN energy.energy_mj ELSE ran.energy_mj END, ran.placement, ran.cost_micros",
    )


def downgrade() -> None:
    """Drop them, unless sums would be lost: older versions cannot tell what is only in days."""
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM usage_days)")):
        raise RuntimeError("Usage of old requests is kept by day, which no older version can tell. Restore a backup.")
    op.execute("DROP FUNCTION usage_shares(timestamptz, timestamptz)")
    for table in ("departures", "upkeep_runs", "hardware_hours", "usage_days"):
        op.drop_table(table)
    for column in ("energy_mj", "gpu_us"):
        op.drop_column("usage", column)
    _shares(COLUMNS, BEFORE._RAN, "coalesce(gpu.gpu_us, 0), energy.energy_mj")  # noqa: SLF001


def _usage_days() -> None:
    op.create_table(
        "usage_days",
        sa.Column("id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("key_id", sa.Uuid),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("placement", sa.Text, nullable=False),
        sa.Column("council", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("run_ms", sa.BigInteger, nullable=False),
        sa.Column("gpu_us", sa.BigInteger, nullable=False),
        sa.Column("energy_mj", sa.BigInteger),
        sa.Column("cost_micros", sa.Numeric, nullable=False),
        sa.Column("energy_cost", sa.Numeric, nullable=False),
        sa.Column("unpriced_requests", sa.BigInteger, nullable=False),
        sa.Column("unmetered_requests", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_days"),
    )
    op.create_index(
        "ix_usage_days_group",
        "usage_days",
        ["day", "user_id", "key_id", "model", "engine", "placement", "council", "outcome"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    mine = f"{BEFORE.OWN} OR {BEFORE.EVERYBODYS}"
    op.execute("ALTER TABLE usage_days ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE usage_days FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own ON usage_days TO {APP} USING ({mine}) WITH CHECK ({mine})")
    op.execute("CREATE POLICY upkeep ON usage_days TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"GRANT SELECT ON usage_days TO {APP}")


def _hardware_hours() -> None:
    op.create_table(
        "hardware_hours",
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("periods", sa.Integer, nullable=False),
        sa.Column("energy_mj", sa.BigInteger),
        sa.Column("used_mib", sa.Integer),
        sa.Column("used_mib_max", sa.Integer),
        sa.Column("power_mw", sa.Integer),
        sa.Column("utilisation_percent", sa.SmallInteger),
        sa.Column("temperature_c", sa.SmallInteger),
        sa.Column("throttled_percent", sa.SmallInteger),
        sa.Column("xid", sa.SmallInteger),
        sa.PrimaryKeyConstraint("at", "device_id", name="pk_hardware_hours"),
        sa.ForeignKeyConstraint(
            ["device_id"], ["hardware_devices.id"], "fk_hardware_hours_device_id", ondelete="CASCADE"
        ),
    )
    op.execute(f"GRANT SELECT ON hardware_hours TO {APP}")


def _jobs() -> None:
    op.create_table(
        "upkeep_runs",
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("took_ms", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        sa.Column("said", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_upkeep_runs"),
    )
    op.create_table(
        "departures",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("person_id", sa.Uuid, nullable=False),
        sa.Column("asked_by", sa.Uuid),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("keeps_usage", sa.Boolean, nullable=False),
        sa.Column("done", JSONB, nullable=False),
        sa.Column("done_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_departures"),
        sa.UniqueConstraint("person_id", name="uq_departures_person_id"),
    )
    op.execute(f"GRANT SELECT ON upkeep_runs TO {APP}")
    op.execute(f"GRANT SELECT, INSERT ON departures TO {APP}")


def _shares(columns: str, ran: str, told: str) -> None:
    op.execute(f"""
        CREATE FUNCTION usage_shares(since timestamptz, until timestamptz)
        RETURNS TABLE ({columns})
        LANGUAGE sql STABLE ROWS 100000 SECURITY DEFINER SET search_path = pg_catalog, public SET work_mem = '32MB'
        SET enable_nestloop = off
        BEGIN ATOMIC
            WITH {ran}, {BEFORE._GPU}, {BEFORE._PERIODS}, {BEFORE._ENERGY}
            SELECT ran.request_id, ran.user_id, ran.key_id, ran.council_id, ran.model, ran.engine, ran.started_at,
                   ran.input_tokens, ran.output_tokens, ran.run_ms, {told}
            FROM ran LEFT JOIN gpu USING (request_id) LEFT JOIN energy USING (request_id)
            WHERE ran.started_at >= usage_shares.since AND ran.started_at < usage_shares.until
              AND (ran.{BEFORE.OWN} OR {BEFORE.EVERYBODYS});
        END""")  # noqa: S608, SLF001 (words of ours)
    op.execute("REVOKE ALL ON FUNCTION usage_shares(timestamptz, timestamptz) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION usage_shares(timestamptz, timestamptz) TO {APP}")


_MS, _ID, _SPAN_MS = BEFORE._ms, BEFORE._id, BEFORE.SPAN_MS_MAX  # noqa: SLF001
# Who ran, as in migration 0011; with shares that are settled, and walking along those alone that others depend on.
_RAN = f"""
    spans AS (
        SELECT {TOLD}, placement, cost_micros, gpu_us, energy_mj,
               {_MS("started_at")} + least(greatest(queue_ms, 0), {_SPAN_MS}) AS begins_ms,
               {_MS("started_at")} + least(greatest(total_ms, 0), {_SPAN_MS}) AS ends_ms,
               least(greatest(paused_ms, 0), {_SPAN_MS}) AS paused_ms
        FROM usage
        WHERE started_at >= usage_shares.since - {BEFORE.MARGIN} AND started_at < usage_shares.until + {BEFORE.MARGIN}
          AND request_id >= {_ID(f"(usage_shares.since - {BEFORE.ID_MARGIN})")}
          AND request_id < {_ID(f"(usage_shares.until + {BEFORE.ID_MARGIN})")}
    ),
    ran AS MATERIALIZED (
        SELECT {TOLD}, placement, cost_micros, gpu_us, energy_mj,
               begins_ms, ends_ms, greatest(ends_ms - begins_ms - paused_ms, 0) AS run_ms
        FROM spans
    ),
    weighed AS (
        SELECT request_id, engine, begins_ms, ends_ms,
               greatest({BEFORE.WHOLE} * run_ms / (ends_ms - begins_ms), 1)::int AS weight
        FROM ran
        WHERE run_ms > 0 AND placement = 'local'
          AND ends_ms >= (SELECT min(begins_ms) FROM ran WHERE gpu_us IS NULL) - {_SPAN_MS}
    ),
    edges AS MATERIALIZED (
        SELECT request_id, engine, begins_ms AS at_ms, weight, weight AS change, -1 AS sign FROM weighed
        UNION ALL
        SELECT request_id, engine, ends_ms, weight, -weight, 1 FROM weighed
    )"""  # noqa: S608
