"""docs/security.md says what the code does."""

import re
from pathlib import Path

from server.accounts import refusals, throttle
from server.api import connections, scope
from server.api.headers import ALWAYS, OVER_HTTPS, UNLESS_SAID
from server.cli.serve import WEBSOCKET_BYTES_MAX
from server.settings import Settings
from server.web.sharing import SOCKETS_PER_PERSON_MAX
from tests.web.test_edge import OPEN

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def _rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_open_addresses() -> None:
    """Each that answers without credentials is told, and no other."""
    told = [tuple(row[0].strip("`").split(" ", 1)) for row in _rows("Who may what")]
    assert sorted(told) == sorted(OPEN)


def test_the_headers() -> None:
    """Names and values."""
    told = {name.strip("`"): value.strip("`") for name, value in _rows("Headers")}
    assert told == ALWAYS | UNLESS_SAID | OVER_HTTPS


def test_the_bounds() -> None:
    """Names and figures."""
    units = {"s": 1000, "KiB": 1024, "MiB": 1024**2, "": 1}
    told = {}
    for name, value, _ in _rows("Slow clients, floods, size"):
        figure, _, unit = value.partition(" ")
        told[name.strip("`")] = int(figure) * units[unit]
    assert told == {
        "HEADER_MS_MAX": connections.HEADER_MS_MAX,
        "HEADER_BYTES_MAX": connections.HEADER_BYTES_MAX,
        "GIVE_MS_MAX": scope.GIVE_MS_MAX,
        "GIVE_BYTES_PER_S_MIN": scope.GIVE_BYTES_PER_S_MIN,
        "request_bytes_max": Settings().request_bytes_max,
        "TAKE_MS_MAX": scope.TAKE_MS_MAX,
        "CONNECTIONS_MAX": connections.CONNECTIONS_MAX,
        "SOCKETS_PER_PERSON_MAX": SOCKETS_PER_PERSON_MAX,
        "WEBSOCKET_BYTES_MAX": WEBSOCKET_BYTES_MAX,
    }


def test_the_attempts() -> None:
    """Passwords by pair, address and account; the rest by address."""
    minutes = throttle.WINDOW_S // 60
    bounds = [int(re.findall(r"\d+", row[2])[0]) for row in _rows("Wrong credentials")]
    assert bounds == [*throttle.ATTEMPTS_MAX.values(), Settings().address_refusals_per_minute_max]
    assert all(f"in {minutes} minutes" in row[2] for row in _rows("Wrong credentials")[:3])
    assert f"no more than {refusals.LOOKUPS_AT_ONCE_MAX} unknown credentials" in PAGE.read_text()
