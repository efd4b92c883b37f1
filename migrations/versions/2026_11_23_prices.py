"""Prices, and what share of the engines and of the energy each request had.

The shares are told by a function that runs as the owner, since they follow from the requests of everybody, of which a
transaction of somebody sees their own alone. It tells of those that the transaction may see, as the policies of
migration 0009 say. It tells what else a report needs of them as well: what Postgres expects of a table with policies is
so far off that joining the two would take minutes. For the same reason it has nested loops switched off.
docs/usage-reports.md defines the shares.

How it works: a request that ran has a weight, the part of its span in which it was not paused, in millionths. Walking
along all beginnings and ends of requests, the load at a moment is the sum of weights, and a clock advances by
time / load, so that a request's share is its weight times what the clock advanced while it ran. A load below one
advances the clock by the time itself: who was paused alone has no more than the time in which they ran. Energy goes
the same way: a first walk finds how much was run in each period of the hardware's history, a second one hands out
energy / run. So the work grows with the number of requests and periods, not with pairs of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

APP = "wirthforge_app"
OWN = "user_id = nullif(current_setting('wirthforge.user_id', true), '')::uuid"
EVERYBODYS = "current_setting('wirthforge.everybody', true) = 'on'"
# Of a request that took longer only the first six hours are looked at; so what began earlier changes no share.
SPAN_MS_MAX = 6 * 3_600_000
MARGIN = "interval '6 hours'"
# Ids are made before requests are counted, by clocks that may be wrong.
ID_MARGIN = "interval '1 day'"
WHOLE = 1_000_000
# A period of the hardware's history is as long as to the nearest one of the same device, within these.
PERIOD_MS, PERIOD_MS_MIN, PERIOD_MS_MAX = 30_000, 1_000, 3_600_000


def upgrade() -> None:
    """Create the table and the function."""
    op.create_table(
        "prices",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("input_per_million", sa.Numeric(18, 9), nullable=False),
        sa.Column("output_per_million", sa.Numeric(18, 9), nullable=False),
        sa.Column("per_gpu_second", sa.Numeric(18, 9)),
        sa.Column("per_kwh", sa.Numeric(18, 9)),
        sa.Column("set_by", sa.Uuid),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
        sa.CheckConstraint("since < until", name="ck_prices_period"),
    )
    op.create_index("ix_prices_model_since", "prices", ["model", "since"], unique=True)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON prices TO {APP}")
    op.execute(f"""
        CREATE FUNCTION usage_shares(since timestamptz, until timestamptz)
        RETURNS TABLE (
            request_id uuid, user_id uuid, key_id uuid, council_id uuid, model text, engine text,
            started_at timestamptz, input_tokens bigint, output_tokens bigint,
            run_ms bigint, gpu_us bigint, energy_mj bigint
        )
        LANGUAGE sql STABLE ROWS 100000 SECURITY DEFINER SET search_path = pg_catalog, public SET work_mem = '32MB'
        SET enable_nestloop = off
        BEGIN ATOMIC
            WITH {_RAN}, {_GPU}, {_PERIODS}, {_ENERGY}
            SELECT ran.request_id, ran.user_id, ran.key_id, ran.council_id, ran.model, ran.engine, ran.started_at,
                   ran.input_tokens, ran.output_tokens, ran.run_ms, coalesce(gpu.gpu_us, 0), energy.energy_mj
            FROM ran LEFT JOIN gpu USING (request_id) LEFT JOIN energy USING (request_id)
            WHERE ran.started_at >= usage_shares.since AND ran.started_at < usage_shares.until
              AND (ran.{OWN} OR {EVERYBODYS});
        END""")  # noqa: S608 (words of ours)
    op.execute("REVOKE ALL ON FUNCTION usage_shares(timestamptz, timestamptz) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION usage_shares(timestamptz, timestamptz) TO {APP}")


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP FUNCTION usage_shares(timestamptz, timestamptz)")
    op.drop_table("prices")


def _ms(time: str) -> str:
    # Not extract(), which counts in numeric: it would take longer than everything else.
    return f"(date_part('epoch', {time}) * 1000)::bigint"


def _id(time: str) -> str:
    """The smallest UUIDv7-like number of that time."""
    return f"(lpad(to_hex({_ms(time)}), 12, '0') || repeat('0', 20))::uuid"


# Who ran: from the slot's grant to the end of the answer, and how much of that without the pauses.
_RAN = f"""
    spans AS (
        SELECT request_id, user_id, key_id, council_id, model, engine, started_at, input_tokens, output_tokens,
               {_ms("started_at")} + least(greatest(queue_ms, 0), {SPAN_MS_MAX}) AS begins_ms,
               {_ms("started_at")} + least(greatest(total_ms, 0), {SPAN_MS_MAX}) AS ends_ms,
               least(greatest(paused_ms, 0), {SPAN_MS_MAX}) AS paused_ms
        FROM usage
        WHERE started_at >= usage_shares.since - {MARGIN} AND started_at < usage_shares.until + {MARGIN}
          AND request_id >= {_id(f"(usage_shares.since - {ID_MARGIN})")}
          AND request_id < {_id(f"(usage_shares.until + {ID_MARGIN})")}
    ),
    ran AS MATERIALIZED (
        SELECT request_id, user_id, key_id, council_id, model, engine, started_at, input_tokens, output_tokens,
               begins_ms, ends_ms, greatest(ends_ms - begins_ms - paused_ms, 0) AS run_ms
        FROM spans
    ),
    weighed AS (
        SELECT request_id, engine, begins_ms, ends_ms,
               greatest({WHOLE} * run_ms / (ends_ms - begins_ms), 1)::int AS weight
        FROM ran WHERE run_ms > 0
    ),
    edges AS MATERIALIZED (
        SELECT request_id, engine, begins_ms AS at_ms, weight, weight AS change, -1 AS sign FROM weighed
        UNION ALL
        SELECT request_id, engine, ends_ms, weight, -weight, 1 FROM weighed
    )"""  # noqa: S608
# In each of these the first step looks at what was between a mark and the one before it, whatever the order of marks at
# one time; the second adds all steps up to that time (RANGE), so that it does not depend on that order either.
_GPU = f"""
    gpu_steps AS (
        SELECT request_id, engine, at_ms, weight, sign,
               (at_ms - lag(at_ms) OVER line)::float8 / greatest(sum(change) OVER line - change, {WHOLE}) AS step
        FROM edges WINDOW line AS (PARTITION BY engine ORDER BY at_ms ROWS UNBOUNDED PRECEDING)
    ),
    gpu_clock AS (
        SELECT request_id, weight, sign,
               coalesce(sum(step) OVER (PARTITION BY engine ORDER BY at_ms RANGE UNBOUNDED PRECEDING), 0) AS clock
        FROM gpu_steps
    ),
    gpu AS (
        SELECT request_id, round(1000 * max(weight) * sum(sign * clock))::bigint AS gpu_us
        FROM gpu_clock GROUP BY request_id
    )"""  # noqa: S608
_PERIODS = f"""
    sampled AS (
        SELECT at_ms, energy_mj, power_mw,
               greatest({PERIOD_MS_MIN}, least({PERIOD_MS_MAX}, coalesce(least(
                   at_ms - lag(at_ms) OVER line, lead(at_ms) OVER line - at_ms
               ), {PERIOD_MS}))) AS length_ms
        FROM (
            SELECT device_id, {_ms("at")} AS at_ms, energy_mj, power_mw FROM hardware_samples
            WHERE at >= usage_shares.since - {MARGIN} - interval '1 hour' AND at < usage_shares.until + 2 * {MARGIN}
            OFFSET 0  -- so that times are counted once
        ) AS told
        WINDOW line AS (PARTITION BY device_id ORDER BY at_ms)
    ),
    periods AS MATERIALIZED (
        SELECT row_number() OVER () AS period, at_ms AS begins_ms, at_ms + length_ms AS ends_ms,
               sum(coalesce(energy_mj, power_mw * length_ms / 1000))::float8 AS energy_mj
        FROM sampled WHERE energy_mj IS NOT NULL OR power_mw IS NOT NULL
        GROUP BY at_ms, length_ms
    ),
    marks AS (
        SELECT at_ms, change, NULL::bigint AS period FROM edges
        UNION ALL SELECT begins_ms, 0, period FROM periods
        UNION ALL SELECT ends_ms, 0, period FROM periods
    ),
    work_steps AS (
        SELECT at_ms, period, (at_ms - lag(at_ms) OVER line)::float8 * (sum(change) OVER line - change) AS step
        FROM marks WINDOW line AS (ORDER BY at_ms ROWS UNBOUNDED PRECEDING)
    ),
    work AS (
        SELECT period, coalesce(sum(step) OVER (ORDER BY at_ms RANGE UNBOUNDED PRECEDING), 0) AS work FROM work_steps
    ),
    rates AS MATERIALIZED (
        SELECT begins_ms, ends_ms, energy_mj / (max(work) - min(work)) AS rate
        FROM work JOIN periods USING (period)
        GROUP BY period, begins_ms, ends_ms, energy_mj HAVING max(work) > min(work)
    )"""  # noqa: S608
_ENERGY = """
    powered AS (
        SELECT at_ms, request_id, weight, sign, 0::float8 AS change, 0 AS cover FROM edges
        UNION ALL SELECT begins_ms, NULL, NULL, NULL, rate, 1 FROM rates
        UNION ALL SELECT ends_ms, NULL, NULL, NULL, -rate, -1 FROM rates
    ),
    energy_steps AS (
        SELECT request_id, weight, sign, at_ms,
               (at_ms - lag(at_ms) OVER line) * (sum(change) OVER line - change) AS step,
               ((at_ms - lag(at_ms) OVER line) * (sum(cover) OVER line - cover > 0)::int)::float8 AS covered_ms
        FROM powered WINDOW line AS (ORDER BY at_ms ROWS UNBOUNDED PRECEDING)
    ),
    energy_clock AS (
        SELECT request_id, weight, sign, coalesce(sum(step) OVER line, 0) AS clock,
               coalesce(sum(covered_ms) OVER line, 0) AS covered_ms
        FROM energy_steps WINDOW line AS (ORDER BY at_ms RANGE UNBOUNDED PRECEDING)
    ),
    energy AS (
        SELECT request_id, greatest(round(max(weight) * sum(sign * clock)), 0)::bigint AS energy_mj
        FROM energy_clock WHERE request_id IS NOT NULL
        GROUP BY request_id HAVING sum(sign * covered_ms) > 0
    )"""
