"""The steps of docs/operations.md, as they stand there.

A step is a block of a shell, below a comment that gives its name or says why nobody tries it:

    <!-- tried: an engine comes back -->
    ```console
    $ a command
    a line that it prints, … for whatever else stands there
    ```

Lines that a command prints besides are not on the page. What is on it comes in this order. A command fails where the
page shows that it complains, and only there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cli.programs import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"
TRIED, NOT_TRIED = "tried: ", "not tried: "
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- ([^>]*) -->\n$")
_PROMPT = "$ "
_COMPLAINTS = re.compile(r"^(wirthforge: |missing |broken )")


@dataclass(frozen=True)
class Command:
    """What is typed, and what the page says that it prints."""

    words: str
    output: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether its exit status is to be 1."""
        return any(_COMPLAINTS.match(line) for line in self.output)

    def with_own(self, own: Mapping[str, str]) -> "Command":
        """The same with a box's own names in the place of the page's."""
        return Command(_replaced(self.words, own), tuple(_replaced(line, own) for line in self.output))


@dataclass(frozen=True)
class Block:
    """One block of the page: what its comment says, and what is in it."""

    mark: str
    language: str
    text: str

    def commands(self) -> list[Command]:
        """In their order."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith(_PROMPT):
                found.append((line.removeprefix(_PROMPT), []))
            elif found and found[-1][0].endswith("\\") and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            else:
                found[-1][1].append(line)
        return [Command(words, tuple(output)) for words, output in found]


def blocks(page: Path = PAGE) -> list[Block]:
    """All of the page."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, fence.start())
        found.append(Block(mark[1] if mark else "", fence[1], fence[2]))
    return found


def step(name: str) -> Block:
    """The block of this name."""
    (found,) = (block for block in blocks() if block.mark == f"{TRIED}{name}")
    return found


def missing(expected: tuple[str, ...], printed: str) -> list[str]:
    """The first line of the page that was not printed after those before it, and all after it; none where all were."""
    lines = iter(printed.splitlines())
    for number, wanted in enumerate(expected):
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in _squeezed(wanted).split("…")))
        if not any(pattern.fullmatch(_squeezed(line)) for line in lines):
            return list(expected[number:])
    return []


def _squeezed(line: str) -> str:
    """Columns are as wide as what is in them."""
    return " ".join(line.split())


def _replaced(text: str, own: Mapping[str, str]) -> str:
    for name, value in own.items():
        text = text.replace(name, value)
    return text
