"""What holds for every manifest, whatever the values are."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helm.charts import Manifest, Values, containers, of_kind, pods, render

GPU = {"count": 1, "resource": "nvidia.com/gpu"}

engines = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["one", "two", "three"]), "kind": st.sampled_from(["vllm", "tgi", "llama-server"])},
        optional={
            "gpu": st.just(GPU),
            "cache": st.fixed_dictionaries({"enabled": st.booleans()}),
            "huggingFace": st.just({"existingSecret": "hugging-face"}),
            "runtimeClassName": st.just("nvidia"),
            "servedName": st.just("big"),
        },
    ),
    max_size=2,
    unique_by=lambda engine: engine["name"],
).map(lambda found: [{**engine, "model": "owner/model"} for engine in found])


authorities = st.sampled_from([{}, {"existingSecret": "authority"}, {"existingConfigMap": "trusted", "key": "bundle"}])


@st.composite
def values(draw: st.DrawFn) -> Values:
    """What people may choose, in any combination that the chart takes."""
    replicas = draw(st.integers(0, 3))
    ray = draw(st.booleans())
    chosen = draw(engines)
    outside: dict[str, Any] = {"name": "outside", "kind": "openai", "url": "http://192.168.1.2:8000/v1"}
    if draw(st.booleans()):
        outside["existingSecret"] = "outside-key"
    found: dict[str, Any] = {
        "replicaCount": replicas,
        "engines": chosen,
        "externalEngines": [outside] if draw(st.booleans()) else [],
        "ray": {"enabled": ray, "model": "owner/model"},
        "persistence": {"enabled": draw(st.booleans()), "accessModes": ["ReadWriteMany"]},
        "cloud": {"enabled": draw(st.booleans())},
        "backup": {"enabled": draw(st.booleans())},
        "upkeep": {"enabled": draw(st.booleans())},
        "networkPolicy": {"modelDownload": draw(st.booleans()), "addedEngines": draw(st.booleans())},
        "config": {"traces_url": "http://collector.tracing:4318"} if draw(st.booleans()) else {},
        "serviceAccount": {"create": draw(st.booleans())},
        "ingress": {"enabled": draw(st.booleans()), "className": "nginx", "hosts": [{"host": "ai.example.org"}]},
        "postgresql": {"enabled": draw(st.booleans())},
        "externalDatabase": {"existingSecret": "database", "ca": draw(authorities)},
        "redis": {"enabled": draw(st.booleans())},
        "externalRedis": {"existingSecret": "redis", "ca": draw(authorities)},
    }
    if draw(st.booleans()):
        found["auth"] = {"existingSecret": "passwords"}
    if draw(st.booleans()):
        found["fullnameOverride"] = "lab"
    return found


flags = st.sampled_from([(), ("--is-upgrade",)])
property_test = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


def labels_of_pods(manifests: list[Manifest]) -> list[Mapping[str, str]]:
    """Those that selectors see."""
    return [pod["metadata"]["labels"] for _, pod in pods(manifests)]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """As Kubernetes reads matchLabels."""
    return selector.items() <= labels.items()


@property_test
@given(values(), flags)
def test_every_container_is_confined(chosen: Values, how: tuple[str, ...]) -> None:
    """Not root, nothing writable but volumes, no capability, no way up, seccomp, bounded: the restricted standard."""
    for where, pod in pods(render(chosen, *how)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["runAsUser"] >= 999, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert spec["automountServiceAccountToken"] is False, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
        assert all("hostPath" not in volume for volume in spec["volumes"]), where
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in containers(pod):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            assert "memory" in container["resources"]["limits"], where
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() <= volumes, where
            assert "/tmp" in mounts.values(), where  # noqa: S108 (a path in a container)


@property_test
@given(values(), flags)
def test_no_service_of_the_namespace_speaks_into_settings(chosen: Values, how: tuple[str, ...]) -> None:
    """A service called wirthforge would set WIRTHFORGE_PORT=tcp://… otherwise."""
    for where, pod in pods(render(chosen, *how)):
        assert pod["spec"]["enableServiceLinks"] is False, where


@property_test
@given(values())
def test_what_runs_for_long_is_asked_how_it_does(chosen: Values) -> None:
    """Three probes for every container that does not end by itself. KubeRay brings those of its own pods."""
    for manifest in of_kind(render(chosen), "Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                found = container[probe]
                assert found.get("exec") or found["httpGet"]["port"] in ports, manifest["metadata"]["name"]


@property_test
@given(values(), flags)
def test_secrets_stay_in_secrets(chosen: Values, how: tuple[str, ...]) -> None:
    """Neither a password nor an engine's token stands anywhere else, in no encoding."""
    # Not from memory: passwords are made anew each time that helm renders without a cluster.
    manifests = render(chosen, *how)
    secrets = [value for each in of_kind(manifests, "Secret") for value in each["data"].values()]
    others = json.dumps([each for each in manifests if each["kind"] != "Secret"])
    for value in secrets:
        assert value not in others
        assert base64.b64decode(value).decode() not in others
    assert "auth" in chosen or len(secrets) == 6


@property_test
@given(values(), flags)
def test_only_jobs_know_the_owner(chosen: Values, how: tuple[str, ...]) -> None:
    """Whoever answers requests has no way to the login that owns the tables; jobs have no other."""
    for where, pod in pods(render(chosen, *how)):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        said = json.dumps([container.get("env", []) for container in containers(pod)])
        if component in {"migrate", "upkeep", "backup"}:
            assert "DATABASE_OWNER_URL" in said, where
            assert "DATABASE_URL" not in said, where
        elif component != "postgresql":
            assert not re.search("owner", said, re.IGNORECASE), where


@property_test
@given(values(), flags)
def test_selectors_find_what_they_mean(chosen: Values, how: tuple[str, ...]) -> None:
    """Services, policies, budgets: each selects pods that exist, and workloads select their own and no others."""
    manifests = render(chosen, *how)
    labels = [*labels_of_pods(manifests)]
    for manifest in manifests:
        spec, name = manifest.get("spec", {}), manifest["metadata"]["name"]
        match manifest["kind"]:
            case "Deployment" | "StatefulSet":
                selector = spec["selector"]["matchLabels"]
                assert sum(selects(selector, found) for found in labels) == 1, name
            case "Service":
                assert sum(selects(spec["selector"], found) for found in labels) == 1, name
                named = {port["targetPort"] for port in spec["ports"]}
                (pod,) = (pod for _, pod in pods(manifests) if selects(spec["selector"], pod["metadata"]["labels"]))
                assert named <= {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
            case "PodDisruptionBudget":
                assert sum(selects(spec["selector"]["matchLabels"], found) for found in labels) == 1, name
            case "NetworkPolicy":
                chosen_pods = [spec["podSelector"], *peers_of(spec)]
                for selector in chosen_pods:
                    ours = selector["matchLabels"]
                    if "app.kubernetes.io/instance" in ours:
                        assert any(selects(ours, found) for found in labels), (name, ours)
            case _:
                pass


def peers_of(policy: Manifest) -> Iterator[Manifest]:
    """The pods that a policy names."""
    for rule in policy["ingress"]:
        yield from (peer["podSelector"] for peer in rule.get("from", ()) if "podSelector" in peer)
    for rule in policy["egress"]:
        yield from (peer["podSelector"] for peer in rule.get("to", ()) if "podSelector" in peer)


@property_test
@given(values(), flags)
def test_names_are_those_of_something(chosen: Values, how: tuple[str, ...]) -> None:
    """Claims, config maps, secrets and accounts that pods name are made here, or were named in the values."""
    manifests = render(chosen, *how)
    made = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    given_names = set(re.findall(r'"existing(?:Secret|ConfigMap)": "([^"]+)"', json.dumps(chosen)))
    assert len(made) == len(manifests)
    for where, pod in pods(manifests):
        said = json.dumps(pod)
        for name in re.findall(r'"secretKeyRef": \{[^}]*"name": "([^"]+)"', said):
            assert name in given_names or ("Secret", name) in made, where
        for name in re.findall(r'"secretName": "([^"]+)"', said):
            assert name in given_names, where
        for name in re.findall(r'"claimName": "([^"]+)"', said):
            assert ("PersistentVolumeClaim", name) in made, where
        for name in re.findall(r'"configMap(?:Ref)?": \{[^}]*"name": "([^"]+)"', said):
            assert name in given_names or ("ConfigMap", name) in made, where
        account = pod["spec"].get("serviceAccountName", "default")
        assert account == "default" or ("ServiceAccount", account) in made, where


@property_test
@given(values())
def test_every_pod_has_a_policy_for_both_directions(chosen: Values) -> None:
    """So what is not allowed is refused."""
    manifests = render(chosen)
    policies = [each["spec"] for each in of_kind(manifests, "NetworkPolicy")]
    for where, pod in pods(manifests):
        labels = pod["metadata"]["labels"]
        if labels["app.kubernetes.io/component"] == "test":
            continue
        mine = [policy for policy in policies if selects(policy["podSelector"]["matchLabels"], labels)]
        assert len(mine) == 1, where
        assert mine[0]["policyTypes"] == ["Ingress", "Egress"], where


def may_reach_the_internet(policy: Manifest) -> bool:
    """Any address, or no address named."""
    return any(
        peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for rule in policy["egress"] for peer in rule.get("to", ())
    ) or any("to" not in rule for rule in policy["egress"])


@property_test
@given(values())
def test_who_reaches_what(chosen: Values) -> None:
    """Engines and Redis hear servers only, Postgres servers and jobs; the internet hears whom the values let."""
    for each in of_kind(render(chosen), "NetworkPolicy"):
        policy = each["spec"]
        component = policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        heard = {selector["matchLabels"].get("app.kubernetes.io/component") for selector in ingress_peers(policy)}
        if component.startswith("engine-") or component == "redis":
            assert heard == {"server"}
        elif component == "postgresql":
            assert {"server", "migrate"} <= heard <= {"server", "migrate", "upkeep", "backup"}
        elif component == "ray":
            assert heard == {"server", "ray", None}  # the operator
        elif component != "server":
            assert policy["ingress"] == []
        is_engine = component.startswith("engine-") or component == "ray"
        allowed = (is_engine and chosen["networkPolicy"]["modelDownload"]) or (
            component == "server" and chosen["cloud"]["enabled"]
        )
        assert may_reach_the_internet(policy) == allowed, component


def ingress_peers(policy: Manifest) -> Iterator[Manifest]:
    """The pods that it lets in."""
    for rule in policy["ingress"]:
        yield from (peer["podSelector"] for peer in rule.get("from", ()) if "podSelector" in peer)


@property_test
@given(values())
def test_a_pod_lives_longer_than_its_streams(chosen: Values) -> None:
    """Kubernetes waits while balancers look away, and for all the time that answers get."""
    manifests = render({**chosen, "drain": {"delaySeconds": 7, "graceSeconds": 900}})
    (server,) = (
        each
        for each in of_kind(manifests, "Deployment")
        if each["metadata"]["name"].endswith(("box-wirthforge", "lab"))
    )
    spec = server["spec"]["template"]["spec"]
    (config,) = (each for each in of_kind(manifests, "ConfigMap") if "WIRTHFORGE_PORT" in each["data"])
    # Nothing before the signal: the server itself says that it goes, and listens meanwhile.
    assert "lifecycle" not in spec["containers"][0]
    assert config["data"]["WIRTHFORGE_SHUTDOWN_DELAY_MS"] == "7000"
    assert config["data"]["WIRTHFORGE_SHUTDOWN_GRACE_MS"] == "900000"
    assert spec["terminationGracePeriodSeconds"] >= 7 + 900 + 10


@property_test
@given(values())
def test_an_upgrade_changes_no_selector_and_no_volume(chosen: Values) -> None:
    """What Kubernetes would refuse to change, or what would lose data, is the same before and after."""
    before, after = (
        render(chosen),
        render({**chosen, "image": {"tag": "9.9.9"}, "commonLabels": {"team": "x"}}, "--is-upgrade"),
    )
    kept = {(each["kind"], each["metadata"]["name"]): each for each in after}
    for each in before:
        key = (each["kind"], each["metadata"]["name"])
        if each["kind"] in {"Deployment", "StatefulSet"}:
            assert kept[key]["spec"]["selector"] == each["spec"]["selector"]
        if each["kind"] == "StatefulSet":
            assert kept[key]["spec"]["volumeClaimTemplates"] == each["spec"]["volumeClaimTemplates"]
            assert kept[key]["spec"]["serviceName"] == each["spec"]["serviceName"]
        if each["kind"] in {"PersistentVolumeClaim", "Secret"}:
            assert key in kept
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
