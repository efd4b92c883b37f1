"""NVML without a GPU: our own library in C that speaks its ABI, loaded by pynvml itself."""

import subprocess
from collections.abc import Callable, Iterator
from ctypes import CDLL
from pathlib import Path
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from server.hardware.nvml import Nvml
from tests.clocks import FakeClock

SOURCE = Path(__file__).with_name("nvml_stub.c")
LIBRARY = "libnvidia-ml.so.1"
GIB = 1 << 30


def build(folder: Path, *flags: str) -> Path:
    """Compile the stand-in. A machine without gcc fails here: the tests need Debian's packages gcc and libc6-dev."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    command = [
        "gcc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        *flags,
        "-o",
        str(library),
        str(SOURCE),
    ]
    try:
        subprocess.run(command, check=True, timeout=60)  # noqa: S603
    except FileNotFoundError:
        pytest.fail("gcc is missing: install the packages gcc and libc6-dev")
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, as a driver of today."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, as a driver of 2020."""
    return build(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


def gpu(index: int, **more: Any) -> dict[str, Any]:
    """What a GPU with 80 GiB tells; None takes something away."""
    told = {
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "bus": 0x41 + index,
        "capability": 90,
        "total": 80 * GIB,
        "reserved": GIB,
        "used": 20 * GIB,
        "busy": 75,
        "memory_busy": 40,
        "power": 350_000,
        "limit": 700_000,
        "energy": 123_456_789_012,
        "temperature": 61,
        "reasons": 0x4,
        "mig": 0,
        **more,
    }
    return {f"{index}.{name}": value for name, value in told.items() if value is not None}


class Stub:
    """What the stand-in tells."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[str, Any] = {}
        self.tell(driver="580.105.08", devices=0)

    def tell(self, *more: dict[str, Any], **plain: Any) -> None:
        """Change it; None forgets a key."""
        for part in (*more, plain):
            self._told |= part
        lines = [f"{key} {value}\n" for key, value in self._told.items() if value is not None]
        self._path.write_text("".join(lines))


MakeStub = Callable[[Path], Stub]


@pytest.fixture
def stub_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStub:
    """Has pynvml speak with a library, instead of the driver's that it would look for."""

    def make(library: Path) -> Stub:
        monkeypatch.setenv("NVML_STUB", str(tmp_path / "nvml.txt"))
        # pynvml keeps the library and every function that it found in it.
        monkeypatch.setattr(pynvml, "nvmlLib", CDLL(str(library)))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return Stub(tmp_path / "nvml.txt")

    return make


@pytest.fixture
def stub(stub_of: MakeStub, library: Path) -> Stub:
    """A driver of today."""
    return stub_of(library)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def nvml(clock: FakeClock, tmp_path: Path) -> Iterator[Nvml]:
    """The provider."""
    provider = Nvml(clock, sysfs=tmp_path)
    yield provider
    provider.close()
