"""From NVML's ABI to the residency: the budget of a GPU, and what a load was seen to take of it."""

import asyncio
from dataclasses import dataclass

from server.engines.boxes import Boxes
from server.engines.places import State
from server.hardware.memory import headroom_bytes
from server.hardware.monitor import Monitor
from server.hardware.nvml import Nvml
from server.hardware.providers import Loaded
from server.messages import ModelMemory
from tests.clocks import FakeClock
from tests.hardware.conftest import GIB, Stub, gpu

TAKES, CONTEXT, FORESEEN = 30 * GIB, GIB // 2, 28 * GIB
STRANGER = f"7:{2 * GIB}"


@dataclass
class Loader:
    """A driver whose load is a process on the first GPU of the stub."""

    stub: Stub
    rests_in: State = State.COLD
    is_loaded: bool = False

    async def states(self) -> dict[str, State]:
        """See `Driver`."""
        return {"m": State.RESIDENT if self.is_loaded else State.COLD}

    async def load(self, _model: str) -> None:
        """See `Driver`."""
        self.is_loaded = True
        self.stub.tell(gpu(0, used=2 * GIB + TAKES + CONTEXT, compute0=STRANGER, compute1=f"8:{TAKES}"))

    async def unload(self, _model: str) -> None:
        """See `Driver`."""


async def test_a_load_is_measured(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """The bytes of the device, context included, beside a stranger who did not move; the budget is the GPU's."""
    stub.tell(gpu(0, used=2 * GIB, compute0=STRANGER), gpu(1, used=0), devices=2)
    monitor = Monitor(Loaded((nvml,), {}), clock)
    await monitor.look()
    assert monitor.accelerators == ["GPU-0", "GPU-1"]
    assert monitor.memory["GPU-0"].usable_bytes == 80 * GIB - headroom_bytes(80 * GIB)
    assert monitor.memory["GPU-0"].free_bytes == 77 * GIB  # 1 GiB is reserved
    boxes = Boxes(
        monitor,
        memory_bytes=0,
        estimated=lambda *_: ModelMemory(FORESEEN, FORESEEN),
        clock=clock,
        on_load=lambda _: None,
    )
    running = asyncio.create_task(boxes.run())
    boxes.join("one", Loader(stub), url="http://127.0.0.1:1/v1", devices=("GPU-0",))
    async with boxes.use("one", "m", caused_by="ann"):
        (placed,) = boxes.view()
    assert (placed.size_bytes, placed.seen_bytes) == (FORESEEN, TAKES + CONTEXT)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    monitor.close()
