"""What people write into values: what is taken, and what is refused in which words."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from server.engines.configured import engines_from
from server.privacy.sealed import seal_from
from server.settings import Settings, load
from tests.helm.charts import CHART, EXAMPLES, Values, environment, example, of_kind, one, refusal, render
from tests.helm.config_schema import ELSEWHERE, SCHEMA, of_config

ENGINE = {"name": "main", "kind": "vllm", "model": "owner/model"}
WRONG: list[tuple[Values, str]] = [
    ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ({"replicaCount": -1}, "at '/replicaCount': minimum: got -1, want 0"),
    ({"engines": [{**ENGINE, "kind": "vlm"}]}, "value must be one of 'vllm', 'tgi', 'llama-server'"),
    ({"engines": [{**ENGINE, "name": "Main Engine"}]}, "'Main Engine' does not match pattern"),
    ({"engines": [{"name": "main", "kind": "vllm"}]}, "missing property 'model'"),
    ({"engines": [{**ENGINE, "gpus": 1}]}, "additional properties 'gpus' not allowed"),
    ({"image": {"digest": "latest"}}, "'latest' does not match pattern '^(sha256:[0-9a-f]{64})?$'"),
    ({"resources": {"limits": {"memory": "2 GB"}}}, "at '/resources/limits/memory'"),
    ({"config": {"queue_lenght_max": 5}}, "additional properties 'queue_lenght_max' not allowed"),
    ({"config": {"log_level": "loud"}}, "at '/config/log_level'"),
    ({"config": {"database_url": "postgresql://a:b@c"}}, "additional properties 'database_url' not allowed"),
    ({"config": {"encryption_key": "x"}}, "additional properties 'encryption_key' not allowed"),
    ({"publicUrl": "ai.home.example"}, "'ai.home.example' does not match pattern"),
    ({"trustedProxies": ["everybody"]}, "'everybody' does not match pattern"),
    ({"service": {"type": "Loadbalancer"}}, "at '/service/type'"),
    ({"service": {"nodePort": 80}}, "at '/service/nodePort': minimum: got 80, want 30,000"),
    ({"backup": {"schedule": "daily"}}, "at '/backup/schedule'"),
    ({"backup": {"keep": 0}}, "at '/backup/keep': minimum: got 0, want 1"),
    ({"externalEngines": [{"name": "x", "kind": "vllm", "url": "http://u:p@host/v1"}]}, "at '/externalEngines/0/url'"),
    ({"drain": {"preStopSeconds": 5}}, "additional properties 'preStopSeconds' not allowed"),
    ({"drain": {"delaySeconds": 601}}, "at '/drain/delaySeconds': maximum: got 601, want 600"),
    ({"readinessProbe": {"path": "/ready"}}, "value must be one of '/readyz?engine=no', '/readyz', '/health'"),
    ({"config": {"engine_keys": ["a=b"]}}, "additional properties 'engine_keys' not allowed"),
    ({"config": {"upkeeps": True}}, "additional properties 'upkeeps' not allowed"),
    ({"config": {"traces_percent": 101}}, "at '/config/traces_percent': maximum: got 101, want 100"),
    ({"externalDatabase": {"ca": {"secret": "x"}}}, "additional properties 'secret' not allowed"),
    (
        {"externalRedis": {"ca": {"existingSecret": "a", "existingConfigMap": "b"}}},
        "The CA of `externalRedis.ca` comes from a secret or from a config map, not from both.",
    ),
    (
        {"externalEngines": [{"name": "x", "kind": "openai", "url": "http://h/v1", "apiKey": "sk-x"}]},
        "additional properties 'apiKey' not allowed",
    ),
    ({"engines": [ENGINE, ENGINE]}, "Two engines have one name: main, main."),
    ({"postgresql": {"enabled": False}}, "There is no Postgres: set `externalDatabase.existingSecret`"),
    ({"redis": {"enabled": False}}, "There is no Redis: set `externalRedis.existingSecret`"),
    ({"replicaCount": 2}, "All replicas read the same archive: set `persistence.accessModes` to [ReadWriteMany]"),
    ({"ray": {"enabled": True}}, "`ray.model` is missing"),
    (
        {"ray": {"enabled": True, "model": "a/b", "tensorParallel": 4}},
        "Ray has 2 GPUs (`ray.workers` times `ray.gpu.count`), and 8 are needed",
    ),
    ({"ingress": {"enabled": True}}, "`ingress.hosts` is empty"),
    ({"route": {"enabled": True}}, "`route.parentRefs` is empty"),
    ({"serviceMonitor": {"enabled": True}}, "`serviceMonitor.existingSecret` is missing"),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[json.dumps(values)[:60] for values, _ in WRONG])
def test_nonsense_is_refused_with_clear_words(values: Values, sentence: str) -> None:
    """Where it stands, and what would be right."""
    assert sentence in refusal(values)


def test_an_old_kubernetes_is_refused() -> None:
    """Not with a manifest that it does not understand."""
    assert "chart requires kubeVersion: >=1.30.0-0" in refusal({}, "--kube-version", "1.29")


def test_the_schema_knows_all_settings() -> None:
    """Each setting of the server is one of `config`, or has another place. If this fails: read config_schema.py."""
    schema = json.loads(SCHEMA.read_text())
    assert schema["properties"]["config"]["properties"] == of_config()
    assert set(Settings.__struct_fields__) >= ELSEWHERE


def leaves(values: Any, path: str = "") -> Iterator[str]:
    """The paths of all values that are no maps."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path


def closed(schema: Any, path: str = "") -> Iterator[str]:
    """The paths of objects that would take anything without a word."""
    if isinstance(schema, dict):
        if (
            schema.get("type") == "object"
            and "properties" in schema
            and schema.get("additionalProperties") is not False
        ):
            yield path
        for name, part in schema.items():
            yield from closed(part, f"{path}/{name}")


def test_every_value_is_in_the_schema_and_every_object_is_closed() -> None:
    """A typing error never passes without a word."""
    schema = json.loads(SCHEMA.read_text())
    values = yaml.load((CHART / "values.yaml").read_text(), yaml.CSafeLoader)
    assert set(values) == set(schema["properties"]) - {"global"}
    # A reference to a Gateway takes what the Gateway API knows.
    assert [path for path in closed(schema) if "parentRefs" not in path] == []


def test_every_value_is_used() -> None:
    """No value that does nothing."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    values = yaml.load((CHART / "values.yaml").read_text(), yaml.CSafeLoader)
    for path in leaves(values):
        assert re.search(rf"\b{path.rpartition('.')[2]}\b|{path.split('.')[0]}", templates), path
    assert {name for name in values if not re.search(rf"\.{name}\b", templates)} == set()


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_the_server_takes_the_settings_that_it_is_given(name: str) -> None:
    """Its own loader reads the config map; the engines are of kinds that it has, under the names of services."""
    manifests = render(
        {**example(name), "config": {"costs": ["a=1:2", "b=3:4"], "models_memory_bytes": 80_000_000_000}}
    )
    data = one(manifests, "ConfigMap", "box-wirthforge")["data"]
    settings = load({}, data)
    assert (settings.host, settings.port, settings.log_format) == ("0.0.0.0", 8000, "json")  # noqa: S104 (read)
    assert settings.costs == ("a=1:2", "b=3:4")
    assert settings.models_memory_bytes == 80_000_000_000
    assert (settings.shutdown_delay_ms, settings.shutdown_grace_ms) == (5_000, 300_000)
    assert settings.upkeeps is False
    services = {each["metadata"]["name"] for each in of_kind(manifests, "Service")}
    engines = engines_from(settings)
    assert len(engines) == len(settings.engines) > 0
    for url in settings.engines:
        host = re.sub(r"^.*://|[:/].*$", "", url.partition("://")[2])
        assert host in services or "." in host or host == "box-wirthforge-ray-serve-svc"


def test_the_public_address_follows_the_edge() -> None:
    """From the ingress, the route, or what one says."""

    def public_url(values: Values) -> str:
        found: str = one(render(values), "ConfigMap", "box-wirthforge")["data"]["WIRTHFORGE_PUBLIC_URL"]
        return found

    assert public_url({}) == ""
    assert public_url(example("home-lab")) == "http://ai.home.example"
    assert public_url(example("three-replicas")) == "https://ai.example.org"
    assert public_url(example("external-engines")) == "https://ai.home.example"
    assert public_url({**example("home-lab"), "publicUrl": "https://ai.net/"}) == "https://ai.net"


def test_without_a_folder_nothing_goes_into_the_archive() -> None:
    """Neither the server nor the job would find it again."""
    manifests = render({"persistence": {"enabled": False}})
    (job,) = (each for each in of_kind(manifests, "CronJob") if each["metadata"]["name"].endswith("upkeep"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert load({}, environment(container, manifests)).archive_after_days == 36_500


def test_passwords_are_of_letters_and_digits() -> None:
    """They stand in URLs. The key that seals is one that the server takes."""
    manifests = render({})
    deployment = one(manifests, "Deployment", "box-wirthforge")
    found = environment(deployment["spec"]["template"]["spec"]["containers"][0], manifests)
    assert re.fullmatch(
        r"postgresql://wirthforge_login:[A-Za-z0-9]{32}@box-wirthforge-postgresql:5432/wirthforge\?sslmode=disable",
        found["DATABASE_URL"],
    )
    assert re.fullmatch(r"redis://:[A-Za-z0-9]{32}@box-wirthforge-redis:6379/0", found["REDIS_URL"])
    assert seal_from(found["WIRTHFORGE_ENCRYPTION_KEY"]) is not None
    assert re.fullmatch(r"main=[A-Za-z0-9]{32}", found["WIRTHFORGE_ENGINE_KEYS"])
    config = one(manifests, "ConfigMap", "box-wirthforge")["data"]
    keyed = load({}, {name: found[name] for name in (*config, "WIRTHFORGE_ENGINE_KEYS")})
    (engine,) = engines_from(keyed)
    (asks,) = one(manifests, "Deployment", "box-wirthforge-engine-main")["spec"]["template"]["spec"]["containers"]
    assert vars(engine)["_headers"] == {"Authorization": f"Bearer {environment(asks, manifests)['LLAMA_API_KEY']}"}
