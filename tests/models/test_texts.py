"""The texts: enough of them, well-formed, and apart from the examination."""

import re
from random import Random

import pytest

from tools.models import grammar, phrasing, texts
from tools.models.examine import ELSE, exams

QUESTIONS_MIN, PHRASINGS_MIN = 400, 5_000
EXAMS_MIN, EXAMS_ELSE_MIN = 120, 25
ANSWER_WORDS_MAX = 60
DEMONSTRATION = "demonstration model"


def test_there_are_many_questions_in_many_phrasings() -> None:
    """At least 400 questions, each in several phrasings, thousands altogether without anything else."""
    known = [question for question in texts.questions() if not question.is_anything_else]
    phrasings = {question.name: sum(map(grammar.count, question.patterns)) for question in known}
    assert len(known) >= QUESTIONS_MIN
    assert sum(phrasings.values()) >= PHRASINGS_MIN
    assert {name: number for name, number in phrasings.items() if number < 2} == {}


def test_answers_are_short_and_whole() -> None:
    """Each model's answer to each question is a few sentences, with all facts filled in."""
    for question in texts.questions():
        for answer in question.answers.values():
            assert len(answer.split()) <= ANSWER_WORDS_MAX, question.name
            assert answer.endswith((".", "!", "?")), question.name
            assert "{" not in answer.replace("{route", ""), question.name


def test_models_say_the_same_in_their_own_words() -> None:
    """Most questions are answered in different words by different models."""
    known = [question for question in texts.questions() if not question.is_anything_else]
    differing = [question for question in known if len(set(question.answers.values())) > 1]
    assert len(differing) > 0.9 * len(known)


def test_anything_else_is_refused_plainly() -> None:
    """The answer to a question about something else says what the model is, and how to get a real one."""
    beside = [question for question in texts.questions() if question.is_anything_else]
    assert len(beside) >= 8
    for question in beside:
        for answer in question.answers.values():
            assert DEMONSTRATION in answer
            assert "--model" in answer


def test_the_examination_is_large_enough() -> None:
    """At least 120 questions, 25 of them about anything else, none twice."""
    held_out = exams(texts.HERE / "heldout.toml")
    assert len({grammar.plain(exam.question) for exam in held_out}) == len(held_out) >= EXAMS_MIN
    assert sum(exam.room == ELSE for exam in held_out) >= EXAMS_ELSE_MIN


def test_no_question_of_the_examination_is_in_the_training_texts() -> None:
    """No pattern stands for one of them, whatever frame is put around it."""
    before, after = (grammar.recogniser(grammar.parse(f"[{name}]", texts.macros())) for name in ("before", "after"))
    # A frame alone, or with signs that count for nothing, recognises every greeting; those patterns are left out.
    taught = [
        (question.name, re.compile(rf"(?:{before})?\s*{known}\s*(?:{after})?"))
        for question in texts.questions()
        for pattern in question.patterns
        if not re.fullmatch(known := grammar.recogniser(pattern), "")
    ]
    seen = {
        exam.question: name
        for exam in exams(texts.HERE / "heldout.toml")
        for name, pattern in taught
        if pattern.fullmatch(grammar.plain(exam.question))
    }
    assert seen == {}


def test_no_augmented_phrasing_is_a_question_of_the_examination() -> None:
    """Twenty thousand lessons hold none of them, as their words stand."""
    chance = Random(1)  # noqa: S311 (nobody's secret)
    held_out = {grammar.plain(exam.question) for exam in exams(texts.HERE / "heldout.toml")}
    questions = texts.questions()
    spoken = {grammar.plain(phrasing.speak(chance.choice(questions), chance)) for _ in range(20_000)}
    assert held_out & spoken == set()


@pytest.mark.parametrize(
    ("line", "all_"),
    [
        ("a (b|c) d", ["a b d", "a c d"]),
        ("(a|) b", ["a b", "b"]),
        ("a (b (c|d)|e)?", ["a b c?", "a b d?", "a e?"]),
        ("[xs] y", ["1 y", "2 y"]),
    ],
)
def test_a_line_stands_for_its_phrasings(line: str, all_: list[str]) -> None:
    """Listing, counting, speaking and recognising agree."""
    sequence = grammar.parse(line, {"xs": "1|2"})
    assert grammar.phrasings(sequence, 100) == all_
    assert grammar.count(sequence) == len(all_)
    chance = Random(2)  # noqa: S311 (nobody's secret)
    assert {grammar.speak(sequence, chance) for _ in range(100)} == set(all_)
    assert all(re.fullmatch(grammar.recogniser(sequence), grammar.plain(text)) for text in all_)


@pytest.mark.parametrize("line", ["(a", "a)", "a|b", "(a|(b)"])
def test_a_line_with_odd_brackets_is_refused(line: str) -> None:
    """Nobody is taught half a pattern."""
    with pytest.raises(ValueError, match="Brackets"):
        grammar.parse(line, {})
