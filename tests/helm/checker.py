"""Checks manifests against schemas, to the letter: fields that nobody knows are typing errors.

Run by the Python of build/helm, which has the schemas: a list of manifests as JSON comes on standard input, and what is
wrong with them is printed, a line each.

    python checker.py 1.37       Kubernetes' own resources, as of that version
    python checker.py FOLDER     resources of others, whose definitions are in the folder
"""

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, import-not-found, unused-ignore]
import yaml  # type: ignore[import-untyped]
from kubernetes_validate import utils  # type: ignore[import-untyped, import-not-found, unused-ignore]

Manifest = dict[str, Any]


def against_kubernetes(manifests: list[Manifest], version: str) -> Iterator[str]:
    """What one version of Kubernetes does not take."""
    # It reads two megabytes of definitions for each manifest otherwise.
    utils.schema_contents = cache(utils.schema_contents)
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            utils.validate(manifest, version, strict=True)
        except utils.SchemaNotFoundError as error:
            yield f"{name}: {error.message}"
        except jsonschema.ValidationError as error:
            yield f"{name}: {error.json_path}: {error.message[:300]}"


def against_definitions(manifests: list[Manifest], folder: Path) -> Iterator[str]:
    """What does not hold to the definitions of a folder."""
    schemas = {}
    for path in folder.glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in definition["spec"]["versions"]:
            name = (f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"])
            schemas[name] = strict(version["schema"]["openAPIV3Schema"])
            schemas[name]["properties"]["metadata"] = {"type": "object"}
    for manifest in manifests:
        schema = schemas.get((manifest["apiVersion"], manifest["kind"]), False)
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
            yield f"{manifest['kind']}: {error.json_path}: {error.message[:300]}"


def strict(schema: Any) -> Any:
    """The same schema, in which an object has no other fields than those that are named."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    tightened = {name: strict(part) for name, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        tightened.pop("type", None)
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        tightened["additionalProperties"] = False
    return tightened


if __name__ == "__main__":
    given = json.load(sys.stdin)
    against = sys.argv[1]
    is_version = not Path(against).is_dir()
    for line in against_kubernetes(given, against) if is_version else against_definitions(given, Path(against)):
        print(line)  # noqa: T201 (what it is for)
