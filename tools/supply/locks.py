"""The two locks, read: which packages there are, with which hashes, and what needs them."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNTIME, DEVELOPMENT = ROOT / "requirements" / "runtime.lock", ROOT / "requirements" / "dev.lock"
CLIENT = ROOT / "client" / "package-lock.json"
# What uv calls us in its notes.
OURSELVES = "wirthforge"

_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ \\;]+)(?: ; (?P<marker>[^\\]*?))? *\\?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via |   )(?!-c )(?P<name>[A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Locked:
    """One package in one version.

    Attributes:
        ecosystem: `pypi` or `npm`, as in package URLs.
        hashes: algorithm as CycloneDX writes it, and digits; one for each file that may be installed.
        needed_by: names of those that need it; of npm names and versions.
        ships: it is part of what runs at somebody's home; others build and test that.
        licence: what the lock says; Python's says nothing.
        marker: on which machines it is installed; empty for all.
    """

    ecosystem: str
    name: str
    version: str
    hashes: tuple[tuple[str, str], ...]
    needed_by: tuple[str, ...]
    ships: bool = True
    licence: str = ""
    marker: str = ""

    @property
    def purl(self) -> str:
        """Its package URL: https://github.com/package-url/purl-spec."""
        return f"pkg:{self.ecosystem}/{self.name.replace('@', '%40')}@{self.version}"


def of_python(path: Path = RUNTIME) -> list[Locked]:
    """A lock that `uv pip compile` wrote. Raises ValueError for a line that is not understood."""
    found: list[Locked] = []
    pinned: re.Match[str] | None = None
    hashes: list[tuple[str, str]] = []
    via: list[str] = []

    def end() -> None:
        if pinned is not None:
            found.append(
                Locked(
                    "pypi",
                    pinned["name"].lower(),
                    pinned["version"],
                    tuple(hashes),
                    tuple(sorted(via)),
                    marker=(pinned["marker"] or "").strip(),
                )
            )

    for line in path.read_text().splitlines():
        if begun := _PINNED.match(line):
            end()
            pinned, hashes, via = begun, [], []
        elif hashed := _HASH.search(line):
            hashes.append(("SHA-256", hashed[1]))
        elif noted := _VIA.match(line):
            via.append(noted["name"])
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"{path.name} holds a line that is not understood: {line}")
    end()
    return found


def of_npm(path: Path = CLIENT) -> list[Locked]:
    """A lock of npm, version 3: https://docs.npmjs.com/cli/v11/configuring-npm/package-lock-json."""
    packages = json.loads(path.read_text())["packages"]
    found: dict[tuple[str, str], Locked] = {}
    needed_by: dict[tuple[str, str], set[str]] = {}
    for place, package in packages.items():
        for name in _needs(package, is_root=not place):
            where = _resolved(packages, place, name)
            if where is not None:
                key = (_name(where), packages[where]["version"])
                by = f"{_name(place)}@{package['version']}" if place else OURSELVES
                needed_by.setdefault(key, set()).add(by)
    for place, package in packages.items():
        if not place:
            continue
        key = (_name(place), package["version"])
        algorithm, _, digest = package["integrity"].partition("-")
        hashed = (f"{algorithm[:3].upper()}-{algorithm[3:]}", base64.b64decode(digest).hex())
        ships = not (package.get("dev") or package.get("devOptional"))
        before = found.get(key)
        found[key] = Locked(
            "npm",
            *key,
            (hashed,),
            tuple(sorted(needed_by.get(key, ()))),
            ships=ships or (before is not None and before.ships),
            licence=package.get("license", ""),
        )
    return [found[key] for key in sorted(found)]


def _needs(package: dict[str, dict[str, str]], *, is_root: bool) -> list[str]:
    kinds = ["dependencies", "optionalDependencies", "peerDependencies", *(["devDependencies"] if is_root else [])]
    return [name for kind in kinds for name in package.get(kind, {})]


def _name(place: str) -> str:
    return place.rpartition("node_modules/")[2]


def _resolved(packages: dict[str, object], place: str, name: str) -> str | None:
    """Node's own search: the nearest node_modules upwards."""
    while True:
        found = f"{place}/node_modules/{name}".lstrip("/")
        if found in packages:
            return found
        if not place:
            return None
        place = place.rpartition("node_modules/")[0].rstrip("/")
