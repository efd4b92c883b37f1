"""How a council speaks to models: one call, its parts, and what came of it.

`Ask` is all that the table needs of the world. It is given a call and gives a context, in which the answer streams as
parts: text, counts, and why it ended. Whoever writes one keeps this:

- entering the context may wait (for a slot, for a model to load), for as long as the caller's own rules allow;
- while a leader stands in a queue, `on_wait` is called every few seconds, and not any more once it has a slot;
- leaving it, at any time and for whatever reason, gives back everything that the call holds, and soon;
- a fault is a WirthforgeError, raised on entering or while streaming; its code is `revoked` where the slot was needed
  by somebody else;
- `Used` may come several times and holds all of the call so far: the last one counts. One that comes early is what a
  member that is stopped in the middle is charged in the summary.
- a call with `sample` > 0 is to give another answer than the same call with sample 0: its `seed` is meant for the
  engine, and a request without temperature needs one.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec import Struct

from server.council.events import Role, State, Usage
from server.errors import WirthforgeError

# One of OpenAI's messages; content is a text or a list of parts.
Message = dict[str, Any]


class Seat(Struct, frozen=True, kw_only=True):
    """A place at the table.

    Attributes:
        label: A, B, …; the asker's name for it.
        sample: counts the seats of one model from 0.
        context_tokens: what the model takes, prompt and answer together; None where nobody knows.
    """

    label: str
    model: str
    engine: str
    sample: int = 0
    context_tokens: int | None = None


class Call(Struct, frozen=True, kw_only=True):
    """One request to one model.

    Attributes:
        is_leader: it is waited for, and not to be stopped for somebody else.
        seed: None for sample 0: the request as the asker wrote it.
        output_tokens_max: for what needs few words, such as a ranking; None is the asker's own bound.
        on_wait: see above.
    """

    seat: Seat
    role: Role
    messages: tuple[Message, ...]
    is_leader: bool = False
    seed: int | None = None
    output_tokens_max: int | None = None
    on_wait: Callable[[], None] | None = None


class Prompt(Struct, frozen=True, kw_only=True):
    """What somebody who reads answers is asked (prompts.py).

    Attributes:
        order: whose answer Response 1, 2, … is, by label. Never part of the messages.
        shortened: the labels whose answer had to be shortened.
    """

    messages: tuple[Message, ...]
    order: tuple[str, ...]
    shortened: tuple[str, ...] = ()


class Said(Struct, frozen=True):
    """A piece of text; a thought is shown, and is no part of the answer."""

    text: str
    is_thought: bool = False


class Used(Struct, frozen=True):
    """The tokens of the call so far."""

    usage: Usage


class Ended(Struct, frozen=True):
    """Why the answer ended, in OpenAI's words, such as `stop` and `length`."""

    reason: str | None


Part = Said | Used | Ended
Ask = Callable[[Call], AbstractAsyncContextManager[AsyncIterator[Part]]]


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a call.

    Attributes:
        text: what was said, also where it broke off; without thoughts.
        state: how it ended, with `reason` where it did not end well.
        is_cut: it ended because it may not be longer.
    """

    seat: Seat
    role: Role
    text: str
    state: State
    reason: str | None = None
    is_cut: bool = False
    usage: Usage | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether it may be used."""
        return self.state == "done"


class Spoken(Struct, frozen=True):
    """What the chair made of the answers.

    Attributes:
        by: None where no chair could, and the text is the leader's answer.
        notes: sentences on what went wrong, for the verdict.
    """

    text: str
    by: Seat | None
    notes: tuple[str, ...] = ()


class CouncilFailed(WirthforgeError):
    """No member gave an answer. The sentence names each of them, and why.

    Attributes:
        answers: what came of each.
        errors: the fault of each, in the same order; None where it was another than an engine's or ours.
    """

    status = 502
    code = "council_failed"

    def __init__(
        self,
        answers: Sequence[Answer],
        errors: Sequence[WirthforgeError | None] = (),
        retry_after_s: int | None = None,
    ) -> None:
        named = " ".join(f"{answer.seat.label} ({answer.seat.model}): {_sentence(answer)}" for answer in answers)
        super().__init__(f"No member of the council gave an answer. {named}".strip(), retry_after_s=retry_after_s)
        self.answers = tuple(answers)
        self.errors = tuple(errors)


def _sentence(answer: Answer) -> str:
    reason = (answer.reason or answer.state).strip()
    return reason if reason.endswith((".", "!", "?")) else reason + "."


def label_of(index: int) -> str:
    """A to Z, then AA, AB, …, for the seat with this index."""
    label, rest = "", index + 1
    while rest:
        rest, digit = divmod(rest - 1, 26)
        label = chr(ord("A") + digit) + label
    return label
