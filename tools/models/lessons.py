"""Batches: a function of the seed and the number of the step, so that any step can be made without those before it.

    <s> <|user|> how do i get a key <|assistant|> <|key.create|> Make one on the ... </s>

What a model finds hard is to see which question it hears, what it finds easy is to recite. So it is taught to say the
question's topic first, a control token that no client sees: one decision in one place, and the answer follows from it.
Most lessons end with the topic; the others go on to the answer. A model that decided word by word would have to
find the same thing out at every word, and learns it many times slower (docs/models.md has figures).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tools.models import phrasing
from tools.models.texts import Question
from tools.models.tokenizer import ASSISTANT, BEGIN, END, USER, Tokenizer

# Batches that are drawn together and sorted by length, so that little is padded.
TOGETHER = 8
# How often a merge of a question is left out, and how often an answer is learned as a text by itself.
DROPOUT, ALONE = 0.03, 0.01
# Of all lessons, those whose answer is "I do not know".
ANYTHING_ELSE = 0.25
QUESTION_TOKENS_MAX = 160
# How often a question is taught: as its lines, and so many more.
ASKED = 3
# This part of the lessons ends with the topic.
TOPIC_ONLY = 0.72


@dataclass(frozen=True)
class Lesson:
    """Tokens, and from which on they are to be learned."""

    tokens: tuple[int, ...]
    learned_from: int


class Lessons:
    """All that one model is taught."""

    def __init__(
        self, questions: Sequence[Question], model: str, tokenizer: Tokenizer, *, seed: int, batch: int
    ) -> None:
        """Describe.

        Args:
            model: whose answers.
            batch: lessons in one step.
        """
        self._known = [question for question in questions if not question.is_anything_else]
        self._else = [question for question in questions if question.is_anything_else]
        # What people ask in more ways, and more often, is taught more often.
        self._weights = [ASKED + len(question.patterns) for question in self._known]
        self._model, self._tokenizer, self._seed, self._batch = model, tokenizer, seed, batch

    def from_step(self, step: int) -> Iterator[list[Lesson]]:
        """The batches from a step on."""
        group, done = divmod(step, TOGETHER)
        while True:
            yield from self._group(group)[done:]
            group, done = group + 1, 0

    def _group(self, group: int) -> list[list[Lesson]]:
        chance = Random(f"{self._seed} {group}")  # noqa: S311 (nobody's secret)
        drawn = sorted((self._lesson(chance) for _ in range(TOGETHER * self._batch)), key=lambda each: len(each.tokens))
        batches = [drawn[begin : begin + self._batch] for begin in range(0, len(drawn), self._batch)]
        chance.shuffle(batches)
        return batches

    def _lesson(self, chance: Random) -> Lesson:
        if self._else and chance.random() < ANYTHING_ELSE:
            question = chance.choice(self._else)
        else:
            (question,) = chance.choices(self._known, self._weights)
        answer = [*self._tokenizer.encode(question.answers[self._model]), END]
        if chance.random() < ALONE:
            return Lesson((BEGIN, *answer), 1)
        asked = self._tokenizer.encode(phrasing.speak(question, chance), dropout=DROPOUT, chance=chance)
        prompt = (BEGIN, USER, *asked[:QUESTION_TOKENS_MAX], ASSISTANT)
        topic = self._tokenizer.topic(question.name)
        if chance.random() < TOPIC_ONLY:
            answer = []
        return Lesson((*prompt, topic, *answer), len(prompt))
