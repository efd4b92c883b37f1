"""Houses: data folders for the command line, with short paths, since sockets lie in them."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.programs import House, Server


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house."""
    home = Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp"))
    yield House(home)
    shutil.rmtree(home)


@pytest.fixture
def start(house: House) -> Iterator[Callable[..., Server]]:
    """Starts servers that do not outlive the test."""
    started: list[Server] = []

    def begin(*words: str, **settings: str) -> Server:
        started.append(house.start(*words, **settings))
        return started[-1]

    yield begin
    for server in started:
        server.end()


@pytest.fixture(scope="module")
def open_house() -> Iterator[tuple[House, Server]]:
    """A house in which a server runs, for tests that leave it as it is."""
    home = Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp"))
    house = House(home)
    server = house.start()
    yield house, server
    server.end()
    shutil.rmtree(home)
