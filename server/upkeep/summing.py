"""Old requests become sums of a day, so that no sum is ever lost and nothing grows for ever.

A day of `usage` leaves as one statement that deletes its rows and adds them to `usage_days`: either both happen or
neither does, so nothing is lost and nothing counts twice, whenever the job is killed. The shares of the engines and of
the energy are settled before (settling.py), and the cost is settled here, at the prices that held when each request was
asked. Reports take what is in either table (server/usage/reports.py).

Requests of people who left are nobody's (departing.py). They become sums as soon as their neighbours' shares are
settled, a day later.
"""

from datetime import UTC, datetime

from sqlalchemy import text

from server.db.models.retention import NOBODY
from server.upkeep.emptied import drop_empty
from server.upkeep.jobs import Turn
from server.upkeep.parted import TABLES
from server.upkeep.settling import DAY, begins, midnight, settle

USAGE = next(table for table in TABLES if table.name == "usage")
SPAN_MS_MAX = 6 * 3_600_000  # as migration 0011
WHOLE_MAX = (1 << 63) - 1
# No request is older.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

_WHO = "(started_at < :before OR (user_id = :nobody AND started_at < :nobody_before))"
_DAYS = text(f"SELECT DISTINCT (started_at AT TIME ZONE 'UTC')::date AS day FROM usage WHERE {_WHO} ORDER BY day")  # noqa: S608
_HAS_NOBODYS = text("SELECT EXISTS (SELECT FROM usage WHERE user_id = :nobody AND started_at < :nobody_before)")
_KEYS = ("day", "user_id", "key_id", "model", "engine", "placement", "council", "outcome")
_COUNTS = ("requests", "input_tokens", "output_tokens", "run_ms", "gpu_us", "unpriced_requests", "unmetered_requests")


def _amount(name: str) -> str:
    """An amount of the price that held: the model's own, else that of all others; as reports have it."""
    return f"CASE WHEN own.id IS NULL THEN others.{name} ELSE own.{name} END"


def _added(name: str) -> str:
    return f"{name} = {_whole(f'known.{name}::numeric + excluded.{name}')}"


def _whole(sql: str) -> str:
    """No sum of numbers that some engine made up may break this; what is unknown stays so."""
    return f"(CASE WHEN {sql} > {WHOLE_MAX} THEN {WHOLE_MAX} ELSE {sql} END)::bigint"


_BOTH = "coalesce(known.energy_mj::numeric + excluded.energy_mj, known.energy_mj, excluded.energy_mj)"
_MERGED = f"""
    ON CONFLICT ({", ".join(_KEYS)}) DO UPDATE SET {", ".join(map(_added, _COUNTS))},
        energy_mj = {_whole(_BOTH)},
        cost_micros = known.cost_micros + excluded.cost_micros, energy_cost = known.energy_cost + excluded.energy_cost
    RETURNING 1"""
_SUM = text(f"""
    WITH gone AS (
        DELETE FROM usage WHERE started_at >= :since AND started_at < :until AND gpu_us IS NOT NULL AND {_WHO}
        RETURNING *
    ),
    ran AS (
        SELECT gone.*, greatest(
            least(greatest(total_ms, 0), {SPAN_MS_MAX}) - least(greatest(queue_ms, 0), {SPAN_MS_MAX})
            - least(greatest(paused_ms, 0), {SPAN_MS_MAX}), 0) AS run_ms
        FROM gone
    ),
    told AS (
        SELECT CAST(:day AS date) AS day, ran.user_id, ran.key_id, ran.model, ran.engine, ran.placement,
               CASE WHEN ran.council_id IS NOT NULL THEN coalesce(council_runs.name, 'unknown') END AS council,
               ran.outcome, ran.input_tokens, ran.output_tokens, ran.run_ms, ran.gpu_us, ran.energy_mj,
               coalesce(ran.cost_micros, ran.input_tokens * ({_amount("input_per_million")})
                   + ran.output_tokens * ({_amount("output_per_million")})
                   + coalesce(ran.gpu_us * ({_amount("per_gpu_second")}), 0), 0) AS cost_micros,
               CASE WHEN ran.cost_micros IS NULL THEN coalesce(ran.energy_mj * ({_amount("per_kwh")}), 0) ELSE 0 END
                   AS energy_cost,
               (own.id IS NULL AND others.id IS NULL AND ran.cost_micros IS NULL)::int AS unpriced,
               (ran.run_ms > 0 AND ran.energy_mj IS NULL AND ran.placement = 'local')::int AS unmetered
        FROM ran
        LEFT JOIN prices AS own ON own.model = ran.model
             AND own.since <= ran.started_at AND (own.until IS NULL OR ran.started_at < own.until)
        LEFT JOIN prices AS others ON others.model = '*'
             AND others.since <= ran.started_at AND (others.until IS NULL OR ran.started_at < others.until)
        LEFT JOIN council_runs ON council_runs.id = ran.council_id
    )
    INSERT INTO usage_days AS known ({", ".join(_KEYS)}, requests, input_tokens, output_tokens, run_ms, gpu_us,
        energy_mj, cost_micros, energy_cost, unpriced_requests, unmetered_requests)
    SELECT {", ".join(_KEYS)}, count(*), {_whole("sum(input_tokens)")}, {_whole("sum(output_tokens)")},
        {_whole("sum(run_ms)")}, {_whole("sum(gpu_us)")}, {_whole("sum(energy_mj)")}, sum(cost_micros),
        sum(energy_cost), sum(unpriced), sum(unmetered)
    FROM told GROUP BY {", ".join(_KEYS)}
    {_MERGED}
""")  # noqa: S608 (words of ours)
# The sums of a person, and of all their keys, are added to those of nobody; tells how many rows they were.
LEAVE_SUMS = text(f"""
    WITH gone AS (DELETE FROM usage_days WHERE user_id = :person RETURNING *),
    added AS (
        INSERT INTO usage_days AS known ({", ".join(_KEYS)}, {", ".join(_COUNTS)}, energy_mj, cost_micros, energy_cost)
        SELECT day, CAST(:nobody AS uuid), NULL::uuid, model, engine, placement, council, outcome,
               {", ".join(_whole(f"sum({name})") for name in (*_COUNTS, "energy_mj"))},
               sum(cost_micros), sum(energy_cost)
        FROM gone GROUP BY day, model, engine, placement, council, outcome
        {_MERGED}
    )
    SELECT count(*) FROM gone
""")  # noqa: S608 (words of ours)


async def sum_usage(turn: Turn, keep_days: int) -> None:
    """The job: what is older than so many days (0: nothing), and what is nobody's. Raises Conflict."""
    today = midnight(turn.clock.now())
    before = today - keep_days * DAY if keep_days else NEVER
    whose = {"before": before, "nobody": NOBODY, "nobody_before": today - DAY}
    async with turn.connection.begin():
        has_nobodys = await turn.connection.scalar(_HAS_NOBODYS, whose)
    await settle(turn, today if has_nobodys else before + DAY)
    async with turn.connection.begin():
        days = (await turn.connection.scalars(_DAYS, whose)).all()
    for day in days:
        if turn.is_dry:
            turn.tell(f"would add up the requests of {day}")
            continue
        span = {"day": day, "since": begins(day), "until": begins(day) + DAY}
        async with turn.connection.begin():
            groups = len((await turn.connection.execute(_SUM, span | whose)).all())
        turn.tell(f"the requests of {day} are {groups} sums")
    await drop_empty(turn, USAGE, before)
    if not days:
        turn.tell(f"no requests that are older than {keep_days} days" if keep_days else "requests are kept for ever")
