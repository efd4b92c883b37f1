"""The list of what the server is made of (SBOM), as CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/.

The same commit gives the same bytes: nothing of the time or of the machine is in it (SOURCE_DATE_EPOCH adds a time, as
everywhere), and its serial number is made of its content. Packages that only build and test are in it as `excluded`.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tools.supply import licences, locks
from tools.supply.licences import Bundled
from tools.supply.locks import OURSELVES, ROOT, Locked

FILE = ROOT / "build" / "sbom.cdx.json"
SPECIFICATION = "1.6"

Json = dict[str, Any]


def make(
    python: Sequence[Locked],
    npm: Sequence[Locked],
    known: Mapping[str, str],
    inside: Sequence[Bundled],
    epoch: str | None = None,
) -> Json:
    """The whole list.

    Args:
        known: licences of `python`.
        inside: programs in wheels.
        epoch: seconds since 1970, as SOURCE_DATE_EPOCH has them.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    components = [_component(each, known.get(each.name) or each.licence) for each in (*python, *npm)]
    components += [_program(each) for each in inside]
    body: Json = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": OURSELVES,
                "name": OURSELVES,
                "version": project["version"],
                "description": project["description"],
                "licenses": _licences(project["license"]),
            }
        },
        "components": sorted(components, key=lambda each: each["bom-ref"]),
        "dependencies": _dependencies(python, npm, inside),
    }
    if epoch:
        body["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")
    content = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, content)}",
        "version": 1,
        **body,
    }


def write(path: Path = FILE) -> int:
    """Write it, and say where; the exit status."""
    found = make(
        locks.of_python(), locks.of_npm(), licences.table(), licences.bundled(), os.environ.get("SOURCE_DATE_EPOCH")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(f"sbom: {len(found['components'])} components in {path}")
    return 0


def _component(each: Locked, licence: str) -> Json:
    found: Json = {
        "type": "library",
        "bom-ref": each.purl,
        "name": each.name,
        "version": each.version,
        "scope": "required" if each.ships else "excluded",
        "hashes": [{"alg": algorithm, "content": content} for algorithm, content in each.hashes],
        "licenses": _licences(licence),
        "purl": each.purl,
    }
    if each.marker:
        found["properties"] = [{"name": "wirthforge:installed-if", "value": each.marker}]
    return found


def _program(each: Bundled) -> Json:
    return {
        "type": "application",
        "bom-ref": each.purl,
        "name": each.name,
        **({"version": each.version} if each.version else {}),
        "scope": "excluded" if each.left_out else "required",
        "licenses": _licences(each.licence),
        "purl": each.purl,
        "properties": [
            {"name": f"wirthforge:{name}", "value": value}
            for name, value in (("inside", each.within), ("left-out", each.left_out))
            if value
        ],
    }


def _licences(expression: str) -> list[Json]:
    is_one = " " not in expression
    return [{"license": {"id": expression}} if is_one else {"expression": expression.strip("()")}]


def _dependencies(python: Sequence[Locked], npm: Sequence[Locked], inside: Sequence[Bundled]) -> list[Json]:
    needs: dict[str, set[str]] = {OURSELVES: set()}
    refs = {each.name: each.purl for each in python} | {f"{each.name}@{each.version}": each.purl for each in npm}
    refs[OURSELVES] = OURSELVES
    for each in (*python, *npm):
        needs.setdefault(each.purl, set())
        for by in each.needed_by:
            needs.setdefault(refs[by], set()).add(each.purl)
    for program in inside:
        needs.setdefault(program.purl, set())
        needs[refs[program.within]].add(program.purl)
    return [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs)]
