"""A real Prometheus (Debian's package, tools/install-prometheus) on the loopback interface, and what is asked of it."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from server.clock import SystemClock
from tests.boxes import Box, Person

HOUSE = Path(__file__).parents[2]
RULES_FILE = HOUSE / "helm" / "alerts" / "wirthforge.yaml"
BOARD_FILE = HOUSE / "helm" / "dashboards" / "wirthforge.json"
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wirthforge" / "prometheus"

SCRAPE_MS, EVALUATE_MS = 1_000, 250
STARTS_MS_MAX = 15_000
POLL_MS = 100
# Minutes become seconds, or parts of one. A window has to hold several scrapes, so windows are shortened less.
# On a busy machine one scrape may come too late: that alone is not long enough for any alert.
WINDOWS_SHORTER, WAITS_SHORTER, WAIT_MS_MIN = 100, 2_000, 2_500
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile(r"\[(\d+)([smhd])\]|offset (\d+)([smhd])|(\d+) # seconds")


def program(name: str) -> Path | None:
    """One of its two programs, where it is there."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    return KEPT / name if (KEPT / name).is_file() else None


PROMETHEUS, PROMTOOL = program("prometheus"), program("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="Prometheus is not there: run tools/install-prometheus"
)


def rules() -> list[dict[str, Any]]:
    """The alerts, as they are shipped."""
    (group,) = yaml.load(RULES_FILE.read_text(), yaml.CSafeLoader)["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard, as it is shipped."""
    found: dict[str, Any] = json.loads(BOARD_FILE.read_text())
    return found


def shortened(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The same alert with its durations shortened, and nothing else changed.

    Windows and offsets, and numbers before `# seconds`, go to 1/WINDOWS_SHORTER; how long a condition has to hold
    (`for`) goes to 1/WAITS_SHORTER.
    """

    def shorter(match: re.Match[str]) -> str:
        if match[5]:
            return f"{int(match[5]) / WINDOWS_SHORTER} # seconds"
        number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
        duration = f"{int(number) * UNITS_MS[unit] // WINDOWS_SHORTER}ms"
        return f"[{duration}]" if match[1] else f"offset {duration}"

    short = {**rule, "expr": DURATION.sub(shorter, rule["expr"])}
    if "for" in rule:
        wait_ms = int(rule["for"][:-1]) * UNITS_MS[rule["for"][-1]] // WAITS_SHORTER
        short["for"] = f"{max(wait_ms, WAIT_MS_MIN)}ms"
    return short


def promtool(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    assert PROMTOOL is not None
    return subprocess.run(  # noqa: S603 (found by us)
        [PROMTOOL, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


class Prometheus:
    """One that runs."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._clock = SystemClock()
        # Every alert that was seen to fire, in their order.
        self.fired: dict[str, dict[str, Any]] = {}

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now. Fails the test where Prometheus refuses it."""
        answer = (await self._client.get("/api/v1/query", params={"query": expression})).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def alerts(self) -> dict[str, dict[str, Any]]:
        """Those that are pending or fire, by name."""
        answer = (await self._client.get("/api/v1/alerts")).json()
        found = {alert["labels"]["alertname"]: alert for alert in answer["data"]["alerts"]}
        self.fired |= {name: alert for name, alert in found.items() if alert["state"] == "firing"}
        return found

    async def is_quiet(self, within_ms: int = 5_000) -> None:
        """Wait until nothing is even pending. Fails the test where something fires."""
        deadline_ms = self._clock.monotonic_ms() + within_ms
        while pending := await self.alerts():
            assert not self.fired, self.fired
            assert self._clock.monotonic_ms() < deadline_ms, f"{list(pending)} are pending after {within_ms} ms"
            await self._clock.sleep_ms(POLL_MS)

    async def evaluations(self) -> Mapping[str, str]:
        """The error of each rule, empty where it is well."""
        answer = (await self._client.get("/api/v1/rules")).json()
        return {rule["name"]: rule.get("lastError", "") for rule in answer["data"]["groups"][0]["rules"]}

    async def fires(self, *names: str, within_ms: int = 20_000) -> None:
        """Wait until each of these has fired."""
        deadline_ms = self._clock.monotonic_ms() + within_ms
        while True:
            now = await self.alerts()
            if not (missing := set(names) - self.fired.keys()):
                return
            state = {name: alert["state"] for name, alert in now.items()}
            assert self._clock.monotonic_ms() < deadline_ms, f"{missing} did not fire within {within_ms} ms; {state}"
            await self._clock.sleep_ms(POLL_MS)

    async def gives(self, expression: str, within_ms: int = 10_000) -> list[dict[str, Any]]:
        """Wait until an expression gives numbers; that of an engine that nobody asked lately is none."""
        deadline_ms = self._clock.monotonic_ms() + within_ms
        while not (found := [each for each in await self.query(expression) if each["value"][1] != "NaN"]):
            assert self._clock.monotonic_ms() < deadline_ms, f"{expression} is empty after {within_ms} ms"
            await self._clock.sleep_ms(POLL_MS)
        return found


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _configuration(folder: Path, box: Box, scraper: Person, alerts: Sequence[Mapping[str, Any]]) -> str:
    """As docs/metrics.md has it, but for the durations."""
    key = folder / "key"
    key.write_text(scraper.key)
    (folder / "rules.yaml").write_text(json.dumps({"groups": [{"name": "wirthforge", "rules": alerts}]}))
    return json.dumps(
        {
            "global": {
                "scrape_interval": f"{SCRAPE_MS}ms",
                "scrape_timeout": f"{SCRAPE_MS}ms",
                "evaluation_interval": f"{EVALUATE_MS}ms",
            },
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [
                {
                    "job_name": "wirthforge",
                    "authorization": {"credentials_file": str(key)},
                    "static_configs": [{"targets": [box.url.removeprefix("http://")]}],
                }
            ],
        }
    )


@asynccontextmanager
async def scraping(
    folder: Path, box: Box, scraper: Person, alerts: Sequence[Mapping[str, Any]] = ()
) -> AsyncIterator[Prometheus]:
    """Run one that scrapes a box; ready when it has seen it."""
    assert PROMETHEUS is not None
    file, port, clock = folder / "prometheus.yaml", _free_port(), SystemClock()
    file.write_text(_configuration(folder, box, scraper, alerts))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            deadline_ms = clock.monotonic_ms() + STARTS_MS_MAX
            while not await _is_ready(client):
                said = (folder / "prometheus.log").read_text()
                assert process.returncode is None, said
                assert clock.monotonic_ms() < deadline_ms, said
                await clock.sleep_ms(POLL_MS)
            prometheus = Prometheus(client)
            await prometheus.gives('up{job="wirthforge"} == 1')
            yield prometheus
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False
