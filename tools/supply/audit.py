"""Known vulnerabilities of what is locked: pip-audit asks OSV about Python's packages, npm its registry about the rest.

What ships and what only builds and tests is asked about alike, since what builds the client can put things into it.
There are three ends. Nothing is known: 0. Something is: 1, with each by name; it is upgraded, or noted with a reason
and a date in requirements/ignored.toml. Nobody could be asked: that is said in one line, and the end is good unless
AUDIT=required asks for more, since a machine without the internet must be able to build.

AUDIT_URL is another address of OSV (a mirror, or the stand-in of the tests); npm has its own setting, `registry`.
Looked at: pip-audit 2.10 (`-s osv`, https://google.github.io/osv.dev/post-v1-query/), npm 10 and 11.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import requests
from pip_audit._service.osv import OsvService

from server.clock import SystemClock
from tools.supply import locks
from tools.supply.locks import DEVELOPMENT, ROOT

IGNORED = ROOT / "requirements" / "ignored.toml"
REACH_S_MAX = (3, 10)
AUDIT_S_MAX = 300
_MARKER = re.compile(r" ; [^\\\n]*?(?= *\\?$)", re.MULTILINE)
CLEAN, VULNERABLE, NOT_DONE = 0, 1, 3


class NotDone(Exception):
    """Nobody could be asked; says why, without a full stop."""


@dataclass(frozen=True)
class Known:
    """One vulnerability of one package.

    Attributes:
        ids: all its names; the first is shown.
        help: what to do about it.
    """

    package: str
    ids: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Ignored:
    """One that does no harm here.

    Attributes:
        until: the last day on which it is overlooked.
    """

    id: str
    reason: str
    until: date


def ignored(path: Path = IGNORED) -> list[Ignored]:
    """What was noted. Raises ValueError for one without a reason."""
    found = [Ignored(**entry) for entry in tomllib.loads(path.read_text()).get("ignored", [])]
    if bare := [each.id for each in found if not each.reason.strip()]:
        raise ValueError(f"{path.name}: {bare[0]} is ignored for no reason.")
    return found


def of_python(lock: Path, url: str) -> list[Known]:
    """What OSV knows of a lock. Nothing is installed or resolved: the lock has hashes, and names all there is.

    Raises:
        NotDone: it does not answer, or pip-audit failed.
    """
    _require_answer(url)
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as everywhere:
        # pip-audit would leave out what is installed on other machines than this one.
        everywhere.write(_MARKER.sub("", lock.read_text()))
        everywhere.flush()
        done = _run(
            [
                *[sys.executable, "-m", "pip_audit", "--requirement", everywhere.name, "--disable-pip"],
                *["--require-hashes", "--vulnerability-service", "osv", "--osv-url", url],
                *["--format", "json", "--progress-spinner", "off"],
            ],
            ROOT,
        )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise NotDone(f"pip-audit failed: {_last_line(done.stderr)}") from None
    skipped = [each["name"] for each in found if "skip_reason" in each]
    if skipped or not found:
        raise NotDone(f"pip-audit looked at {len(found)} packages and left out {', '.join(skipped) or 'none'}")
    return [
        Known(
            f"{each['name']} {each['version']}",
            (vulnerability["id"], *vulnerability["aliases"]),
            f"fixed in {', '.join(vulnerability['fix_versions'])}" if vulnerability["fix_versions"] else "no fix yet",
        )
        for each in found
        for vulnerability in each["vulns"]
    ]


def of_npm(folder: Path) -> list[Known]:
    """What npm's registry knows of the lock in a folder.

    Raises:
        NotDone: it does not answer, or npm failed.
    """
    # npm would try three times, and wait longer each time.
    done = _run(["npm", "audit", "--json", "--package-lock-only", "--fetch-retries=0", "--fetch-timeout=20000"], folder)
    try:
        answer = json.loads(done.stdout)
        vulnerabilities = answer["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        raise NotDone("npm's registry cannot be asked for advisories") from None
    return [
        Known(entry["name"], (via["url"].rpartition("/")[2],), f"{via['title']}; {via['range']} are concerned")
        for entry in vulnerabilities.values()
        for via in entry["via"]
        if isinstance(via, Mapping)
    ]


def _require_answer(url: str) -> None:
    question: dict[str, Any] = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "0.1"}
    try:
        answer = requests.post(url, json=question, timeout=REACH_S_MAX)
        answer.raise_for_status()
        answer.json()
    except requests.RequestException:
        # Not the error itself, which has addresses of the machine's proxies in it.
        raise NotDone("the advisory service (OSV) cannot be reached") from None


def _run(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(  # noqa: S603 (our own words)
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=AUDIT_S_MAX
        )
    except FileNotFoundError:
        raise NotDone(f"{command[0]} is not there") from None
    except subprocess.TimeoutExpired:
        raise NotDone(f"it took longer than {AUDIT_S_MAX} s") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def judge(found: Sequence[Known], overlooked: Sequence[Ignored], today: date) -> tuple[list[Known], list[str]]:
    """Those that count, and sentences about the others and about notes that are of no use any more."""
    counting, said = [], []
    used: set[str] = set()
    for each in found:
        note = next((note for note in overlooked if note.id in each.ids and note.until >= today), None)
        if note is None:
            counting.append(each)
        else:
            used.add(note.id)
            said.append(f"{each.package}: {note.id} is overlooked until {note.until}: {note.reason}")
    useless = [note.id for note in overlooked if note.id not in used]
    said += [f"{noted} is noted in {IGNORED.name} and not found, or too old: remove it" for noted in useless]
    return counting, said


def check(environment: Mapping[str, str] = os.environ, lock: Path = DEVELOPMENT, client: Path = ROOT / "client") -> int:
    """Ask, and say what is known; the exit status (see the module's docstring)."""
    url = environment.get("AUDIT_URL") or OsvService.DEFAULT_OSV_URL
    found: list[Known] = []
    missed: list[str] = []
    asked: list[Any] = [("Python", lambda: of_python(lock, url)), ("JavaScript", lambda: of_npm(client))]
    for what, ask in asked:
        try:
            found += ask()
        except NotDone as error:
            missed.append(what)
            print(f"audit: NOT DONE for {what}: {error}.")
    counting, said = judge(found, ignored() if not missed else [], SystemClock().now().date())
    for sentence in said:
        print(f"audit: {sentence}.")
    for each in counting:
        print(f"audit: {each.package}: {', '.join(each.ids)} ({each.help}).")
    if counting:
        print(f"audit: upgrade these {len(counting)}, or note in requirements/{IGNORED.name} why they do no harm.")
        return VULNERABLE
    if missed and environment.get("AUDIT") == "required":
        return NOT_DONE
    if missed:
        print("audit: going on without it; with AUDIT=required this is an error.")
    else:
        print(f"audit: {len(locks.of_python(lock))} Python and JavaScript's packages: nothing is known against them.")
    return CLEAN
