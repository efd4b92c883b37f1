"""Text of a given length: each word follows another as it does somewhere in the project's own texts."""

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHARACTERS_PER_TOKEN = 4
START = "."


class Words:
    """A source of text."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (text, no secret)
        self._next: dict[str, list[str]] = defaultdict(list)
        for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
            words = path.read_text().split()
            for word, following in pairwise(words):
                self._next[word].append(following)

    def text(self, tokens: int) -> str:
        """So many tokens, about."""
        return "".join(self._pieces(tokens * CHARACTERS_PER_TOKEN))[: tokens * CHARACTERS_PER_TOKEN].strip()

    def _pieces(self, characters: int) -> Iterator[str]:
        word, written = self._random.choice(list(self._next)), 0
        while written < characters:
            yield word
            yield " "
            written += len(word) + 1
            word = self._random.choice(self._next.get(word) or [START])
