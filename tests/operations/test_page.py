"""The page itself: nothing on it is left out by the tests, and nothing that points to it leads nowhere."""

import re
from collections import Counter

from tests.cli.programs import REPOSITORY
from tests.operations.page import NOT_TRIED, PAGE, TRIED, blocks, missing, step

ALERTS = REPOSITORY / "helm" / "alerts" / "wirthforge.yaml"
HERE = REPOSITORY / "tests" / "operations"


def test_every_block_is_tried() -> None:
    """Or says why not; and what is tried is tried by one of these tests."""
    called = set(re.findall(r'\.do\("([^"]+)"\)', "".join(path.read_text() for path in HERE.glob("test_*.py"))))
    named = Counter(block.mark.removeprefix(TRIED) for block in blocks() if block.mark.startswith(TRIED))
    assert set(named) == called
    for block in blocks():
        assert block.mark.startswith((TRIED, NOT_TRIED)), f"nobody tries, and nobody says why:\n{block.text}"
        assert block.mark.startswith(NOT_TRIED) or block.commands()


def _anchors() -> set[str]:
    headings = re.findall(r"^#+ (.+)$", PAGE.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    """On the page, from the alerts, and from what the server says."""
    texts = [path.read_text() for path in (REPOSITORY / "server").rglob("*.py")]
    linked = {
        *re.findall(r"\]\(#([\w-]+)\)", PAGE.read_text()),
        *re.findall(r"docs/operations\.md#([\w-]+)", ALERTS.read_text()),
        *re.findall(r"(?:docs/operations\.md|\{PAGE\})#([\w-]+)", "\n".join(texts)),
    }
    assert len(linked) > 10
    assert linked <= _anchors()


def test_every_alert_is_on_the_page() -> None:
    """Somebody who is woken up searches for the name that woke them."""
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    assert names
    assert [name for name in names if f"`{name}`" not in PAGE.read_text()] == []


def test_how_a_block_is_read() -> None:
    """Commands in their order, each with its lines; what complains is to fail; names are replaced in both."""
    refused = step("a restore that is refused").commands()
    assert [command.words.split()[2] for command in refused] == ["damaged.tar", "newer.tar", "box.tar"]
    assert all(command.fails for command in refused)
    down, look = step("which engine is down").commands()
    assert (down.fails, look.output) == (False, ())
    own = down.with_own({"wirthforge-small": "s", "$BOX": "B"})
    assert own.output == ('wirthforge_engine_up{engine="s"} 1.0',)
    assert "B/metrics" in own.words


def test_how_lines_are_compared() -> None:
    """In their order, with others in between, and columns of any width; `…` is anything."""
    printed = "first   1\nbetween\nsecond: 2 rows\n"
    assert missing(("first 1", "second: … rows"), printed) == []
    assert missing(("second: … rows", "first 1"), printed) == ["first 1"]
    assert missing(("first",), printed) == ["first"]
