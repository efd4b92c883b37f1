"""When each alert fires, and when not: promtool's unit tests, with the shipped rules and their real durations."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from server.hardware.devices import Device, Sample
from tests.metrics.conftest import GPU, Stage, cool
from tests.metrics.prometheus import RULES_FILE, needs_prometheus, promtool, rules, shortened
from tests.metrics.test_series import samples

pytestmark = needs_prometheus

# Prometheus' own series, and the labels that it adds to ours.
OWN, ADDED = {"up"}, {"instance", "job", "namespace"}
NAMED = re.compile(r"^(\w+)(?:\{(.*)\})?$")


class Case(NamedTuple):
    """Series, a value each minute in promtool's notation; and when the alert must be quiet, and fire."""

    series: Mapping[str, str]
    quiet: tuple[str, ...]
    fires: tuple[str, ...] = ()


def waits(most_under_s: int) -> dict[str, str]:
    """Waits of which all are shorter than a bucket's bound, and longer than the one before."""
    bounds = (5, 60, 120)
    return {
        f'wirthforge_queue_seconds_bucket{{engine="a",le="{le}"}}': "0+1x90" if bound >= most_under_s else "0x90"
        for bound, le in [*((bound, f"{bound}.0") for bound in bounds), (1 << 30, "+Inf")]
    }


LAST = "wirthforge_upkeep_last_success_timestamp_seconds"
REQUESTS, HTTP = "wirthforge_model_requests_total", "wirthforge_http_requests_total"
XIDS = f'wirthforge_hardware_xid_total{{device="{GPU}",xid="79"}}'
ALWAYS = "1x90"
CASES: list[tuple[str, str, Case]] = [
    (
        "WirthforgeEngineDown",
        "no server reaches it",
        Case(
            {
                'wirthforge_engine_up{engine="a",instance="1"}': "1x9 0x50",
                'wirthforge_engine_up{engine="a",instance="2"}': "1x11 0x50",
            },
            ("16m",),
            ("18m",),
        ),
    ),
    (
        "WirthforgeEngineDown",
        "one server does",
        Case(
            {
                'wirthforge_engine_up{engine="a",instance="1"}': "0x90",
                'wirthforge_engine_up{engine="a",instance="2"}': ALWAYS,
            },
            ("90m",),
        ),
    ),
    (
        "WirthforgeAnswersFail",
        "one of ten",
        Case(
            {
                f'{REQUESTS}{{engine="a",outcome="failed"}}': "0+1x90",
                f'{REQUESTS}{{engine="a",outcome="completed"}}': "0+9x90",
            },
            ("9m",),
            ("13m",),
        ),
    ),
    (
        "WirthforgeAnswersFail",
        "people who leave, and one of fifty",
        Case(
            {
                f'{REQUESTS}{{engine="a",outcome="failed"}}': "0+1x90",
                f'{REQUESTS}{{engine="a",outcome="cancelled"}}': "0+20x90",
                f'{REQUESTS}{{engine="a",outcome="completed"}}': "0+29x90",
            },
            ("90m",),
        ),
    ),
    (
        "WirthforgeServerErrors",
        "three of a hundred",
        Case(
            {
                f'{HTTP}{{method="POST",route="/",status="502"}}': "0+3x90",
                f'{HTTP}{{method="POST",route="/",status="200"}}': "0+97x90",
            },
            ("9m",),
            ("13m",),
        ),
    ),
    (
        "WirthforgeServerErrors",
        "refused, full, left",
        Case(
            {f'{HTTP}{{method="POST",route="/",status="{status}"}}': "0+30x90" for status in (200, 401, 429, 499, 503)},
            ("90m",),
        ),
    ),
    ("WirthforgeLongWaits", "those who got a slot", Case(waits(120), ("14m",), ("18m",))),
    (
        "WirthforgeLongWaits",
        "those who get none",
        Case({'wirthforge_queue_oldest_seconds{engine="a"}': "121x90"}, ("14m",), ("16m",)),
    ),
    (
        "WirthforgeLongWaits",
        "seconds",
        Case({**waits(5), 'wirthforge_queue_oldest_seconds{engine="a"}': "100x90"}, ("90m",)),
    ),
    ("WirthforgeReplicaLost", "once", Case({"wirthforge_leases_reaped_total": "0x9 2x80"}, ("9m", "40m"), ("11m",))),
    (
        "WirthforgeServerGone",
        "it does not answer",
        Case(
            {
                'up{job="wirthforge",instance="1"}': "1x9 0x50",
                'up{job="wirthforge",instance="2"}': ALWAYS,
                'wirthforge_build_info{instance="2",version="0",python="3"}': ALWAYS,
            },
            ("14m",),
            ("16m",),
        ),
    ),
    (
        "WirthforgeServerGone",
        "nothing is scraped any more",
        Case({'wirthforge_build_info{version="0",python="3"}': "1x9 stale"}, ("14m",), ("16m",)),
    ),
    (
        "WirthforgeServerGone",
        "something else",
        Case(
            {'up{job="printer"}': "0x90", 'wirthforge_build_info{version="0",python="3"}': ALWAYS},
            ("90m",),
        ),
    ),
]
for name, what in (("WirthforgePostgresAway", "postgres"), ("WirthforgeRedisAway", "redis")):
    up = f"wirthforge_{what}_up"
    CASES += [
        (
            name,
            "for one server",
            Case({f'{up}{{instance="1"}}': ALWAYS, f'{up}{{instance="2"}}': "1x9 0x50"}, ("11m",), ("13m",)),
        ),
        (name, "for a minute", Case({up: "1x9 0x0 1x50"}, ("9m", "10m", "11m", "12m", "13m"))),
    ]
CASES += [
    ("WirthforgeUpkeepLate", "for two days", Case({f'{LAST}{{task="archive"}}': "0x3300"}, ("50h",), ("52h",))),
    (
        "WirthforgeUpkeepLate",
        "it fails",
        Case({'wirthforge_upkeep_failed{task="archive"}': "0x9 1x300"}, ("185m",), ("195m",)),
    ),
    (
        "WirthforgeUpkeepLate",
        "backups are something else, and an hour of failing is tried again",
        Case(
            {
                f'{LAST}{{task="backup"}}': "0x3300",
                'wirthforge_upkeep_failed{task="archive"}': "0x9 1x70 0x3000",
            },
            ("70m", "52h"),
        ),
    ),
    ("WirthforgeBackupLate", "for two days", Case({f'{LAST}{{task="backup"}}': "0x3300"}, ("48h30m",), ("50h",))),
    (
        "WirthforgeBackupLate",
        "it lacks files",
        Case({'wirthforge_upkeep_failed{task="backup"}': "0x9 1x300"}, ("65m",), ("75m",)),
    ),
    ("WirthforgeBackupLate", "daily", Case({f'{LAST}{{task="backup"}}': "0+60x3300"}, ("54h",))),
    (
        "WirthforgeDiskFull",
        "four of a hundred are free",
        Case(
            {
                'wirthforge_disk_free_bytes{folder="data"}': "4x90",
                'wirthforge_disk_size_bytes{folder="data"}': "100x90",
            },
            ("14m",),
            ("16m",),
        ),
    ),
    (
        "WirthforgeDiskFull",
        "six of a hundred",
        Case(
            {
                'wirthforge_disk_free_bytes{folder="data"}': "6x90",
                'wirthforge_disk_size_bytes{folder="data"}': "100x90",
            },
            ("90m",),
        ),
    ),
    (
        "WirthforgeDeviceHot",
        "89 degrees",
        Case({f'wirthforge_hardware_temperature_celsius{{device="{GPU}"}}': "89x90"}, ("4m",), ("6m",)),
    ),
    (
        "WirthforgeDeviceHot",
        "warm",
        Case({f'wirthforge_hardware_temperature_celsius{{device="{GPU}"}}': "85x90"}, ("90m",)),
    ),
    *(
        (
            "WirthforgeDeviceMemoryFull",
            f"{free} of 1000 are free",
            Case(
                {
                    f'wirthforge_hardware_memory_free_bytes{{device="{GPU}"}}': f"{free}x90",
                    f'wirthforge_hardware_memory_bytes{{device="{GPU}"}}': "1000x90",
                },
                ("14m",) if free == 5 else ("90m",),
                ("16m",) if free == 5 else (),
            ),
        )
        for free in (5, 50)
    ),
    ("WirthforgeDeviceFault", "the first", Case({XIDS: "_x9 1x80"}, ("8m", "40m"), ("11m",))),
    ("WirthforgeDeviceFault", "another", Case({XIDS: "1x30 2x50"}, ("29m", "60m"), ("32m",))),
]


def unit_test(alert: str, case: Case) -> dict[str, object]:
    """A case in promtool's words."""

    def at(time: str, count: int) -> dict[str, object]:
        found = [{"labels": "{}", "value": count}] if count else []
        expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        return {"expr": expression, "eval_time": time, "exp_samples": found}

    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [*(at(time, 0) for time in case.quiet), *(at(time, 1) for time in case.fires)],
    }


def test_each_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    """None is forgotten."""
    for rule in rules():
        own = [case for alert, _, case in CASES if alert == rule["alert"]]
        assert [case for case in own if case.fires], rule["alert"]
        assert [case for case in own if case.quiet], rule["alert"]


def test_prometheus_takes_the_rules() -> None:
    """As they are, and as the live test shortens them."""
    checked = promtool("check", "rules", str(RULES_FILE))
    assert (checked.returncode, checked.stderr) == (0, "")
    short = json.dumps({"groups": [{"name": "short", "rules": [shortened(rule) for rule in rules()]}]})
    checked = promtool("check", "rules", "/dev/stdin", stdin=short)
    assert checked.returncode == 0, checked.stderr


def test_shortening_changes_durations_and_nothing_else() -> None:
    """With the durations taken out, the rules are the same."""
    durations = re.compile(r"\[\w+\]|offset \w+|[\d.]+ # seconds")
    for rule in rules():
        short = shortened(rule)
        assert short.keys() == rule.keys()
        assert durations.sub("T", short["expr"]) == durations.sub("T", rule["expr"])
        assert {**short, "expr": "", "for": ""} == {**rule, "expr": "", "for": ""}


@pytest.mark.parametrize("alert", sorted({alert for alert, _, _ in CASES}))
def test_it_fires_in_time_and_not_before(tmp_path: Path, alert: str) -> None:
    """Each case, minute by minute; the rule by itself, since days have many minutes."""
    shipped = tmp_path / "rule.yaml"
    (rule,) = (rule for rule in rules() if rule["alert"] == alert)
    shipped.write_text(json.dumps({"groups": [{"name": "one", "rules": [rule]}]}))
    tests = {
        "rule_files": [str(shipped)],
        "evaluation_interval": "1m",
        "tests": [unit_test(alert, case) for name, _, case in CASES if name == alert],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps(tests))
    checked = promtool("test", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_cases_are_about_series_that_a_box_has(stage: Stage) -> None:
    """Each name is on the page of a box that has worked, with exactly these labels."""

    def faulty(device: Device) -> Sample:
        return replace(cool(device), xids=(79,))

    stage.gpu.sampled = faulty
    await stage.note("archive", "backup")
    assert await stage.ask("well") == 200
    page = await stage.page()
    while "wirthforge_hardware_xid_total{" not in page:
        page = await stage.page()
    labels: dict[str, set[frozenset[str]]] = {}
    for sample in samples(page):
        labels.setdefault(sample.name, set()).add(frozenset(sample.labels))
    for _, _, case in CASES:
        for series in case.series:
            named = NAMED.match(series)
            assert named is not None
            asked = frozenset(re.findall(r'(\w+)="', named[2] or "")) - ADDED
            assert named[1] in OWN or labels[named[1]] == {asked}, series
