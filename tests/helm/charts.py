"""The chart, rendered by the real helm (tools/install-helm), as plain data."""

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

HOUSE = Path(__file__).parents[2]
CHART = HOUSE / "helm"
TOOLS = HOUSE / "build" / "helm"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
RELEASE = "box"
NAMESPACE = "home"

Manifest = dict[str, Any]
Values = Mapping[str, Any]


def helm(*arguments: str, values: Values | None = None) -> "subprocess.CompletedProcess[str]":
    """Run helm; values go in as a file on its standard input."""
    program = TOOLS / "bin" / "helm"
    assert program.exists(), "helm is not there: run `make helm`"
    given = ("--values", "-") if values is not None else ()
    return subprocess.run(  # noqa: S603 (our own helm)
        [program, *arguments, *given],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def render(values: Values | None = None, *flags: str) -> list[Manifest]:
    """Every manifest of the chart with these values."""
    return [dict(manifest) for manifest in _rendered(json.dumps(values or {}, sort_keys=True), flags)]


@lru_cache(maxsize=200)
def _rendered(values: str, flags: Sequence[str]) -> list[Manifest]:
    done = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *flags, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest]


def refusal(values: Values, *flags: str) -> str:
    """What helm says to values that it does not take."""
    done = helm("template", RELEASE, str(CHART), *flags, values=values)
    assert done.returncode != 0, "it took them"
    return done.stderr


def example(name: str) -> Values:
    """The values of an example."""
    found: Values = yaml.load((CHART / "examples" / f"{name}.yaml").read_text(), yaml.CSafeLoader)
    return found


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Those of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """The only one of that kind and name."""
    (found,) = (each for each in of_kind(manifests, kind) if each["metadata"]["name"] == name)
    return found


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that the manifests make, by what makes it: metadata and spec."""
    for manifest in manifests:
        where, spec = f"{manifest['kind']} {manifest['metadata']['name']}", manifest.get("spec", {})
        match manifest["kind"]:
            case "Pod":
                yield where, manifest
            case "Deployment" | "Job":
                yield where, spec["template"]
            case "StatefulSet":
                # Kubernetes puts the volumes of its claims into the pod.
                made = [{"name": claim["metadata"]["name"]} for claim in spec["volumeClaimTemplates"]]
                pod = spec["template"]
                yield where, {**pod, "spec": {**pod["spec"], "volumes": [*pod["spec"]["volumes"], *made]}}
            case "CronJob":
                yield where, spec["jobTemplate"]["spec"]["template"]
            case "RayService":
                cluster = spec["rayClusterConfig"]
                for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                    yield f"{where} {group.get('groupName', 'head')}", group["template"]
            case _:
                pass


def containers(pod: Manifest) -> Iterator[Manifest]:
    """All of a pod's containers, those of the start too."""
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def environment(container: Manifest, manifests: Sequence[Manifest]) -> dict[str, str]:
    """A container's variables as Kubernetes makes them: config maps, secrets, and $(NAME) of those before."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        if "value" in variable:
            value = variable["value"]
            for name, earlier in found.items():
                value = value.replace(f"$({name})", earlier)
        else:
            key = variable["valueFrom"]["secretKeyRef"]
            value = base64.b64decode(one(manifests, "Secret", key["name"])["data"][key["key"]]).decode()
        found[variable["name"]] = value
    return found
