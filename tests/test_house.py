"""The rules of the house that linters do not know."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from server.settings import CUSTOMARY_NAMES, ENVIRONMENT_PREFIX, Settings

HOUSE = Path(__file__).parents[1]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PRODUCTION = sorted(path for room in ("server", "quotas", "migrations") for path in (HOUSE / room).rglob("*.py"))
TESTS = sorted((HOUSE / "tests").rglob("*.py"))
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
ROW = re.compile(
    r"^\| `(?P<setting>\w+)` \| (?P<environment>[^|]+) \| (?P<default>[^|]+) \| (?P<purpose>[^|]+) \|$", re.MULTILINE
)

# A machine of ours, and a package index, in pieces, so that this file is not found by its own search.
DEVELOPERS_PATH = re.compile(r"(?<![\w.~$}>-])/(?:ho" + r"me|wo" + r"rk|ro" + r"ot|Us" + r"ers)/\w")
PACKAGE_INDEX = re.compile(r"py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + r"js\.org|https?://\S+/simple\b")
# (file, what may stand there): examples in documents.
ALLOWED: set[tuple[str, str]] = set()


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def _name(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def test_no_file_holds_two_ideas() -> None:
    """A file of production code has at most 400 lines."""
    lengths = {_name(path): len(path.read_text().splitlines()) for path in PRODUCTION}
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_holds_two_ideas() -> None:
    """A function has at most 70 lines beside its docstring; in tests as well."""
    long = {
        f"{_name(path)}:{function.name}": lines
        for path in (*PRODUCTION, *TESTS)
        for function in _functions(ast.parse(path.read_text()))
        if (lines := _lines(function)) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_every_test_is_a_sentence() -> None:
    """Each test's docstring says what holds if it passes, and ends like a sentence."""
    mute = [
        f"{_name(path)}:{function.name}"
        for path in TESTS
        for function in _functions(ast.parse(path.read_text()))
        if function.name.startswith("test_") and not (ast.get_docstring(function) or "").rstrip().endswith(".")
    ]
    assert mute == []


def test_no_test_sleeps() -> None:
    """Tests wait for what they wait for, never for a time that somebody guessed."""
    sleepers = [
        f"{_name(path)}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id in {"time", "asyncio", "anyio"}
    ]
    assert sleepers == []


def _documented_settings() -> dict[str, re.Match[str]]:
    return {row["setting"]: row for row in ROW.finditer((HOUSE / "docs" / "settings.md").read_text())}


def test_every_setting_is_documented() -> None:
    """docs/settings.md names all settings that there are and no other, in their order."""
    assert list(_documented_settings()) == list(Settings.__struct_fields__)


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: str(field.name))
def test_a_setting_is_documented_as_it_is(field: msgspec.structs.FieldInfo) -> None:
    """Its variables, its default, and something about it."""
    row = _documented_settings()[field.name]
    customary = [variable for variable, name in CUSTOMARY_NAMES.items() if name == field.name]
    variables = [f"{ENVIRONMENT_PREFIX}{field.name.upper()}", *customary]
    assert re.findall(r"`(\w+)`", row["environment"]) == variables
    if field.name == "data_dir":
        assert row["default"] == "`/var/lib/wirthforge` for root, else `~/.local/share/wirthforge`"
    else:
        written = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert row["default"] == ("none" if field.default in ("", ()) else f"`{written}`")
    assert row["purpose"].endswith(".")


def test_every_script_is_explained() -> None:
    """docs/architecture.md speaks of each Lua script."""
    architecture = (HOUSE / "docs" / "architecture.md").read_text()
    scripts = sorted(path.stem for path in (HOUSE / "quotas" / "lua").glob("*.lua"))
    assert len(scripts) >= 7
    assert [script for script in scripts if not re.search(rf"\b{script}\b", architecture)] == []


def test_links_lead_somewhere() -> None:
    """What README.md and the pages below docs/ link to is there."""
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text()) if "://" not in link]
    assert len(links) > 5
    dead = [f"{_name(page)} → {link}" for page, link in links if not (page.parent / link).exists()]
    assert dead == []


def _tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=HOUSE, capture_output=True, check=True, text=True)  # noqa: S607
    for name in filter(None, listed.stdout.split("\0")):
        try:
            yield name, (HOUSE / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a picture, or removed and not committed yet


@pytest.mark.skipif(not (HOUSE / ".git").exists(), reason="not a checkout")
def test_nothing_tells_where_it_was_made() -> None:
    """No tracked file holds a path of somebody's machine or the address of a package index."""
    found = {
        (name, match.group())
        for name, text in _tracked_texts()
        for pattern in (DEVELOPERS_PATH, PACKAGE_INDEX)
        for match in pattern.finditer(text)
    }
    assert found - ALLOWED == set()
