"""What kind of question it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.allocator.kinds import kind_of

EXAMPLES = {
    "greeting": [
        "hi",
        "Hello there!",
        "Good morning",
        "thank you so much",
        "Guten Morgen zusammen",
        "merci beaucoup",
        "你好!",
        "",
    ],
    "code": [
        "Write a python function that sorts a list",
        "```py\nx = 1\n```\nWhat does it do?",
        "fix this bug in my code",
        "def add(a, b):\n    return a",
    ],
    "translate": [
        "Translate this to German: good night",
        "Übersetze ins Englische: gute Nacht",
        "traduis cette phrase",
        "翻译成英文",
    ],
    "rewrite": [
        "Rewrite this text: foo",
        "please summarize the following article",
        "Formuliere das höflicher",
        "Can you shorten this?",
        "Résume ce texte",
    ],
    "vote": [
        "Which one is a mammal?\nA) trout\nB) whale\nC) crow",
        "Choose: (a) yes (b) no",
        "2 + 2 * 3 = ?",
        "What is the capital of France?",
        "Is Paris in France?",
        "How many legs has a spider?",
        "Tom has 5 apples. He eats two of them and buys a dozen more. How many apples does he have?",
        "Solve for x: 3x + 5 = 11",
        "Wie viele Beine hat eine Spinne?",
        "Combien de pattes a une araignée?",
        "Stimmt es, dass Wale Fische sind?",
        "一年有多少天？",
        "Who wrote Hamlet?",
    ],
    "open": [
        "Write a poem about the sea",
        "Explain why the sky is blue",
        "Why is water wet?",
        "Discuss: is democracy in decline?",
        "Hi, what is your name and what can you do for me today?",
        "Hi, fix my bike",
        "Plan a trip to Rome. How many days do I need? I like museums and walks.",
        "Is this plan good?\n\n" + "First we go there, then here. " * 20,
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in EXAMPLES.items() for text in texts])
def test_kinds_by_example(kind: str, text: str) -> None:
    """As people ask, in several languages."""
    assert kind_of(text) == kind


@given(st.text(max_size=300))
def test_every_text_has_a_kind(text: str) -> None:
    """One of those that the allocator knows."""
    assert kind_of(text) in EXAMPLES


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "a " * 50_000, "1+" * 50_000, "schreib " + "um" * 50_000, "A) " * 30_000, "\n" * 90_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    """Nothing here grows faster than the text; the rest of the test's time is the limit."""
    assert kind_of(text) in EXAMPLES
