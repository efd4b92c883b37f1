"""Calibrations over HTTP: how fast engines were found to be, and measuring one now."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from datetime import datetime

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from server.engines.calibrating import Calibrating
from server.engines.calibration import Calibration
from server.engines.calibrations import Calibrations, Record
from server.messages import Principal


class CalibrationView(Struct):
    """What was found of a model on an engine.

    Attributes:
        hardware: what the box was.
        engine_version: empty where the engine does not tell.
        is_in_force: these figures decide what tokens cost and, where nobody says it, how many requests an engine gets.
        failure: why there are no figures.
    """

    engine: str
    model: str
    hardware: str
    engine_version: str
    server_version: str
    measured_at: datetime
    is_in_force: bool
    figures: Calibration | None
    failure: str | None


class CalibrationAdmin(Controller):
    """Calibrations of the box. The `admin` dependency refuses members."""

    path = "/api/admin/calibrations"
    tags = ("Administration",)

    @get()
    async def list_calibrations(
        self, admin: NamedDependency[Principal], calibrations: NamedDependency[Calibrations]
    ) -> list[CalibrationView]:
        """Every result, newest first."""
        return [_view(record, calibrations) for record in await calibrations.all()]

    @post("/{engine:path}", status_code=200)
    async def calibrate_engine(
        self,
        engine: FromPath[str],
        admin: NamedDependency[Principal],
        calibrations: NamedDependency[Calibrations],
        calibrating: NamedDependency[Calibrating],
        model: FromQuery[str | None] = None,
    ) -> CalibrationView:
        """Measure a model now, which takes up to some minutes: `model`, or the first that is in memory.

        409 where somebody uses the engine, or comes meanwhile; where no model is in memory, since none is loaded for
        this; and where another calibration runs.
        """
        return _view(await calibrating.measure_now(engine.removeprefix("/"), model), calibrations)


def _view(record: Record, calibrations: Calibrations) -> CalibrationView:
    in_force = calibrations.figures(record.engine, record.model)
    return CalibrationView(
        engine=record.engine,
        model=record.model,
        hardware=record.hardware,
        engine_version=record.engine_version,
        server_version=record.server_version,
        measured_at=record.measured_at,
        is_in_force=record.figures is not None and record.figures == in_force,
        figures=record.figures,
        failure=record.failure,
    )
