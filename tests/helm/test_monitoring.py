"""The dashboard and the rules speak of metrics and labels that the server has."""

import json
import re
from typing import Any, get_args

import pytest
import yaml  # type: ignore[import-untyped]

from server.sharing.lease import Outcome
from server.telemetry import REGISTRY
from tests.helm.charts import CHART, of_kind, render

RULES: list[dict[str, Any]] = yaml.load((CHART / "alerts" / "wirthforge.yaml").read_text(), yaml.CSafeLoader)["groups"][
    0
]["rules"]
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "wirthforge.json").read_text())
QUERIES = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
# Prometheus and Kubernetes add these when they fetch.
ADDED = {"namespace", "le", "job", "instance"}


def labels_by_name() -> dict[str, set[str]]:
    """Every series that the server can have, with its labels."""
    found: dict[str, set[str]] = {}
    # The names of labels are nowhere else as long as nothing was counted.
    for collector in REGISTRY._collector_to_names:
        names: tuple[str, ...] = getattr(collector, "_labelnames", ())
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = set(names)
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_is_about_metrics_that_there_are(query: str) -> None:
    """A renamed metric, or a label that it has not, is found here and not by an empty panel."""
    known = labels_by_name()
    metrics = set(re.findall(r"\bwirthforge_\w+", query))
    assert metrics
    assert metrics <= known.keys()
    asked = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    asked |= set(re.findall(r"[{,]\s*(\w+)\s*=", query))
    assert asked - ADDED <= set.union(*(known[metric] for metric in metrics))


def test_outcomes_are_those_of_the_server() -> None:
    """An outcome that nobody has would never fire."""
    outcomes = {value for query in QUERIES for value in re.findall(r'outcome="(\w+)"', query)}
    assert outcomes <= set(get_args(Outcome))


def test_the_chart_brings_both_whole() -> None:
    """Neither Helm's templates nor its indentation change them."""
    manifests = render({"prometheusRule": {"enabled": True}, "grafanaDashboard": {"enabled": True}})
    (rule,) = of_kind(manifests, "PrometheusRule")
    assert rule["spec"]["groups"][0]["rules"] == RULES
    (board,) = (each for each in of_kind(manifests, "ConfigMap") if each["metadata"]["name"].endswith("-dashboard"))
    assert json.loads(board["data"]["wirthforge.json"]) == DASHBOARD
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
