"""What tests of reports share: requests that ended, devices that told of themselves."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert

from server.clock import uuid7
from server.db.models import HardwareDevice, HardwareSample, Usage
from server.db.session import Database
from server.messages import Principal, Role

MS = timedelta(milliseconds=1)


def somebody(name: str = "ann", role: Role = "member") -> Principal:
    """A person who asks for a report."""
    return Principal(id=uuid4(), name=name, role=role)


def request(at: datetime, *, of: UUID, run_ms: int = 1_000, **fields: Any) -> dict[str, Any]:
    """One that got its slot at once, unless the fields say otherwise."""
    row: dict[str, Any] = {
        "request_id": uuid7(at),
        "user_id": of,
        "key_id": None,
        "surface": "chat.completions",
        "model": "m",
        "engine": "e",
        "input_tokens": 10,
        "output_tokens": 20,
        "queue_ms": 0,
        "total_ms": run_ms,
        "paused_ms": 0,
        "council_id": None,
        "outcome": "completed",
        "started_at": at,
    }
    return {**row, **fields}


async def use(database: Database, *rows: dict[str, Any]) -> None:
    """Rows as the writer writes them."""
    async with database.transaction(everybody=True) as session:
        await session.execute(insert(Usage), list(rows))


async def sample(
    database: Database, device: str, at: datetime, readings: Sequence[dict[str, int | None]], *, period_s: int = 30
) -> None:
    """What a device told, period by period."""
    async with database.transaction() as session:
        device_id = await session.scalar(
            insert(HardwareDevice).values(uuid=device, kind="gpu", name=device).returning(HardwareDevice.id)
        )
        rows = [
            {
                "device_id": device_id,
                "at": at + each * timedelta(seconds=period_s),
                "energy_mj": None,
                "power_mw": None,
                **reading,
            }
            for each, reading in enumerate(readings)
        ]
        await session.execute(insert(HardwareSample), rows)
