"""Real parts in short, private folders; whatever a test leaves running is ended."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from benchmarks import tiny_model
from server.clock import SystemClock
from server.embedded.paths import socket_dir
from server.embedded.supervisor import Part

REPOSITORY = Path(__file__).parents[2]
OUTLIVES_MS_MAX = 10_000


@pytest.fixture
def clock() -> SystemClock:
    """The machine's clock: the parts are real programs, which know no other."""
    return SystemClock()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def long_data_dir(data_dir: Path) -> Iterator[Path]:
    """A data folder whose path is too long for a socket."""
    folder = data_dir / ("long" * 25)
    folder.mkdir()
    yield folder
    shutil.rmtree(socket_dir(folder), ignore_errors=True)


@pytest.fixture(scope="session")
def model() -> Iterator[Path]:
    """The demonstration model, written once."""
    with tempfile.TemporaryDirectory(prefix="wf-", dir="/tmp") as folder:
        path = Path(folder) / "tiny.gguf"
        tiny_model.build(path)
        yield path


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Part], Awaitable[None]]]:
    """Starts a part, and stops it after the test however that ends."""
    async with AsyncExitStack() as stack:

        async def start(part: Part) -> None:
            stack.push_async_callback(part.stop)
            await part.start()

        yield start


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs a program of this folder, or any command, with pipes; it and its descendants are gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str | Path, **options: object) -> subprocess.Popen[str]:
        program: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]  # noqa: S603 (our own programs)
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            **options,
        )
        started.append(program)
        return program

    yield start
    for program in started:
        with program:
            family = family_of(program.pid)
            program.kill()
        psutil.wait_procs(family, timeout=OUTLIVES_MS_MAX / 1000)


@pytest.fixture
def all_three(spawn: Callable[..., subprocess.Popen[str]], data_dir: Path, model: Path) -> subprocess.Popen[str]:
    """A server's skeleton (parent.py) in a session of its own, up."""
    program = spawn(sys.executable, "-P", Path(__file__).parent / "parent.py", data_dir, model, start_new_session=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    return program


def family_of(pid: int) -> list[psutil.Process]:
    """All descendants of a process: leashes, what they hold, and its children."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def family() -> Callable[[int], list[psutil.Process]]:
    """`family_of`, for the tests."""
    return family_of
