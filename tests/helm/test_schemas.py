"""Every example and every kind of resource, as helm and Kubernetes see it."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.helm.charts import CHART, EXAMPLES, TOOLS, Manifest, Values, example, helm, render

# The newest when this was written, in 2026-11.
MINORS = ("1.35", "1.36", "1.37")
NAMES = [path.stem for path in EXAMPLES]
EVERYTHING: Values = {
    **example("three-replicas"),
    "route": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["ai.example.org"]},
    "ray": {"enabled": True, "model": "Qwen/Qwen3-32B", "huggingFace": {"existingSecret": "hugging-face"}},
    "backup": {"enabled": True},
}
OTHERS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1", "ray.io/v1")


def faults(manifests: list[Manifest], against: str) -> list[str]:
    """What the checker finds in them."""
    program = TOOLS / "bin" / "python"
    assert program.exists(), "the schemas are not there: run `make helm`"
    done = subprocess.run(  # noqa: S603 (our own checker)
        [program, Path(__file__).with_name("checker.py"), against],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", [*NAMES, "the defaults"])
def test_helm_finds_nothing_to_say(name: str) -> None:
    """`helm lint --strict`."""
    values = {} if name == "the defaults" else example(name)
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("minor", MINORS)
def test_kubernetes_takes_the_manifests(minor: str) -> None:
    """Against the schemas of the three newest minor versions, to the letter, on installation and on upgrade."""
    manifests = {
        json.dumps(manifest, sort_keys=True): manifest
        for values in ({}, EVERYTHING, *map(example, NAMES))
        for flags in ((), ("--is-upgrade",))
        for manifest in render(values, *flags)
        if manifest["apiVersion"] not in OTHERS
    }
    assert {"Deployment", "StatefulSet", "Job", "CronJob", "Ingress"} <= {each["kind"] for each in manifests.values()}
    assert faults(list(manifests.values()), minor) == []


def test_a_wrong_manifest_is_found() -> None:
    """The check checks: a field that is misspelt, a number that is text, a version that is gone."""
    server = next(each for each in render() if each["kind"] == "Deployment")
    misspelt = {**server, "spec": {**server["spec"], "replica": 1}}
    text = {**server, "spec": {**server["spec"], "replicas": "1"}}
    gone = {**server, "apiVersion": "apps/v1beta1"}
    found = faults([misspelt, server, text, gone], "1.37")
    assert len(found) == 3
    assert all(word in line for word, line in zip(("replica'", "replicas", "apps/v1beta1"), found, strict=True)), found


def test_other_projects_take_their_resources() -> None:
    """ServiceMonitor, PrometheusRule, HTTPRoute and RayService hold to their definitions, to the letter."""
    manifests = [each for each in render(EVERYTHING) if each["apiVersion"] in OTHERS]
    assert {each["kind"] for each in manifests} == {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "RayService"}
    route = next(each for each in manifests if each["kind"] == "HTTPRoute")
    misspelt = {**route, "spec": {**route["spec"], "hostname": "x"}}
    (found,) = faults([*manifests, misspelt], str(TOOLS / "definitions"))
    assert "'hostname' was unexpected" in found


def test_every_template_is_shown_by_an_example() -> None:
    """Nothing in templates/ is there for nobody."""
    seen = set()
    for values in [{}, *map(example, NAMES)]:
        done = helm("template", "box", str(CHART), values=values)
        seen |= {
            line.rpartition("/")[2] for line in done.stdout.splitlines() if line.startswith("# Source: wirthforge/")
        }
    quiet = {"validate.yaml", "extra.yaml"}  # speaks only of faults; holds what people add
    assert {path.name for path in (CHART / "templates").glob("*.yaml")} - quiet == seen
