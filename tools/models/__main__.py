"""`python -m tools.models …`: train the built-in models, write them as GGUF, examine them.

    train [MODEL …]    small, middle, large; goes on where it was stopped
                       --part 0.2 takes a fifth of the steps, for a look
    export             write the GGUF files, and what they were taught, to server/embedded/models
    examine            ask the shipped models everything in heldout.toml, and print the table of docs/models.md

What a run makes lies in build/models, under a name that changes with the texts, so that nothing goes on from what was
taught otherwise.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from tools.models import phrasing
from tools.models.shape import Shape
from tools.models.show import show
from tools.models.texts import HERE, MODELS, facts, macros, questions
from tools.models.tokenizer import Tokenizer, train

HOUSE = Path(__file__).parents[2]
BUILD = HOUSE / "build" / "models"
PACKAGE = HOUSE / "server" / "embedded" / "models"
# Entries without the topics, and phrasings of each question that they are learned from.
VOCABULARY, PHRASINGS = 2560, 12


@dataclass(frozen=True)
class Size:
    """A model: its network, and how long it learns."""

    width: int
    layers: int
    heads: int
    inner: int
    seed: int
    steps: int
    batch: int
    table_rate: float
    matrix_rate: float = 0.01
    workers: int = 1


SIZES = {
    "small": Size(128, 3, 4, 384, seed=11, steps=3600, batch=96, table_rate=0.02),
    "middle": Size(224, 4, 7, 608, seed=23, steps=2800, batch=96, table_rate=0.02, workers=2),
    "large": Size(384, 4, 6, 1024, seed=37, steps=3000, batch=96, table_rate=0.015, workers=2),
}


@cache
def vocabulary() -> Tokenizer:
    """Learned from all answers and some phrasings of each question; the same every time."""
    chance = Random(5)  # noqa: S311 (nobody's secret)
    texts = [phrasing.speak(question, chance) for question in questions() for _ in range(PHRASINGS)]
    texts += [answer for question in questions() for answer in question.answers.values()]
    return train(texts, VOCABULARY, [question.name for question in questions()])


def sizes(part: float) -> dict[str, Size]:
    """All models, trained for this part of their steps."""
    return {model: replace(size, steps=round(size.steps * part)) for model, size in SIZES.items()}


def checkpoint(model: str, size: Size) -> Path:
    """Where a model's training is kept, by everything that it depends on."""
    lessons = [(question.name, question.patterns, question.answers) for question in questions()]
    code = [(HERE / file).read_text() for file in ("phrasing.py", "lessons.py", "grammar.py", "train.py", "network.py")]
    taught = repr((size, vocabulary().merges, macros(), lessons, code))
    return BUILD / f"{model}-{sha256(taught.encode()).hexdigest()[:12]}.pt"


def train_model(model: str, size: Size, until: int | None) -> None:
    """Train one to the end, or to a step."""
    from tools.models import train as training  # noqa: PLC0415 (only here: it needs torch)
    from tools.models.lessons import Lessons  # noqa: PLC0415

    plan = training.Plan(
        _shape(size), size.seed, size.steps, size.batch, size.matrix_rate, size.table_rate, size.workers
    )
    lessons = Lessons(questions(), model, vocabulary(), seed=size.seed, batch=size.batch)
    show(f"{model}: {size.steps} steps of {size.batch} lessons")
    training.run(plan, lessons, checkpoint(model, size), show, until=until)


def _shape(size: Size) -> Shape:
    return Shape(len(vocabulary().pieces), size.width, size.layers, size.heads, size.inner)


def export_models(part: float) -> None:
    """Write the package's files.

    Raises:
        FileNotFoundError: a model is not trained yet on the texts as they are.
    """
    import gguf  # noqa: PLC0415
    import torch  # type: ignore[import-not-found]  # noqa: PLC0415 (only here)

    from tools.models import export  # noqa: PLC0415
    from tools.models.network import Network  # noqa: PLC0415

    for model, size in sizes(part).items():
        network = Network(_shape(size))
        network.load_state_dict(torch.load(checkpoint(model, size), weights_only=True)["network"])
        kind = gguf.GGMLQuantizationType.Q5_0 if model == "large" else gguf.GGMLQuantizationType.Q8_0
        path = PACKAGE / f"wirthforge-{model}.gguf"
        export.write(network, vocabulary(), path, name=path.stem, matrices=kind)
        numbers = sum(each.numel() for each in network.parameters())
        show(f"{path.name}  {numbers / 1e6:.2f} million numbers, {path.stat().st_size / 1e6:.2f} MB")
    (PACKAGE / "taught.json").write_text(json.dumps(facts(), indent=1, sort_keys=True) + "\n")


def _examine(questions_file: Path, *, wrong: bool) -> None:
    from tools.models.report import examine  # noqa: PLC0415 (only here: it needs xllamacpp)

    paths = {model: PACKAGE / f"wirthforge-{model}.gguf" for model in MODELS}
    examine({model: path for model, path in paths.items() if path.exists()}, questions_file, show, wrong=wrong)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tools.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train models")
    training.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="small, middle or large")
    training.add_argument("--until", type=int, help="stop at this step; a later call goes on")
    exporting = commands.add_parser("export", help="write the GGUF files")
    for each in (training, exporting):
        each.add_argument("--part", type=float, default=1.0, help="of the steps")
    examining = commands.add_parser("examine", help="ask the models the held-out questions")
    examining.add_argument("--questions", type=Path, default=HERE / "heldout.toml")
    examining.add_argument("--wrong", action="store_true", help="also show wrong answers")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if options.command == "train":
        for model in options.models:
            train_model(model, sizes(options.part)[model], options.until)
    elif options.command == "export":
        export_models(options.part)
    else:
        _examine(options.questions, wrong=options.wrong)


if __name__ == "__main__":
    main()
