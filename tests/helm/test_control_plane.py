"""The chart in a real Kubernetes API server: installed, upgraded, rolled back, tested, uninstalled, installed again.

Skipped where etcd and kube-apiserver are not there: `tools/install-control-plane` compiles them in ten minutes.
"""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.helm.charts import CHART, EXAMPLES, TOOLS, Values, containers, example, pods, render
from tests.helm.cluster import PROGRAMS, Cluster, Told, control_plane

pytestmark = [
    pytest.mark.skipif(not (PROGRAMS / "kube-apiserver").exists(), reason="tools/install-control-plane compiles it"),
    pytest.mark.timeout(180),
]
BACKED_UP: Values = {"backup": {"enabled": True}}
NEWER: Values = {**BACKED_UP, "image": {"tag": "9.9.9"}}


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """A program that lives as long as this context."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as program:  # noqa: S603
        try:
            yield
        finally:
            program.terminate()


def free_port() -> int:
    """One that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests of this file, with the definitions of resources of others."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "certificates").mkdir()
    with control_plane(folder, [free_port() for _ in range(3)], running) as made:
        for path in (TOOLS / "definitions").glob("*.yaml"):
            definition = yaml.load(path.read_text(), yaml.CSafeLoader)
            answer = made.api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition)
            assert answer.status_code == 201, answer.text
        yield made


def image_of(cluster: Cluster, namespace: str) -> str:
    """What the servers are told to run."""
    found = cluster.all(f"/apis/apps/v1/namespaces/{namespace}/deployments")["box-wirthforge"]
    image: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def kept(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """What must outlive everything: passwords, and the names of volumes."""
    secrets = cluster.all(f"/api/v1/namespaces/{namespace}/secrets")
    return {
        "passwords": secrets["box-wirthforge-auth"]["data"],
        "volumes": set(cluster.all(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")),
    }


def test_the_life_of_a_release(cluster: Cluster) -> None:
    """Passwords and volumes are the same over upgrade, rollback, uninstall and a new installation."""
    cluster.namespace("home")
    with Told(cluster, "home") as told:

        def helm(command: str, *arguments: str, values: Values | None = None) -> str:
            done = cluster.helm(command, "box", *arguments, "--namespace", "home", values=values)
            assert done.returncode == 0, done.stderr
            assert "would violate PodSecurity" not in done.stderr
            return done.stdout

        said = helm("install", str(CHART), values=BACKED_UP)
        assert "wirthforge user add admin --role admin" in said
        first = kept(cluster, "home")
        assert len(first["passwords"]) == 6
        assert first["volumes"] == {
            "box-wirthforge-data",
            "box-wirthforge-backups",
            "box-wirthforge-engine-main-models",
        }
        assert image_of(cluster, "home") == "wirthforge:0.1.0"
        sets = cluster.all("/apis/apps/v1/namespaces/home/statefulsets")
        assert set(sets) == {"box-wirthforge-postgresql", "box-wirthforge-redis"}

        helm("upgrade", str(CHART), values=NEWER)
        assert [re.sub("-[0-9a-f]{8}$", "-of-the-installation", name) for name in told.ended] == [
            "box-wirthforge-migrate-of-the-installation",
            "box-wirthforge-migrate",
        ]
        assert cluster.all("/apis/batch/v1/namespaces/home/jobs") == {}
        assert image_of(cluster, "home") == "wirthforge:9.9.9"
        assert kept(cluster, "home") == first

        helm("rollback", "1")
        assert image_of(cluster, "home") == "wirthforge:0.1.0"
        assert kept(cluster, "home") == first

        assert "Phase:          Succeeded" in helm("test")

        helm("uninstall")
        assert cluster.all("/apis/apps/v1/namespaces/home/deployments") == {}
        assert kept(cluster, "home") == first

        helm("install", str(CHART), values=BACKED_UP)
        assert kept(cluster, "home") == first


def test_a_migration_that_fails_stops_the_upgrade(cluster: Cluster) -> None:
    """Before anything else has changed: the old servers go on."""
    cluster.namespace("failing")
    with Told(cluster, "failing") as told:
        assert cluster.helm("install", "box", str(CHART), "-n", "failing", values={}).returncode == 0
        told.failing.add("box-wirthforge-migrate")
        done = cluster.helm("upgrade", "box", str(CHART), "-n", "failing", values=NEWER)
        assert done.returncode != 0
        assert "pre-upgrade hooks failed" in done.stderr
        assert image_of(cluster, "failing") == "wirthforge:0.1.0"
        told.failing.clear()
        assert cluster.helm("upgrade", "box", str(CHART), "-n", "failing", values=NEWER).returncode == 0
        assert image_of(cluster, "failing") == "wirthforge:9.9.9"


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_every_example_can_be_installed(cluster: Cluster, name: str) -> None:
    """The API server takes everything, and has nothing to warn of; so on the way back."""
    cluster.namespace(name)
    with Told(cluster, name) as told:
        for command in ("install", "upgrade"):
            done = cluster.helm(command, "box", str(CHART), "-n", name, values=example(name))
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
        assert told.ended.count("box-wirthforge-migrate") >= 1
        assert cluster.helm("uninstall", "box", "-n", name).returncode == 0


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_every_pod_is_admitted_where_the_restricted_standard_is_enforced(cluster: Cluster, name: str) -> None:
    """Controllers make pods later, and would be refused later: so each is offered as it is."""
    namespace = f"pods-{name}"
    cluster.namespace(namespace)
    account = {"metadata": {"name": "box-wirthforge"}}
    cluster.api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json=account).raise_for_status()
    cluster.api.post("/apis/node.k8s.io/v1/runtimeclasses", json={"metadata": {"name": "nvidia"}, "handler": "nvidia"})
    tried = 0
    for number, (where, pod) in enumerate(pods(render(example(name)))):
        made = {**pod, "metadata": {"name": f"pod-{number}", "labels": pod["metadata"]["labels"]}}
        answer = cluster.api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", json=made)
        assert answer.status_code == 201, (where, answer.text)
        tried += len(list(containers(pod)))
    assert tried > 4


def test_a_pod_that_is_root_is_not_admitted(cluster: Cluster) -> None:
    """The check checks."""
    cluster.namespace("strict")
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    answer = cluster.api.post("/api/v1/namespaces/strict/pods?dryRun=All", json=pod)
    assert answer.status_code == 403
    assert "violates PodSecurity" in answer.text


def test_the_key_of_engines_is_there_before_they_ask_for_it(cluster: Cluster) -> None:
    """A release from before this key gets one and keeps its passwords; a secret of one's own must have one."""
    cluster.namespace("keys")
    secrets = "/api/v1/namespaces/keys/secrets"
    with Told(cluster, "keys"):

        def helm(command: str, values: Values) -> "subprocess.CompletedProcess[str]":
            return cluster.helm(command, "box", str(CHART), "-n", "keys", values=values)

        assert helm("install", {}).returncode == 0
        made = cluster.all(secrets)["box-wirthforge-auth"]
        older = {name: value for name, value in made["data"].items() if name != "engine-key"}
        cluster.api.put(f"{secrets}/box-wirthforge-auth", json={**made, "data": older}).raise_for_status()
        assert helm("upgrade", {}).returncode == 0
        newer = cluster.all(secrets)["box-wirthforge-auth"]["data"]
        assert newer == older | {"engine-key": newer["engine-key"]}
        assert helm("upgrade", NEWER).returncode == 0
        assert cluster.all(secrets)["box-wirthforge-auth"]["data"] == newer

        own = {"metadata": {"name": "mine"}, "data": older}
        cluster.api.post(secrets, json=own).raise_for_status()
        refused = helm("upgrade", {"auth": {"existingSecret": "mine"}})
        assert "The secret mine has no engine-key, which `engines` ask for: add one" in refused.stderr
        assert helm("upgrade", {"auth": {"existingSecret": "mine"}, "engines": []}).returncode == 0
        cluster.api.put(f"{secrets}/mine", json={**own, "data": newer}).raise_for_status()
        assert helm("upgrade", {"auth": {"existingSecret": "mine"}}).returncode == 0
