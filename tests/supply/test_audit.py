"""The audit's three ends, by real pip-audit and npm against a stand-in of those whom they ask."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.supply.advisories import Advisories, known
from tools.supply import audit
from tools.supply.audit import CLEAN, NOT_DONE, VULNERABLE, Ignored, Known, check, ignored, judge

NOWHERE = "http://127.0.0.1:1"
GHSA = "GHSA-abcd-efgh-2345"
FLAW = {
    "id": "PYSEC-2026-1",
    "summary": "It says too much.",
    "details": "It says too much when it is asked twice.",
    "aliases": [GHSA, "CVE-2026-0001"],
    "modified": "2026-11-01T00:00:00Z",
    "published": "2026-11-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI", "purl": "pkg:pypi/idna"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}],
        }
    ],
}
ADVISORY = {
    "id": 1,
    "url": "https://github.com/advisories/GHSA-wxyz-wxyz-wxyz",
    "title": "It stumbles over long words",
    "severity": "high",
    "vulnerable_versions": "<1.0.1",
    "cwe": ["CWE-1333"],
    "cvss": {"score": 7.5, "vectorString": None},
}


@pytest.fixture
def advisories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Advisories]:
    """Those who are asked; what npm and pip-audit keep is kept in the test's folder."""
    if shutil.which("npm") is None:
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: run `make check` once, which brings it")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "npm"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with known() as found:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", found.url)
        yield found


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Of two Python packages, of which one is for other machines."""
    path = tmp_path / "small.lock"
    hashed = f" \\\n    --hash=sha256:{'0' * 64}\n    # via wirthforge (pyproject.toml)\n"
    path.write_text(f"idna==3.6{hashed}tzdata==2026.1 ; sys_platform == 'win32'{hashed}")
    return path


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """Of one package of npm."""
    folder = tmp_path / "client"
    folder.mkdir()
    needs = {"name": "client", "version": "1.0.0", "dependencies": {"long-words": "1.0.0"}}
    (folder / "package.json").write_text(json.dumps(needs))
    packages = {
        "": needs,
        "node_modules/long-words": {"version": "1.0.0", "license": "MIT", "integrity": "sha512-AA=="},
    }
    (folder / "package-lock.json").write_text(
        json.dumps({"name": "client", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages})
    )
    return folder


def asks(advisories: Advisories, **more: str) -> dict[str, str]:
    """The environment of a machine that reaches them."""
    return {"AUDIT_URL": f"{advisories.url}/v1/query", **more}


def test_nothing_is_known(advisories: Advisories, lock: Path, client: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each package was asked for in its version, and the end is good, also where the audit is required."""
    assert check(asks(advisories, AUDIT="required"), lock, client) == CLEAN
    assert "nothing is known against them" in capsys.readouterr().out
    assert {"package": {"name": "idna", "ecosystem": "PyPI"}, "version": "3.6"} in advisories.asked
    assert {"package": {"name": "tzdata", "ecosystem": "PyPI"}, "version": "2026.1"} in advisories.asked
    assert {"long-words": ["1.0.0"]} in advisories.asked


def test_vulnerable(advisories: Advisories, lock: Path, client: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are named, with what to do."""
    advisories.python["idna"], advisories.npm["long-words"] = [FLAW], [ADVISORY]
    assert check(asks(advisories), lock, client) == VULNERABLE
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("audit: idna 3.6: ")
    assert {GHSA, "CVE-2026-0001", "PYSEC-2026-1"} <= {word.strip(",:") for word in said[0].split()}
    assert said[0].endswith("(fixed in 3.7).")
    assert said[1] == "audit: long-words: GHSA-wxyz-wxyz-wxyz (It stumbles over long words; <1.0.1 are concerned)."
    assert said[2].startswith("audit: upgrade these 2, or note")


@pytest.mark.parametrize("away", ["nobody", "an error", "no answer of theirs"])
def test_nobody_can_be_asked(
    advisories: Advisories,
    lock: Path,
    client: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    away: str,
) -> None:
    """It is said in plain words, and is an error only where it is asked to be."""
    environment = asks(advisories)
    if away == "nobody":
        environment["AUDIT_URL"] = NOWHERE
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", NOWHERE)
    else:
        advisories.status = 405 if away == "an error" else 502
    assert check(environment, lock, client) == CLEAN
    assert capsys.readouterr().out.splitlines() == [
        "audit: NOT DONE for Python: the advisory service (OSV) cannot be reached.",
        "audit: NOT DONE for JavaScript: npm's registry cannot be asked for advisories.",
        "audit: going on without it; with AUDIT=required this is an error.",
    ]
    if away == "nobody":
        assert check({**environment, "AUDIT": "required"}, lock, client) == NOT_DONE


def test_one_of_two_can_be_asked(advisories: Advisories, lock: Path, client: Path) -> None:
    """What the one knows counts, whatever the other would have said."""
    advisories.npm["long-words"] = [ADVISORY]
    assert check({"AUDIT_URL": NOWHERE}, lock, client) == VULNERABLE


def test_a_lock_without_hashes_is_not_audited(advisories: Advisories, lock: Path, client: Path) -> None:
    """pip-audit would resolve it by itself, and then it is not what is installed."""
    lock.write_text("idna\n")
    assert check(asks(advisories, AUDIT="required"), lock, client) == NOT_DONE


def test_notes_hold_until_their_day() -> None:
    """By any of the names; afterwards the vulnerability counts again, and a note of nothing is told."""
    found = [Known("idna 3.6", ("PYSEC-2026-1", GHSA), "fixed in 3.7")]
    note = Ignored(GHSA, "Nobody asks twice.", date(2026, 12, 31))
    counting, said = judge(found, [note], date(2026, 12, 31))
    assert (counting, said) == ([], [f"idna 3.6: {GHSA} is overlooked until 2026-12-31: Nobody asks twice."])
    counting, said = judge(found, [note], date(2027, 1, 1))
    assert counting == found
    assert len(said) == 1
    assert judge([], [note], date(2026, 12, 1))[1] == [
        f"{GHSA} is noted in ignored.toml and not found, or too old: remove it"
    ]


def test_notes_have_reasons(tmp_path: Path) -> None:
    """None is accepted without; and ours are read."""
    path = tmp_path / "ignored.toml"
    path.write_text(f'[[ignored]]\nid = "{GHSA}"\nreason = " "\nuntil = 2027-01-31\n')
    with pytest.raises(ValueError, match="for no reason"):
        ignored(path)
    assert isinstance(ignored(audit.IGNORED), list)
