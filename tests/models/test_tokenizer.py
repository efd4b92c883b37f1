"""Our tokenizer and llama.cpp's: what the models were trained on is what they are given."""

import unicodedata
from pathlib import Path
from random import Random

import gguf
import pytest
import xllamacpp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.shipped import MODELS, Asked
from tools.models import phrasing, texts
from tools.models.tokenizer import BYTE_LETTERS, CONTROL, Tokenizer, cut, train

ODD = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t\ttabs\t", "a  b   c", "trailing   ", "it's I'll we'd 'tis '", "x\xa0y",
    "Ünïcödé Größe", "日本語のテキスト", "привет мир", "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467", "é",
    "\x00\x01\x7f", "\u200b\ufeff", "1234567890 ½ ²", "a.b,c;d!e?", "---___***", "http://127.0.0.1:8000/v1",
    '{\'a\': "b"}', "\r\n", "…", "\x85", "\u2028", "א ב", "ﷺ", "\U0001f3f3\ufe0f\u200d\U0001f308",
]  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    """The vocabulary of the shipped models, read from the file."""
    return Tokenizer(_merges(MODELS["small"]))


def _merges(path: Path) -> tuple[tuple[str, str], ...]:
    field = gguf.GGUFReader(path).fields["tokenizer.ggml.merges"]
    pairs = (bytes(field.parts[index]).decode().split(" ") for index in field.data)
    return tuple((left, right) for left, right in pairs)


@pytest.fixture(scope="module")
def asked() -> Asked:
    """The small model in llama.cpp."""
    return Asked(MODELS["small"])


def test_all_models_share_one_vocabulary(shipped: Tokenizer) -> None:
    """The files have the same merges."""
    assert {_merges(path) for path in MODELS.values()} == {shipped.merges}


def test_llama_cpp_cuts_all_texts_as_we_do(asked: Asked, shipped: Tokenizer) -> None:
    """Every answer, and phrasings of every question, become the same tokens here and there."""
    chance = Random(8)  # noqa: S311 (nobody's secret)
    all_ = [answer for question in texts.questions() for answer in question.answers.values()]
    all_ += [phrasing.speak(question, chance) for question in texts.questions() for _ in range(3)]
    for text in dict.fromkeys(all_):
        assert asked.tokens(text) == shipped.encode(text), text


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_llama_cpp_cuts_odd_texts_as_we_do(asked: Asked, shipped: Tokenizer, text: str) -> None:
    """Spaces, signs, scripts and bytes that nobody was taught."""
    assert asked.tokens(text) == shipped.encode(text)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_a_text_survives(text: str) -> None:
    """Cutting loses nothing, and decoding gives back what was encoded, also with merges left out."""
    text = text.encode(errors="replace").decode()
    few = train(["hello there, hello again", "the box is shared"], 300)
    assert "".join(cut(text)) == text
    assert few.decode(few.encode(text)) == text
    assert few.decode(few.encode(text, dropout=0.4, chance=Random(1))) == text  # noqa: S311


def test_merges_shorten_what_repeats() -> None:
    """A word that repeats becomes one token; the order of texts does not matter."""
    read = ["the box is shared", "the box is idle", "the box waits"]
    learned = train(read, 300)
    assert len(learned.encode(" box")) == 1
    assert learned.merges == train(read[::-1], 300).merges
    assert learned.pieces[: len(CONTROL)] == CONTROL


def test_every_byte_has_a_letter_of_its_own() -> None:
    """256 letters, all printable, none a space."""
    assert len(set(BYTE_LETTERS)) == 256
    assert not any(
        letter.isspace() or unicodedata.category(letter).startswith("C")
        for letter in BYTE_LETTERS
        if letter != "\u00ad"
    )


def test_xllamacpp_is_the_engine_that_is_shipped() -> None:
    """The comparison runs in the same llama.cpp that `wirthforge up` starts."""
    assert xllamacpp.__version__
