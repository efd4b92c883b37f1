"""Licences: what each package is under, and whether that fits what this project is given away under (Apache-2.0).

Python's lock names no licences, and what packages say of themselves is there only where they are installed, which a
list for every machine cannot depend on. So requirements/licences.toml holds them, as SPDX expressions; where a package
is installed and says one itself (PEP 639), the two must be the same.
"""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata

from license_expression import AND, OR, ExpressionError, LicenseSymbol, get_spdx_licensing

from tools.supply import locks
from tools.supply.locks import ROOT, Locked

TABLE = ROOT / "requirements" / "licences.toml"
SPDX = get_spdx_licensing()
# Each may be passed on with a program under Apache-2.0, if its own text goes along. MPL-2.0 is the strictest of them:
# who changes one of its files gives that file away under it, https://www.mozilla.org/en-US/MPL/2.0/FAQ/.
FITTING = frozenset(
    {
        *(
            "0BSD",
            "Apache-2.0",
            "BlueOak-1.0.0",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "CC0-1.0",
            "CNRI-Python",
            "ISC",
            "MIT",
        ),
        *("MIT-0", "MPL-2.0", "PostgreSQL", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    }
)
# Why others do not, for those that one is likely to meet.
REASONS = {
    "AGPL": "the whole would have to be given away under it, also to those who only use it over a network",
    "LGPL": "people must be able to exchange it, which wheels with everything in one file do not allow",
    "GPL": "the whole would have to be given away under it",
    "SSPL": "who offers it as a service gives away all that they run; it is no open-source licence",
    "RSALv2": "Redis of versions 7.4 to 7.8: it may not be offered as a service; it is no open-source licence",
    "BUSL": "it may not be used for everything before years have passed",
    "Elastic": "it may not be offered as a service; it is no open-source licence",
    "CC-BY-NC": "it may not be used for money",
}


@dataclass(frozen=True)
class Bundled:
    """A program inside a wheel, which the lock does not name.

    Attributes:
        within: the wheel.
        version: empty where the wheel does not say.
        left_out: why it is not passed on, where it is not.
    """

    within: str
    name: str
    licence: str
    version: str = ""
    left_out: str = ""

    @property
    def purl(self) -> str:
        """Of no package registry."""
        return f"pkg:generic/{self.name}" + (f"@{self.version}" if self.version else "")


def table() -> dict[str, str]:
    """SPDX expressions of Python's packages."""
    found: dict[str, str] = tomllib.loads(TABLE.read_text())["python"]
    return found


def bundled() -> list[Bundled]:
    """Programs inside wheels."""
    return [Bundled(**entry) for entry in tomllib.loads(TABLE.read_text())["bundled"]]


def faults(
    python: Iterable[Locked], npm: Iterable[Locked], known: dict[str, str], inside: Iterable[Bundled]
) -> list[str]:
    """What does not fit, as sentences; none when all is well.

    Args:
        python: the runtime's lock.
        npm: the client's; of it only what is shipped must fit.
        known: licences of the first.
        inside: programs in wheels.
    """
    python = list(python)
    return [
        *_of_python(python, known),
        *(fault for each in npm if each.ships for fault in _of(f"{each.name} {each.version}", each.licence)),
        *(
            fault
            for each in inside
            if not each.left_out
            for fault in _of(f"{each.name} in {each.within}", each.licence)
        ),
    ]


def _of_python(python: list[Locked], known: dict[str, str]) -> Iterator[str]:
    for each in python:
        said = _said_by_itself(each)
        if each.name not in known:
            yield f"{each.name} {each.version} is not in {TABLE.name}; it says {said or 'nothing that SPDX knows'}."
        elif said and _read(said) != _read(known[each.name]):
            yield f"{each.name} {each.version} is under {said}, and {TABLE.name} has {known[each.name]}."
        else:
            yield from _of(f"{each.name} {each.version}", known[each.name])
    for name in sorted(known.keys() - {each.name for each in python}):
        yield f"{name} is in {TABLE.name} and not in the lock: remove it there."


def _said_by_itself(each: Locked) -> str | None:
    try:
        found = metadata(each.name)
    except PackageNotFoundError:
        return None
    # Another version than the locked one says nothing about that.
    is_it = found["Version"] == each.version and "License-Expression" in found
    return found["License-Expression"] if is_it else None


def _read(expression: str) -> object:
    return SPDX.parse(expression).simplify()


def _of(what: str, expression: str) -> Iterator[str]:
    try:
        parsed = SPDX.parse(expression, validate=True)
    except ExpressionError:
        parsed = None
    if parsed is None:
        yield f"{what} is under {expression or 'nothing'}, which SPDX does not know."
    elif not _fits(parsed):
        reason = next((why for key, why in REASONS.items() if key in expression), "it is not known to fit")
        yield f"{what} is under {expression}: {reason}."


def _fits(parsed: object) -> bool:
    if isinstance(parsed, AND):
        return all(map(_fits, parsed.args))
    if isinstance(parsed, OR):
        return any(map(_fits, parsed.args))
    return isinstance(parsed, LicenseSymbol) and parsed.key in FITTING


def check() -> int:
    """Say what does not fit; the exit status."""
    python, npm, inside = locks.of_python(), locks.of_npm(), bundled()
    found = faults(python, npm, table(), inside)
    for fault in found:
        print(f"licences: {fault}")
    if not found:
        shipped = sum(each.ships for each in npm)
        programs = sum(not each.left_out for each in inside)
        count = f"{len(python)} Python and {shipped} JavaScript packages and {programs} programs"
        print(f"licences: {count} fit Apache-2.0")
    return 1 if found else 0
