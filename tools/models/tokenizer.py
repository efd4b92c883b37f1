"""Byte-pair encoding as GPT-2 and llama.cpp do it: ours to train, theirs to run.

A text is cut into pieces (a word with the space before it, digits, signs); inside of each, the pair of neighbours that
was merged earliest in training is merged first, until no known pair is left. Bytes stand for themselves as printable
letters, so every text can be written. llama.cpp does the same for `tokenizer.ggml.model = gpt2`, `pre = gpt-2`; a test
holds the two together.

In training a merge may be left out by chance (BPE dropout, Provilkov and others 2020): the model then meets words in
pieces, as it does when somebody mistypes one.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random

BEGIN, END, USER, ASSISTANT = range(4)
CONTROL = ("<s>", "</s>", "<|user|>", "<|assistant|>")
# GPT-2's contractions; only in lower case.
SUFFIXES = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
SPACE, LETTER, DIGIT, SIGN = range(4)


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it prints, else one from U+0100 on."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(0x100 + number) for number in range(256))
    return [chr(octet) if octet in prints else next(others) for octet in range(256)]


BYTE_LETTERS = _byte_letters()


def _kind(letter: str) -> int:
    if letter.isspace() and letter not in "\x1c\x1d\x1e\x1f":
        return SPACE
    return {"L": LETTER, "N": DIGIT}.get(unicodedata.category(letter)[0], SIGN)


def cut(text: str) -> Iterator[str]:
    """The pieces of a text, by GPT-2's rule.

    's|'t|'re|'ve|'m|'ll|'d| ?letters| ?digits| ?signs|spaces that nothing follows|spaces
    """
    kinds = [_kind(letter) for letter in text]
    at = 0
    while at < len(text):
        suffix = next((each for each in SUFFIXES if text.startswith(each, at)), None)
        if suffix is not None:
            yield suffix
            at += len(suffix)
            continue
        begin = at + 1 if text[at] == " " and at + 1 < len(text) and kinds[at + 1] != SPACE else at
        end = begin
        while end < len(text) and kinds[end] == kinds[begin]:
            end += 1
        if kinds[begin] == SPACE and end < len(text) and end - begin > 1:
            # The last space belongs to what follows.
            end -= 1
        yield text[at:end]
        at = end


def _letters(piece: str) -> tuple[str, ...]:
    return tuple(BYTE_LETTERS[octet] for octet in piece.encode())


def train(texts: Iterable[str], size: int, topics: Sequence[str] = ()) -> "Tokenizer":
    """Learn the merges that shorten the texts most.

    Args:
        texts: what to learn from.
        size: entries of the vocabulary without topics; fewer if nothing repeats any more.
        topics: names of questions.
    """
    counts = Counter(piece for text in texts for piece in cut(text))
    words = [(list(_letters(piece)), count) for piece, count in sorted(counts.items())]
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for number, (letters, count) in enumerate(words):
        for pair in pairwise(letters):
            pairs[pair] += count
            where[pair].add(number)
    merges: list[tuple[str, str]] = []
    while len(CONTROL) + len(BYTE_LETTERS) + len(merges) < size:
        # The letters decide between equals, so that the order of texts does not.
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:  # noqa: PLR2004 (what occurs once shortens nothing)
            break
        merges.append(best)
        for number in sorted(where.pop(best)):
            letters, count = words[number]
            for pair in pairwise(letters):
                pairs[pair] -= count
                where[pair].discard(number)
            letters[:] = _merged(letters, best)
            for pair in pairwise(letters):
                pairs[pair] += count
                where[pair].add(number)
        del pairs[best]
    return Tokenizer(tuple(merges), tuple(topics))


def _merged(letters: Sequence[str], pair: tuple[str, str]) -> list[str]:
    found, at = [], 0
    while at < len(letters):
        if at + 1 < len(letters) and (letters[at], letters[at + 1]) == pair:
            found.append(letters[at] + letters[at + 1])
            at += 2
        else:
            found.append(letters[at])
            at += 1
    return found


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: control tokens, the bytes, one token for each merge, and the topics, in this order.

    A topic is the name of a question as one control token: a model says it first, unseen, and thereby decides what it
    was asked, before it answers (lessons.py).
    """

    merges: tuple[tuple[str, str], ...]
    topics: tuple[str, ...] = ()

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """What each token is, written in byte letters."""
        texts = (left + right for left, right in self.merges)
        return (*CONTROL, *BYTE_LETTERS, *texts, *(f"<|{topic}|>" for topic in self.topics))

    @cached_property
    def _topics_from(self) -> int:
        return len(CONTROL) + len(BYTE_LETTERS) + len(self.merges)

    def topic(self, name: str) -> int:
        """The token of a topic."""
        return self._topics_from + self.topics.index(name)

    def is_control(self, token: int) -> bool:
        """Whether the token is not text."""
        return token < len(CONTROL) or token >= self._topics_from

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _known(self) -> dict[str, tuple[int, ...]]:
        return {}

    def encode(self, text: str, *, dropout: float = 0.0, chance: Random | None = None) -> list[int]:
        """Tokens of a text.

        Args:
            dropout: how often a merge is left out; needs `chance`.
        """
        if not dropout or chance is None:
            return [token for piece in cut(text) for token in self._whole(piece)]
        return [
            token
            for piece in cut(text)
            for token in (self._torn(piece, dropout, chance) if chance.random() < 4 * dropout else self._whole(piece))
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; control tokens say nothing."""
        octet_of = {letter: octet for octet, letter in enumerate(BYTE_LETTERS)}
        letters = "".join(self.pieces[token] for token in tokens if not self.is_control(token))
        return bytes(octet_of[letter] for letter in letters).decode(errors="replace")

    def _whole(self, piece: str) -> tuple[int, ...]:
        if piece not in self._known:
            letters = list(_letters(piece))
            while (best := min(pairwise(letters), key=self._rank, default=None)) in self._ranks:
                assert best is not None, "None is no pair"
                letters = _merge_first(letters, best)
            self._known[piece] = tuple(self._numbers[letter] for letter in letters)
        return self._known[piece]

    def _torn(self, piece: str, dropout: float, chance: Random) -> list[int]:
        letters = list(_letters(piece))
        while True:
            open_pairs = [pair for pair in pairwise(letters) if pair in self._ranks and chance.random() >= dropout]
            if not open_pairs:
                return [self._numbers[letter] for letter in letters]
            letters = _merge_first(letters, min(open_pairs, key=self._rank))

    def _rank(self, pair: tuple[str, str]) -> int:
        return self._ranks.get(pair, len(self._ranks))


def _merge_first(letters: list[str], pair: tuple[str, str]) -> list[str]:
    at = next(index for index, each in enumerate(pairwise(letters)) if each == pair)
    return [*letters[:at], letters[at] + letters[at + 1], *letters[at + 2 :]]
