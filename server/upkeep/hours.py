"""Old samples of devices become hours: one row where there were a hundred and twenty.

The shares of energy that reports tell are settled before (settling.py). A day of samples leaves as one statement that
deletes its rows and adds them to `hardware_hours`: both happen or neither. Rows of an hour that is there already, since
a clock was wrong, are averaged into it.
"""

from datetime import datetime

from sqlalchemy import text

from server.upkeep.emptied import drop_empty
from server.upkeep.jobs import Turn
from server.upkeep.parted import TABLES
from server.upkeep.settling import DAY, begins, midnight, settle

SAMPLES = next(table for table in TABLES if table.name == "hardware_samples")
_AVERAGES = ("used_mib", "power_mw", "utilisation_percent", "throttled_percent")
_LARGEST = ("used_mib_max", "temperature_c", "xid")
_DAYS = text(
    "SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM hardware_samples WHERE at < :before ORDER BY day"
)
_FORGET = text("DELETE FROM hardware_hours WHERE at < :before")


def _averaged(name: str) -> str:
    return (
        f"{name} = coalesce((known.{name}::numeric * known.periods + excluded.{name}::numeric * excluded.periods)"
        f" / (known.periods + excluded.periods), known.{name}, excluded.{name})"
    )


_ROLL = text(f"""
    WITH gone AS (DELETE FROM hardware_samples WHERE at >= :since AND at < :until RETURNING *)
    INSERT INTO hardware_hours AS known (at, device_id, periods, energy_mj, {", ".join(_AVERAGES + _LARGEST)})
    SELECT date_trunc('hour', at, 'UTC') AS hour, device_id, count(*), sum(energy_mj::bigint),
           {", ".join(f"round(avg({name}))" for name in _AVERAGES)}, {", ".join(f"max({name})" for name in _LARGEST)}
    FROM gone GROUP BY hour, device_id
    ON CONFLICT (at, device_id) DO UPDATE SET {", ".join(map(_averaged, _AVERAGES))},
        {", ".join(f"{name} = greatest(known.{name}, excluded.{name})" for name in _LARGEST)},
        energy_mj = coalesce(known.energy_mj + excluded.energy_mj, known.energy_mj, excluded.energy_mj),
        periods = known.periods + excluded.periods
    RETURNING 1
""")  # noqa: S608 (words of ours)


async def roll_up(turn: Turn, keep_days: int, keep_hours_days: int) -> None:
    """The job: samples that are older than so many days, and hours that are older than so many (0: none of them)."""
    today = midnight(turn.clock.now())
    if keep_days:
        await _roll(turn, today - keep_days * DAY)
    else:
        turn.tell("samples are kept for ever")
    if keep_hours_days:
        before = today - keep_hours_days * DAY
        if turn.is_dry:
            turn.tell(f"would remove hours of before {before:%Y-%m-%d}")
            return
        async with turn.connection.begin():
            gone = await turn.connection.execute(_FORGET, {"before": before})
        if gone.rowcount:
            turn.tell(f"removed {gone.rowcount} hours of before {before:%Y-%m-%d}")


async def _roll(turn: Turn, before: datetime) -> None:
    async with turn.connection.begin():
        days = (await turn.connection.scalars(_DAYS, {"before": before})).all()
    if days:
        await settle(turn, before + DAY)
    for day in days:
        if turn.is_dry:
            turn.tell(f"would make hours of the samples of {day}")
            continue
        span = {"since": begins(day), "until": begins(day) + DAY}
        async with turn.connection.begin():
            hours = len((await turn.connection.execute(_ROLL, span)).all())
        turn.tell(f"the samples of {day} are {hours} hours")
    await drop_empty(turn, SAMPLES, before)
    if not days:
        turn.tell(f"no samples of before {before:%Y-%m-%d}")
