"""What single choices lead to: order of the migration, keys, certificates, the edge, who looks after what."""

import json
import re

from tests.helm.charts import Manifest, Values, containers, example, of_kind, one, pods, render


def test_the_migration_comes_first() -> None:
    """A hook wherever there is a database before; a job beside the others where Postgres comes with the chart."""

    def migration(chosen: Values, *how: str) -> Manifest:
        (job,) = of_kind(render(chosen, *how), "Job")
        found: Manifest = job["metadata"]
        return found

    plain = migration({})
    assert re.fullmatch(r"box-wirthforge-migrate-[0-9a-f]{8}", plain["name"])
    assert "annotations" not in plain
    # The pod of a job cannot change, so another image is another job; the same values are the same one.
    assert migration({})["name"] == plain["name"] != migration({"image": {"tag": "9.9.9"}})["name"]
    outside = {"postgresql": {"enabled": False}, "externalDatabase": {"existingSecret": "database"}}
    for job in (migration({}, "--is-upgrade"), migration(outside), migration(outside, "--is-upgrade")):
        assert job["name"] == "box-wirthforge-migrate"
        assert job["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_hooks_of_an_installation_need_nothing_of_it() -> None:
    """What a hook before the installation names must be there before: nothing that the chart makes, unless optional."""
    manifests = render(example("external-postgres"))
    hooks = {
        each["metadata"]["name"]
        for each in manifests
        if "pre-install" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }
    assert hooks == {"box-wirthforge-migrate"}
    (job,) = of_kind(manifests, "Job")
    pod = job["spec"]["template"]
    assert "serviceAccountName" not in pod["spec"]
    assert all("persistentVolumeClaim" not in volume for volume in pod["spec"]["volumes"])
    for container in containers(pod):
        assert all(source["configMapRef"]["optional"] for source in container["envFrom"])
        named = [each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each]
        assert named == ["wirthforge-database"]


def test_a_backup_comes_before_an_upgrade() -> None:
    """In the hook, before the migration; not where nothing is there yet."""

    def starts(*how: str) -> list[str]:
        (job,) = of_kind(render({"backup": {"enabled": True}}, *how), "Job")
        return [container["name"] for container in containers(job["spec"]["template"])]

    assert starts() == ["migrate"]
    assert starts("--is-upgrade") == ["backup", "migrate"]


def test_streams_pass_the_edge() -> None:
    """A proxy neither waits for ends nor cuts after a minute; a route has no bound. Own annotations count more."""
    (ingress,) = of_kind(render(example("three-replicas")), "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 3600
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == str(32 * 1024 * 1024)
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"
    own = {**example("three-replicas"), "ingress": {**example("three-replicas")["ingress"]}}
    own["ingress"]["annotations"] = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60"}
    (ingress,) = of_kind(render(own), "Ingress")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "60"
    own["ingress"] = {"enabled": True, "className": "haproxy", "hosts": [{"host": "ai.example.org"}]}
    (ingress,) = of_kind(render(own), "Ingress")
    assert ingress["metadata"]["annotations"]["haproxy.org/timeout-server"] == "1h"
    (route,) = of_kind(render(example("external-engines")), "HTTPRoute")
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def server_of(chosen: Values) -> tuple[list[Manifest], Manifest]:
    """All manifests, and the pod of the servers."""
    manifests = render(chosen)
    is_server = {"app.kubernetes.io/component": "server"}.items()
    return manifests, next(pod for _, pod in pods(manifests) if is_server <= pod["metadata"]["labels"].items())


def test_engines_ask_for_a_key_that_only_servers_have() -> None:
    """Each kind by the variable that it reads; the server's list is filled in by Kubernetes, from secrets alone."""
    kinds = {"vllm": "VLLM_API_KEY", "tgi": "API_KEY", "llama-server": "LLAMA_API_KEY"}
    chosen: Values = {
        "engines": [{"name": kind, "kind": kind, "model": "owner/model"} for kind in kinds],
        "externalEngines": [
            {"name": "free", "kind": "openai", "url": "http://192.168.1.2/v1"},
            {
                "name": "paid",
                "kind": "openai",
                "url": "http://192.168.1.3/v1",
                "existingSecret": "paid",
                "key": "token",
            },
        ],
    }
    manifests, server = server_of(chosen)
    said = server["spec"]["containers"][0]["env"]
    env = {each["name"]: each for each in said}
    expected = "vllm=$(ENGINE_KEY),tgi=$(ENGINE_KEY),llama-server=$(ENGINE_KEY),paid=$(ENGINE_KEY_1)"
    assert env["WIRTHFORGE_ENGINE_KEYS"]["value"] == expected
    assert env["ENGINE_KEY_1"]["valueFrom"] == {"secretKeyRef": {"name": "paid", "key": "token"}}
    # Kubernetes fills in only what stands before.
    order = [each["name"] for each in said]
    assert max(order.index("ENGINE_KEY"), order.index("ENGINE_KEY_1")) < order.index("WIRTHFORGE_ENGINE_KEYS")
    asked = {"secretKeyRef": {"name": "box-wirthforge-auth", "key": "engine-key"}}
    for kind, variable in kinds.items():
        deployment = one(manifests, "Deployment", f"box-wirthforge-engine-{kind}")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {"name": variable, "valueFrom": asked} in container["env"]
    for where, pod in pods(manifests):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        if component != "server" and not component.startswith("engine-"):
            assert "engine-key" not in json.dumps(pod), where


def test_who_has_no_engine_has_no_key() -> None:
    """Nothing is asked of a secret that need not be there."""
    _, server = server_of({"engines": [], "auth": {"existingSecret": "mine"}})
    assert "ENGINE" not in json.dumps(server["spec"]["containers"][0]["env"])


def test_an_authority_of_ones_own_is_where_the_url_says() -> None:
    """In servers, their waiting, and the jobs; Redis' only where Redis is asked. Not beside a part of the chart."""
    outside: Values = {
        "postgresql": {"enabled": False},
        "externalDatabase": {"existingSecret": "database", "ca": {"existingSecret": "authority"}},
        "redis": {"enabled": False},
        "externalRedis": {"existingSecret": "redis", "ca": {"existingConfigMap": "trusted", "key": "bundle.pem"}},
        "backup": {"enabled": True},
    }
    for _, pod in pods(render(outside, "--is-upgrade")):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            asks_postgres = component in {"server", "migrate", "upkeep", "backup"}
            assert ("/tls/database" in mounts) == asks_postgres, (component, container["name"])
            assert ("/tls/redis" in mounts) == (container["name"] == "server")
            assert all(mount["readOnly"] for path, mount in mounts.items() if path.startswith("/tls/"))
        if component == "server":
            assert volumes["database-ca"]["secret"] == {
                "secretName": "authority",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
            assert volumes["redis-ca"]["configMap"] == {
                "name": "trusted",
                "items": [{"key": "bundle.pem", "path": "ca.crt"}],
            }
    inside = {**outside, "postgresql": {"enabled": True}, "redis": {"enabled": True}}
    assert "/tls/" not in json.dumps(render(inside))


def egress(chosen: Values) -> list[Manifest]:
    """Where servers may go."""
    (policy,) = (
        each for each in of_kind(render(chosen), "NetworkPolicy") if each["metadata"]["name"] == "box-wirthforge-server"
    )
    rules: list[Manifest] = policy["spec"]["egress"]
    return rules


def test_traces_reach_their_collector() -> None:
    """By the port of the URL, in the cluster or at a private address; without a URL nothing more is open."""
    for url, port in {
        "http://collector.tracing:4318": 4318,
        "https://collector.home.example": 443,
        "http://collector/v1/traces": 80,
        "http://[fd00::1]:4318": 4318,
    }.items():
        (more,) = (rule for rule in egress({"config": {"traces_url": url}}) if rule not in egress({}))
        assert more["ports"] == [{"port": port, "protocol": "TCP"}], url
        assert more["to"][0] == {"namespaceSelector": {}}


def test_engines_that_an_admin_adds_can_be_reached() -> None:
    """At private addresses, unless the values say no; and by rules of one's own."""

    def cidrs(chosen: Values) -> list[str]:
        return [
            peer["ipBlock"]["cidr"]
            for rule in egress(chosen)
            if "ports" not in rule
            for peer in rule["to"]
            if "ipBlock" in peer
        ]

    assert "192.168.0.0/16" in cidrs({})
    assert cidrs({"networkPolicy": {"addedEngines": False}}) == []
    rule = {"to": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}], "ports": [{"port": 8000, "protocol": "TCP"}]}
    assert egress({"networkPolicy": {"extraEgress": [rule]}})[-1] == rule


def test_pages_stay_reachable_while_engines_are_away() -> None:
    """Readiness leaves engines out, unless one asks for them."""

    def path(chosen: Values) -> str:
        found: str = server_of(chosen)[1]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
        return found

    assert path({}) == "/readyz?engine=no"
    assert path({"readinessProbe": {"path": "/readyz"}}) == "/readyz"


def test_who_shares_a_volume_shares_a_node() -> None:
    """Else a rolling upgrade in a cluster of several nodes would wait for ever; a volume for all nodes asks nothing."""

    def affinities(chosen: Values, *how: str) -> dict[str, Manifest]:
        found = {}
        for _, pod in pods(render({"backup": {"enabled": True}, **chosen}, *how)):
            component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
            if component in {"server", "upkeep", "backup", "migrate"}:
                found[component] = pod["spec"].get("affinity", {})
        return found

    beside = affinities({}, "--is-upgrade")
    (term,) = beside["server"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"].items() <= server_of({})[1]["metadata"]["labels"].items()
    assert term["topologyKey"] == "kubernetes.io/hostname"
    for job in ("upkeep", "backup", "migrate"):
        (wish,) = beside[job]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert wish["podAffinityTerm"] == term
    # Before anything is there, the migration sees no volume.
    assert affinities({})["migrate"] == {}
    for free in ({"enabled": False}, {"accessModes": ["ReadWriteMany"]}, {"existingClaim": "mine"}):
        assert set(map(bool, affinities({"persistence": free}, "--is-upgrade").values())) == {False}
    own: Values = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}, "podAffinity": {}}
    assert affinities({"affinity": own})["server"].keys() == {"nodeAffinity", "podAffinity"}


def test_somebody_looks_after_the_tables() -> None:
    """Either the job does, and the server does not try, or the server."""

    def told(chosen: Values) -> tuple[str, bool]:
        manifests = render(chosen)
        (config,) = (each for each in of_kind(manifests, "ConfigMap") if "WIRTHFORGE_PORT" in each["data"])
        jobs = [each["metadata"]["name"] for each in of_kind(manifests, "CronJob")]
        return config["data"]["WIRTHFORGE_UPKEEPS"], "box-wirthforge-upkeep" in jobs

    assert told({}) == ("false", True)
    assert told({"upkeep": {"enabled": False}}) == ("true", False)


def test_a_budget_only_where_it_helps() -> None:
    """With one server it would keep a node from being drained."""
    assert of_kind(render(), "PodDisruptionBudget") == []
    (budget,) = of_kind(render(example("three-replicas")), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_engines_get_their_gpu() -> None:
    """As many as asked for, with the class that lets containers see them; shards follow from the number."""
    engine = {"name": "big", "kind": "vllm", "model": "owner/model", "gpu": {"count": 2}, "runtimeClassName": "nvidia"}
    (pod,) = (
        pod
        for _, pod in pods(render({"engines": [engine]}))
        if pod["metadata"]["labels"].get("wirthforge.io/part") == "engine"
    )
    (container,) = containers(pod)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert "--tensor-parallel-size=2" in container["args"]
    # An hour, of which the download is part.
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 3600
