"""One GPU with four models, each on an engine of its own, as the council's scene sees it.

What an engine's step takes alone is the simulated engine's (benchmarks/sharing/engine.py); while k engines of the box
have work, each step takes 1 / left(k) times as long, by the saturation law that the allocator believes by default. So
what the allocator is told of contention is true here, and what a wrong belief would cost is not measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

from benchmarks.sharing.engine import BOX4, Engine, Hardware
from benchmarks.sharing.job import Job
from benchmarks.sharing.replay import Replay
from quotas.ledger import Ledger
from server.allocator.contention import saturation_left
from server.allocator.forecast import Forecast, History, Lately
from server.council.scene import Scene
from server.council.skills import Skills
from server.engines.boxes import Boxes
from server.engines.calibration import Calibration, Together
from server.engines.calibrations import Calibrations
from server.engines.places import GIB, Placed, State
from server.engines.pool import Health, Pool, Route
from server.engines.protocol import Engine as ServedEngine
from server.messages import ServedModel
from server.sharing.outlook import Outlook
from server.usage.history import FRESH_MS, REQUESTS_WITHIN_MS

# A Monday at midnight.
BEGINNING = datetime(2026, 9, 7, tzinfo=UTC)
BEGINNING_MS = int(BEGINNING.timestamp() * 1000)
NAME = "gpu0"
# Models by the time of a step and the size in memory, both beside an 8B model: 14B, 8B, 8B and 4B with four slots each.
SIZES = {"large": 1.6, "first": 1.0, "second": 1.0, "small": 0.6}
HARDWARE: Mapping[str, Hardware] = {
    model: replace(
        BOX4,
        name=f"{model}, 4 slots",
        floor_ms=BOX4.floor_ms * size,
        base_ms=BOX4.base_ms * size,
        token_ms=BOX4.token_ms * size,
    )
    for model, size in SIZES.items()
}
MODEL_8B_BYTES = 5 * GIB
ANSWERS = (1, 2, 4)


class Crowded(Engine):
    """An engine that has its part of the box.

    Args:
        box: all engines of the box, this one among them.
    """

    def __init__(self, hardware: Hardware, box: Mapping[str, Engine]) -> None:
        super().__init__(hardware)
        self._box = box

    def begin(self) -> float | None:
        """Begin a step; the more engines have work, the longer it takes."""
        step_ms = super().begin()
        if step_ms is None:
            return None
        busy = sum(each.running > 0 for each in self._box.values())
        return step_ms / saturation_left(busy)


class VirtualClock:
    """The replay's time, as servers want it."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return BEGINNING + timedelta(milliseconds=self._replay.now_ms)

    def monotonic_ms(self) -> int:
        """Milliseconds since the beginning."""
        return int(self._replay.now_ms)

    def monotonic_us(self) -> int:
        """Microseconds since the beginning."""
        return int(self._replay.now_ms * 1000)

    async def sleep_ms(self, duration_ms: int) -> None:
        """Nothing that is used here sleeps.

        Raises:
            AssertionError: something does.
        """
        raise AssertionError(f"{duration_ms} ms cannot be slept in a replay")


class Expectations:
    """What others are expected to ask (as server/usage/history.py), on a box that has no history yet."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._forecast = Forecast(History(since_ms=BEGINNING_MS, at_ms=BEGINNING_MS))
        self._lately = Lately(since_ms=BEGINNING_MS)
        self._made_ms = -FRESH_MS
        self._expected = self._forecast.expect(self._lately, BEGINNING_MS, REQUESTS_WITHIN_MS)

    def saw(self, job: Job) -> None:
        """A request begins; of a council, as in the pipeline, only the leader's counts."""
        if not job.is_revocable:
            self._lately.saw(job.client, job.engine, BEGINNING_MS + self._clock.monotonic_ms())

    def requests_of_others(self, user_id: str) -> float:
        """How many requests other people are likely to send."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._made_ms >= FRESH_MS:
            self._made_ms = now_ms
            self._expected = self._forecast.expect(self._lately, BEGINNING_MS + now_ms, REQUESTS_WITHIN_MS)
        return self._expected.of_others(user_id)


@dataclass(frozen=True, slots=True)
class _Served:
    """All of an engine that a scene looks at."""

    name: str


def calibrated(model: str) -> Calibration:
    """What a calibration would find, alone: the step times themselves."""
    hardware = HARDWARE[model]
    together = tuple(Together(count, count * 1000 / hardware.step_ms(count, 0)) for count in ANSWERS)
    return Calibration(
        engine=model,
        model=model,
        prefill_us=hardware.token_ms * 1000,
        decode_us=hardware.step_ms(1, 0) * 1000,
        first_token_ms=hardware.step_ms(1, 0),
        together=together,
        knee=ANSWERS[-1],
        output_cost=2,
    )


class Models:
    """The four models, up and in memory: the pool, the calibrations, the boxes and the skills of a scene at once."""

    tallies: Mapping[object, object] = {}

    def __init__(self) -> None:
        self._figures = {model: calibrated(model) for model in HARDWARE}
        tokens = {model: hardware.pool_tokens // hardware.slots for model, hardware in HARDWARE.items()}
        self._routes = [
            Route(cast(ServedEngine, _Served(model)), ServedModel(id=model, context_tokens=tokens[model]))
            for model in HARDWARE
        ]

    def routes(self) -> Sequence[Route]:
        """One for each model."""
        return self._routes

    def health(self, name: str) -> Health:  # noqa: ARG002 (all are the same)
        """Well."""
        return Health(is_up=True, is_draining=False, breaker="closed", in_use=0, models=(), reason=None)

    def figures(self, engine: str, model: str) -> Calibration:  # noqa: ARG002 (they have one name)
        """Of a model."""
        return self._figures[model]

    def name_of(self, engine: str) -> str:  # noqa: ARG002 (there is one box)
        """The box of an engine."""
        return NAME

    def free_bytes(self, engine: str) -> int:  # noqa: ARG002 (there is one box)
        """Nothing: all that there is has been loaded."""
        return 0

    def view(self) -> list[Placed]:
        """All are in memory."""
        return [
            Placed(
                engine=model,
                model=model,
                state=State.RESIDENT,
                is_moving=False,
                in_use=0,
                waiting=0,
                size_bytes=int(MODEL_8B_BYTES * size),
            )
            for model, size in SIZES.items()
        ]


def scene_of(ledger: Ledger, clock: VirtualClock, expects: Expectations) -> Scene:
    """The real scene over the real ledger."""
    models = Models()
    return Scene(
        pool=cast(Pool, models),
        outlook=Outlook(ledger, clock),
        calibrations=cast(Calibrations, models),
        boxes=cast(Boxes, models),
        skills=cast(Skills, models),
        expects=expects,
        slots=lambda engine: HARDWARE[engine.name].slots,
    )
