"""Plugins: a worked example, as if it were installed, and broken ones, which hurt nobody."""

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import structlog

from server.hardware.devices import Provider
from server.hardware.monitor import Monitor
from server.hardware.providers import GROUP, Loaded, load
from tests.clocks import FakeClock

EXAMPLE = Path(__file__).with_name("example_plugin")
OURS = ["nvml", "amd", "npu", "host"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example plugin, with what an installer writes from its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "wirthforge_example_hardware-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"][GROUP]
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{one} = {points[one]}\n" for one in points))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "wirthforge_example_hardware", raising=False)


@pytest.mark.usefixtures("installed")
async def test_a_plugin_is_found_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """Its devices stand beside ours; without its devices it is a normal state."""
    loaded = load(clock)
    assert [provider.name for provider in loaded.providers] == [*OURS, "example"]
    assert loaded.broken == {}
    await _ask_it(loaded.providers[-1], clock, absent="EXAMPLE_ACCELERATORS names no folder")
    for name, text in (("memory_total", "1000"), ("memory_used", "400")):
        (tmp_path / "accelerators" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "accelerators" / "a" / name).write_text(text)
    monkeypatch.setenv("EXAMPLE_ACCELERATORS", str(tmp_path / "accelerators"))
    await _ask_it(load(clock).providers[-1], clock, free=600)


async def _ask_it(provider: Provider, clock: FakeClock, *, absent: str = "", free: int | None = None) -> None:
    monitor = Monitor(Loaded((provider,), {}), clock)
    snapshot = await monitor.look()
    monitor.close()
    assert snapshot.absent == ({"example": absent} if absent else {})
    assert snapshot.faults == {}
    assert [snapshot.samples[device.uuid].free_bytes for device in snapshot.devices] == ([] if free is None else [free])


BROKEN = {
    "missing": ("wirthforge_no_such_module:open", "ModuleNotFoundError: No module named 'wirthforge_no_such_module'"),
    "nameless": ("wirthforge_broken:nothing", "AttributeError: "),
    "raises": ("wirthforge_broken:raises", "RuntimeError: no licence"),
    "leaves": ("wirthforge_broken:leaves", "SystemExit: 3"),
    "half": ("wirthforge_broken:half", "TypeError: it has not all of name, devices, sample and close"),
    "thief": ("wirthforge_broken:thief", "ValueError: its name 'nvml' is no name, or another's"),
}
SOURCE = """
import sys
def raises(clock): raise RuntimeError("no licence")
def leaves(clock): sys.exit(3)
def half(clock): return object()
class Thief:
    name = "nvml"
    def devices(self): return []
    def sample(self, device): return None
    def close(self): pass
def thief(clock): return Thief()
"""


async def test_broken_plugins_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """Each in the log and in the snapshot, by its name; our own providers are all there."""
    (tmp_path / "wirthforge_broken.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with structlog.testing.capture_logs() as lines:
        loaded = load(clock, [EntryPoint(name, value, GROUP) for name, (value, _) in BROKEN.items()])
    assert [provider.name for provider in loaded.providers] == OURS
    assert [line["plugin"] for line in lines if line["event"] == "hardware plugin left out"] == list(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert loaded.broken[name].startswith(reason)
    monitor = Monitor(Loaded((), loaded.broken), clock)
    assert (await monitor.look()).faults["raises"] == "plugin left out: RuntimeError: no licence"
    monitor.close()
