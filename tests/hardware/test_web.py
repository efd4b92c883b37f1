"""What people are shown of the box, over HTTP."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar import Litestar
from litestar.di import Provide
from msgspec.structs import replace

from server.api.faults import answer_fault
from server.db.session import Database
from server.hardware.devices import Absent, Device, DeviceProcess, Sample
from server.hardware.history import MINUTES_MAX, History
from server.hardware.monitor import Monitor
from server.hardware.periods import Row
from server.hardware.providers import Loaded
from server.messages import Principal
from server.web.hardware import hardware, hardware_history
from tests.clocks import BEGINNING, FakeClock
from tests.hardware.parts import GIB, Made, gpu

ADMIN = Principal(id=UUID(int=1), name="ann", role="admin")
MEMBER = Principal(id=UUID(int=2), name="ben", role="member")


class Site:
    """The two routes over parts of their own, for whoever asks as `principal`."""

    def __init__(self, monitor: Monitor, history: History) -> None:
        self.monitor = monitor
        self.history = history
        self.principal = ADMIN
        parts: dict[str, Any] = {"hardware_monitor": lambda: monitor, "hardware_records": lambda: history}
        parts["principal"] = lambda: self.principal
        self.app = Litestar(
            [hardware, hardware_history],
            dependencies={name: Provide(part, sync_to_thread=False) for name, part in parts.items()},
            exception_handlers={Exception: answer_fault},
            logging_config=None,
        )

    async def get(self, path: str) -> Any:
        """The answer's JSON, with its status."""
        # Within this loop, which the database belongs to.
        transport = httpx.ASGITransport(self.app)  # type: ignore[arg-type]  # (two ways to write the same type)
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            answer = await client.get(path)
        return answer.status_code, answer.json()


@pytest.fixture
def made() -> Made:
    """A box with a GPU that three programs use, or so."""
    made = Made(uuids=["a", "b"])
    processes = (DeviceProcess(pid=4711, used_bytes=GIB), DeviceProcess(pid=4712))
    made.sampled = lambda device: Sample(
        uuid=device.uuid,
        at=BEGINNING,
        used_bytes=GIB,
        free_bytes=79 * GIB,
        processes=processes,
        xids=(79,) if device.uuid == "b" else (),
        absent={"power_mw": "Not Supported"},
    )
    return made


@pytest.fixture
async def site(made: Made, clock: FakeClock, database_url: str) -> AsyncIterator[Site]:
    """The routes."""
    database = Database(database_url, connections_max=2)
    history = History(database, clock)
    monitor = Monitor(Loaded((made,), {"bad": "RuntimeError: no licence"}), clock, history)
    yield Site(monitor, history)
    monitor.close()
    await database.close()


async def test_before_the_first_look(site: Site) -> None:
    """Nothing is known, and that is not the same as nothing there."""
    status, answer = await site.get("/api/hardware")
    assert (status, answer["error"]["code"]) == (503, "unavailable")


async def test_the_box_is_shown(site: Site) -> None:
    """Tier, devices with readings and reasons, topology, faults."""
    await site.monitor.look()
    status, answer = await site.get("/api/hardware")
    assert status == 200
    assert answer["tier"]["name"] == "high"
    assert answer["topology"] == [["same", "system"], ["system", "same"]]
    assert answer["faults"] == {"bad": "plugin left out: RuntimeError: no licence"}
    assert [(event["uuid"], event["xid"]) for event in answer["events"]] == [("b", 79)]
    first = answer["devices"][0]
    assert (first["uuid"], first["used_bytes"], first["free_bytes"], first["power_mw"]) == ("a", GIB, 79 * GIB, None)
    assert first["absent"] == {"power_mw": "Not Supported"}


async def test_only_admins_see_which_programs_run(site: Site) -> None:
    """Members see how many there are and what they take."""
    await site.monitor.look()
    _, answer = await site.get("/api/hardware")
    assert [one["pid"] for one in answer["devices"][0]["processes"]] == [4711, 4712]
    site.principal = MEMBER
    _, answer = await site.get("/api/hardware")
    assert answer["devices"][0]["processes"] == [
        {"pid": None, "used_bytes": GIB},
        {"pid": None, "used_bytes": None},
    ]


async def test_a_device_that_does_not_answer_is_shown_as_that(site: Site, made: Made) -> None:
    """It is there; what it does is not known."""
    await site.monitor.look()

    def fails(_: Device) -> Sample:
        raise OSError("gone")

    made.sampled = fails
    await site.monitor.look()
    _, answer = await site.get("/api/hardware")
    first = answer["devices"][0]
    assert (first["uuid"], first["used_bytes"], first["sampled_at"]) == ("a", None, None)
    assert first["absent"] == {"sample": "the device did not answer"}
    assert answer["faults"]["made"] == "OSError: gone"


async def test_a_box_with_nothing(site: Site, made: Made) -> None:
    """No GPU is a normal state: low, and why."""

    def none() -> list[Device]:
        raise Absent("NVML Shared Library Not Found")

    made.listed = none
    await site.monitor.look()
    status, answer = await site.get("/api/hardware")
    assert (status, answer["devices"], answer["tier"]["name"]) == (200, [], "low")
    assert answer["absent"] == {"made": "NVML Shared Library Not Found"}


async def test_the_history_is_shown(site: Site, clock: FakeClock) -> None:
    """As many minutes as were asked for, within bounds."""
    full = Row(
        device=gpu("a"), at=BEGINNING, used_mib=1024, used_mib_max=2048, power_mw=1, energy_mj=2, utilisation_percent=3,
        temperature_c=4, throttled_percent=5, xid=None,
    )  # fmt: skip
    await site.history.write([full, replace(full, device=gpu("b"), at=BEGINNING + timedelta(seconds=30))])
    clock.advance(timedelta(minutes=5))
    status, answer = await site.get("/api/hardware/history?minutes=10")
    assert (status, answer["minutes"]) == (200, 10)
    assert [(point["uuid"], point["used_bytes"], point["energy_mj"]) for point in answer["points"]] == [
        ("a", GIB, 2),
        ("b", GIB, 2),
    ]
    assert (await site.get("/api/hardware/history?minutes=1"))[1]["points"] == []
    for wrong in ("0", "-5", str(MINUTES_MAX + 1), "x", "1.5"):
        assert (await site.get(f"/api/hardware/history?minutes={wrong}"))[0] == 400
