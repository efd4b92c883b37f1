"""What is written about metrics is what there is: docs/metrics.md, the runbook, the dashboard."""

import itertools
import re
from typing import Any

import pytest

import server.app  # noqa: F401 (all that counts is loaded)
from server.telemetry import REGISTRY
from tests.metrics.prometheus import HOUSE, dashboard, rules

PAGE = (HOUSE / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(wirthforge_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
ALERT = re.compile(r"^\| `(Wirthforge\w+)` \| (\w+) \| ([^|]+) \| \[[^\]]+\]\(([^)]+)\) \|$", re.MULTILINE)
COLUMNS = 24


def metrics() -> dict[str, tuple[str, list[str], str]]:
    """Ours in the registry: their kind, labels and help."""
    found = {}
    for collector in {*REGISTRY._collector_to_names}:
        for family in collector.collect():
            if family.name.startswith("wirthforge_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found[name] = (family.type, list(getattr(collector, "_labelnames", ())), family.documentation)
    return found


def test_every_metric_is_documented_as_it_is() -> None:
    """The table names all that there are and no other, with their kind, labels, and help."""
    told = {
        row[1]: (row[2], [label.strip("` ") for label in row[3].split(",") if label.strip()], row[4])
        for row in ROW.finditer(PAGE)
    }
    assert told == metrics()


def test_help_is_a_sentence() -> None:
    """Each metric says what it is, in one line."""
    assert len(metrics()) > 50
    for name, (_, _, words) in metrics().items():
        assert words.endswith("."), name
        assert len(words) < 130, name


def test_every_alert_is_documented_as_it_is() -> None:
    """Its severity, how long its condition holds before it fires, and where the runbook goes on."""
    told = {row[1]: (row[2], row[3].strip(), row[4]) for row in ALERT.finditer(PAGE)}
    assert told == {
        rule["alert"]: (
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            rule["annotations"]["runbook"].removeprefix("docs/"),
        )
        for rule in rules()
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """It has a sentence, and a place in the runbook that there is."""
    assert rule["annotations"]["summary"].rstrip().endswith(".")
    page, anchor = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"^#+ (.+)$", (HOUSE / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def places() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def test_panels_lie_beside_each_other() -> None:
    """On a grid of 24 columns, none over another, no hole above one; each with an id of its own."""
    taken: set[tuple[int, int]] = set()
    for panel in places():
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert taken == set(itertools.product(range(COLUMNS), range(rows)))
    ids = [panel["id"] for panel in places()]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_is_of_the_schema_that_it_names() -> None:
    """What Grafana 10 and later ask of schema 39: a data source and its letter for each query, units, known panels."""
    board = dashboard()
    assert (board["schemaVersion"], board["uid"]) == (39, "wirthforge")
    assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "engine"}
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in places():
        assert panel["type"] in {"row", "stat", "timeseries"}
        if panel["type"] == "row":
            assert (panel["panels"], panel["targets"]) == ([], [])
            continue
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == [chr(ord("A") + number) for number in range(len(letters))] != []
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["legendFormat"]
            words = set(re.findall(r"\$\w+", target["expr"]))
            assert words <= {"$engine", "$__rate_interval", "$__range"}


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    """Else it would be empty."""
    for panel in places():
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                kept = {
                    each.strip() for group in re.findall(r"\(([\w, ]+)\)", target["expr"]) for each in group.split(",")
                }
                assert label in kept, target
