"""What calibrations found, kept for all replicas, and what of it is in force here.

A result belongs to an engine, a model, the hardware and the engine's version; a newer one takes its place. In force is,
for each engine of this box and model, the newest that has figures and was taken on this hardware: until a new version
is measured, the figures of the one before are better than a guess. Every replica reads the table every few seconds, so
that a request costs no query.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from quotas.cost import Cost
from server.clock import Clock, uuid7
from server.db.models import CalibrationRow
from server.db.session import Database
from server.engines.calibration import Calibration, costs_of
from server.errors import Unavailable

READ_EVERY_MS = 3_000
RECORDS_MAX = 2_000
FAILURE_HOLDS = timedelta(days=1)
FAILURE_CHARACTERS_MAX = 500

log = structlog.get_logger(__name__)


class Record(Struct, frozen=True, kw_only=True):
    """A result.

    Attributes:
        hardware: what the box was.
        engine_version: empty where the engine does not tell.
        server_version: that measured it.
        figures: null where it failed.
        failure: why, if it did.
    """

    engine: str
    model: str
    hardware: str
    engine_version: str
    server_version: str
    measured_at: datetime
    figures: Calibration | None
    failure: str | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it belongs to."""
        return self.engine, self.model, self.hardware, self.engine_version


class Calibrations:
    """All results.

    Args:
        hardware: what the box is now; empty while that is not known.
        version: of an engine that is here, which may be empty; None where there is none of this name.
        server_version: ours.
        on_change: told when what is in force has changed.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        hardware: Callable[[], str],
        version: Callable[[str], str | None],
        server_version: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hardware = hardware
        self._version = version
        self._server_version = server_version
        self._on_change = on_change
        self._records: dict[tuple[str, str, str, str], Record] = {}
        self._in_force: dict[tuple[str, str], Calibration] = {}
        self._costs: Mapping[str, Cost] = {}

    def cost(self, model: str) -> Cost | None:
        """What tokens of a model cost, in prompt tokens of the fastest model of the box; None where nobody knows."""
        return self._costs.get(model)

    def knee(self, engine: str) -> int | None:
        """How many answers at a time an engine is worth being given, by the model that gains by most; None: unknown."""
        return max((found.knee for (name, _), found in self._in_force.items() if name == engine), default=None)

    def figures(self, engine: str, model: str) -> Calibration | None:
        """What is in force."""
        return self._in_force.get((engine, model))

    def measured(self, engine: str, model: str) -> Calibration | None:
        """What was found with this very version of the engine; None where nothing was, yet."""
        version = self._version(engine)
        found = None if version is None else self._records.get((engine, model, self._hardware(), version))
        return None if found is None else found.figures

    def is_due(self, engine: str, model: str) -> bool:
        """Whether it is to be measured: it never was so, or that failed and a day or another version has come."""
        hardware, version = self._hardware(), self._version(engine)
        if not hardware or version is None:
            return False
        found = self._records.get((engine, model, hardware, version))
        if found is None:
            return True
        is_over = self._clock.now() - found.measured_at >= FAILURE_HOLDS
        return found.figures is None and (is_over or found.server_version != self._server_version)

    async def keep(self, engine: str, model: str, figures: Calibration | None, failure: str | None = None) -> Record:
        """Store a result; it is in force at once here, and within seconds elsewhere.

        Raises:
            Unavailable: Postgres is away, or it is not known yet what the box is.
        """
        hardware, version = self._hardware(), self._version(engine)
        if not hardware or version is None:
            raise Unavailable("It is not known yet what this box is. Try again.", retry_after_s=5)
        now = self._clock.now()
        found = Record(
            engine=engine,
            model=model,
            hardware=hardware,
            engine_version=version,
            server_version=self._server_version,
            measured_at=now,
            figures=figures,
            failure=None if failure is None else failure.replace("\x00", "")[:FAILURE_CHARACTERS_MAX],
        )
        fields = {name: getattr(found, name) for name in found.__struct_fields__}
        fields["figures"] = None if figures is None else msgspec.to_builtins(figures)
        query = insert(CalibrationRow).values(id=uuid7(now), **fields)
        replaced = {name: query.excluded[name] for name in ("server_version", "measured_at", "figures", "failure")}
        async with self._database.transaction() as session:
            key = ("engine", "model", "hardware", "engine_version")
            await session.execute(query.on_conflict_do_update(index_elements=key, set_=replaced))
        self._take([*self._records.values(), found])
        return found

    async def all(self) -> list[Record]:
        """Every result, newest first, also of hardware and engines that are gone. Raises Unavailable."""
        query = select(CalibrationRow).order_by(CalibrationRow.measured_at.desc()).limit(RECORDS_MAX)
        async with self._database.transaction() as session:
            rows = (await session.scalars(query)).all()
        return [found for row in rows if (found := _record(row)) is not None]

    async def read(self) -> None:
        """Learn what other replicas have found. Raises Unavailable; then everything stays as it is."""
        self._take(await self.all())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.read()
            except Unavailable as error:
                log.warning("calibrations not read", reason=error.message)
            await self._clock.sleep_ms(READ_EVERY_MS)

    def _take(self, records: Sequence[Record]) -> None:
        oldest_first = sorted(records, key=lambda record: record.measured_at)
        self._records = {record.key: record for record in oldest_first}
        hardware = self._hardware()
        in_force = {
            (record.engine, record.model): record.figures
            for record in oldest_first
            if record.figures is not None and record.hardware == hardware and self._version(record.engine) is not None
        }
        if in_force != self._in_force:
            self._in_force = in_force
            self._costs = {model: Cost(*cost) for model, cost in costs_of(list(in_force.values())).items()}
            self._on_change()


def _record(row: CalibrationRow) -> Record | None:
    """What the row holds; None for figures that another version of the server has written in another way."""
    try:
        figures = None if row.figures is None else msgspec.convert(row.figures, Calibration)
    except msgspec.ValidationError:
        return None
    return Record(
        engine=row.engine,
        model=row.model,
        hardware=row.hardware,
        engine_version=row.engine_version,
        server_version=row.server_version,
        measured_at=row.measured_at,
        figures=figures,
        failure=row.failure,
    )
