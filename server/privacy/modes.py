"""How much may leave this box: four modes in the order of what they permit, and the wish to be private.

`private` is no mode of a policy but a wish of one request or one conversation: it is stronger than `never`, because
nothing that could reach a cloud is near such a request at all.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

# Nothing leaves; what its person has seen and said yes to; personal data replaced, without asking; as it is.
Mode = Literal["never", "ask", "pseudonymised", "allow"]
Wish = Literal["private", "never", "ask", "pseudonymised", "allow"]
# What happens to a text in which personal data was found.
OnPersonalData = Literal["deny", "ask", "pseudonymise"]
# In which form a body leaves.
Form = Literal["whole", "pseudonymised"]

# Strictest first.
MODES: tuple[Mode, ...] = get_args(Mode)
WISHES: tuple[Wish, ...] = get_args(Wish)
ON_PERSONAL_DATA: tuple[OnPersonalData, ...] = get_args(OnPersonalData)

Word = TypeVar("Word", bound=str)


def strictest(*modes: Mode) -> Mode:
    """The one that permits the least. At least one must be given."""
    return min(modes, key=MODES.index)


def strictest_wish(*wishes: Wish | None) -> Wish | None:
    """Of what a header, a body and a conversation say the one that permits the least; None where none says anything."""
    return min((wish for wish in wishes if wish is not None), key=WISHES.index, default=None)


def wish_of(word: object) -> Wish | None:
    """The wish that a stored or a sent word means; None is none.

    Raises:
        ValueError: it is no wish. Whoever cannot tell that to anybody takes it for `private`.
    """
    if word is None:
        return None
    return one_of(WISHES, word)


def one_of(words: Sequence[Word], word: object) -> Word:
    """The same word, known to be one of these. Raises ValueError with a sentence that lists them."""
    for known in words:
        if known == word:
            return known
    raise ValueError(f"There are {', '.join(words)}.")
