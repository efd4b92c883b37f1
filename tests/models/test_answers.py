"""The shipped models answer what a new user asks, under the llama.cpp that `wirthforge up` starts."""

import re
from functools import cache
from pathlib import Path

import gguf
import pytest

from tests.models.shipped import FOLDER, MODELS, NAMES, Asked

PACKAGE_BYTES_MAX = 12_000_000
# Millions of numbers: about one, three and eight.
NUMBERS = {"small": (0.8, 1.3), "middle": (2.5, 3.6), "large": (7.0, 9.0)}
KEY_QUESTIONS = {
    "What is a council?": "several",
    "How is the box shared?": "tokens",
    "Who can see what I ask?": "nobody|yours",
    "How do I add a real model?": "--model",
    "How do I create an API key?": "API keys|key create",
    "Which port does it use?": "8000",
    "How do I invite a housemate?": "People|user add",
    "How do I set a quota?": "Quotas|quota set",
    "What does error 429 mean?": "own",
    "Something does not work, what can I do?": "wirthforge doctor",
}
# What a model takes for something else, until the next training: strict, so that the mark goes when it is right.
MISSED = {("large", "How do I invite a housemate?")}
CASES = [
    pytest.param(name, question, marks=[pytest.mark.xfail(strict=True)] if (name, question) in MISSED else [])
    for name in MODELS
    for question in KEY_QUESTIONS
]
BESIDE = ["What is the capital of France?", "Write a poem about the sea", "what is 7 times 8", "Who was Napoleon?"]


@cache
def _model(name: str) -> Asked:
    return Asked(MODELS[name])


@pytest.mark.parametrize(("name", "question"), CASES)
def test_a_key_question_is_answered(name: str, question: str) -> None:
    """With the right fact, and the model stops by itself."""
    answer, reason = _model(name).chat(question)
    assert re.search(KEY_QUESTIONS[question], answer, re.IGNORECASE), answer
    assert reason == "stop"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("question", BESIDE)
def test_anything_else_is_refused_plainly(name: str, question: str) -> None:
    """It says what it is and how to get a real model."""
    answer, reason = _model(name).chat(question)
    assert "demonstration model" in answer
    assert "--model" in answer
    assert reason == "stop"


def test_each_question_stands_by_itself() -> None:
    """A conversation before it changes nothing, and neither do capitals and spaces."""
    model = _model("small")
    alone = model.chat("Which port does it use?", temperature=0)
    assert model.chat("What is a slot?", "One answer grows there.", "Which port does it use?", temperature=0) == alone
    assert model.chat("  WHICH PORT DOES IT USE? ", temperature=0) == alone


def test_models_answer_in_their_own_words() -> None:
    """Otherwise a council of them would be no council."""
    answers = {
        question: {_model(name).chat(question, temperature=0)[0] for name in MODELS} for question in KEY_QUESTIONS
    }
    assert sum(len(said) > 1 for said in answers.values()) > len(answers) / 2


def test_there_are_three_models() -> None:
    """Small, middle and large lie in the package; if one is missing, `make models` trains it."""
    assert list(MODELS) == list(NAMES)


def test_all_models_together_are_small() -> None:
    """Less than 12 MB in the package."""
    assert sum(path.stat().st_size for path in MODELS.values()) < PACKAGE_BYTES_MAX


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_as_large_as_it_says(name: str) -> None:
    """Llama's architecture, about one, three and eight million numbers."""
    reader = gguf.GGUFReader(MODELS[name])
    numbers = sum(int(tensor.n_elements) for tensor in reader.tensors) / 1e6
    assert NUMBERS[name][0] < numbers < NUMBERS[name][1]
    assert reader.fields["general.architecture"].contents() == "llama"


def test_a_card_lies_beside_the_models() -> None:
    """What they can and cannot do, and under which licence."""
    card = Path(FOLDER / "README.md").read_text()
    assert all(path.name in card for path in MODELS.values())
    assert "Apache-2.0" in card
    assert "cannot" in card
