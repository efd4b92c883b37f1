"""Training: the same seed gives the same weights, also with a stop in between."""

from pathlib import Path

import pytest

from tools.models import texts
from tools.models.tokenizer import Tokenizer, train

torch = pytest.importorskip("torch", reason="tools/models/requirements.txt is not installed; `make models` runs this")

from tools.models.lessons import Lessons  # noqa: E402 (they need torch)
from tools.models.shape import Shape  # noqa: E402
from tools.models.train import Plan, run  # noqa: E402

STEPS, STOP = 12, 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A small vocabulary, with all topics."""
    questions = texts.questions()
    answers = [answer for question in questions[:40] for answer in question.answers.values()]
    return train(answers, 400, [question.name for question in questions])


def _silent(_: str) -> None:
    """Progress is for people."""


def _run(folder: Path, tokenizer: Tokenizer, *stops: int, seed: int = 3, workers: int = 1) -> dict[str, bytes]:
    """The weights at the end of a run that was stopped at these steps."""
    shape = Shape(len(tokenizer.pieces), width=32, layers=1, heads=2, inner=64)
    plan = Plan(shape, seed, STEPS, batch=4, matrix_rate=0.02, workers=workers)
    lessons = Lessons(texts.questions(), "small", tokenizer, seed=seed, batch=plan.batch)
    for stop in (*stops, STEPS):
        run(plan, lessons, folder / "checkpoint.pt", _silent, until=stop)
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    return {name: values.numpy().tobytes() for name, values in weights.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, tokenizer: Tokenizer, workers: int) -> None:
    """Stopped and gone on, or run in one piece: every bit is equal."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = _run(tmp_path / "whole", tokenizer, workers=workers)
    assert whole == _run(tmp_path / "parts", tokenizer, STOP, workers=workers)


def test_another_seed_is_another_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The three models differ by more than their size."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert _run(tmp_path / "one", tokenizer) != _run(tmp_path / "other", tokenizer, seed=4)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Nobody goes on from what was trained otherwise."""
    _run(tmp_path, tokenizer)
    with pytest.raises(ValueError, match="another plan"):
        _run(tmp_path, tokenizer, seed=4)


def test_only_answers_are_learned(tokenizer: Tokenizer) -> None:
    """The question's tokens are given, never asked for."""
    lessons = Lessons(texts.questions(), "large", tokenizer, seed=1, batch=8)
    batch = next(lessons.from_step(0))
    for lesson in batch:
        told = tokenizer.decode(lesson.tokens[lesson.learned_from :])
        assert any(answer.startswith(told) for question in texts.questions() for answer in [question.answers["large"]])
