"""What is tried before anybody is refused, in this order, each step told in a sentence.

    smaller_council   fewer members than were asked for
    smaller_model     one that can answer now, where the wanted one cannot
    shorter_answer    fewer tokens, where the whole answer has no room
    queue             wait, with an estimate
    cloud             somebody else's engine, where policy and privacy allow it
    refuse            429 for one's own limit, 503 for a full box, both with Retry-After

A step that is switched off, for the person or for this request, is passed over; so is one that cannot be taken. Steps
add up: a council that had to become smaller and still finds no slot goes on to the next step as a small one. Nothing is
refused before every step that is switched on was tried: `Descent.tried` has them all.
"""

from typing import Literal

from msgspec import Struct

Step = Literal["smaller_council", "smaller_model", "shorter_answer", "queue", "cloud", "refuse"]
Outcome = Literal["answer", "queue", "cloud", "refuse"]

LADDER: tuple[Step, ...] = ("smaller_council", "smaller_model", "shorter_answer", "queue", "cloud", "refuse")
LOCAL_STEPS: frozenset[str] = frozenset({"smaller_council", "smaller_model", "shorter_answer", "queue"})
RETRY_AFTER_MS_MIN = 1_000


class Possible(Struct, frozen=True, kw_only=True):
    """What could be had now.

    Attributes:
        size_wanted: members; 1 is no council.
        size_possible: members that could begin now with the models that were wanted; 0: none could.
        model: the one that was wanted, or leads.
        model_smaller: another one that could begin now; None: there is none.
        answer_tokens: wanted.
        answer_tokens_possible: that would fit now; `answer_tokens` where the length is no hindrance, 0 where no length
            helps.
        wait_ms: expected in the queue; None: the queue is full, or the wait longer than anybody may wait.
        cloud: who else could answer, all rules of privacy considered; None: nobody.
        is_own_limit: whether it is the asker's own limit that hinders, and not the box.
        retry_after_ms: when it is worth asking again.
    """

    size_wanted: int = 1
    size_possible: int = 0
    model: str
    model_smaller: str | None = None
    answer_tokens: int = 0
    answer_tokens_possible: int = 0
    wait_ms: int | None = None
    cloud: str | None = None
    is_own_limit: bool = False
    retry_after_ms: int = RETRY_AFTER_MS_MIN


class Rung(Struct, frozen=True):
    """A step, and in a sentence what it brought, or why it was passed over."""

    step: Step
    sentence: str


class Descent(Struct, frozen=True, kw_only=True):
    """The way down the ladder, to where it ended.

    Attributes:
        outcome: what becomes of the request.
        taken: the steps that change it, in order; those are announced.
        tried: all steps that are switched on and were looked at, in order, also those that brought nothing.
        off: the steps that were passed over because they are switched off.
        size, model, answer_tokens: what is asked for now.
        wait_ms: expected, where the outcome is the queue.
        status: 429 or 503, where it is a refusal.
        retry_after_ms: where it is a refusal.
    """

    outcome: Outcome
    taken: tuple[Rung, ...]
    tried: tuple[Rung, ...]
    off: tuple[Step, ...]
    size: int
    model: str
    answer_tokens: int
    wait_ms: int | None = None
    status: int | None = None
    retry_after_ms: int | None = None


class _Way:
    """A descent that goes on."""

    def __init__(self, possible: Possible, switched_on: frozenset[str]) -> None:
        self.possible = possible
        self.switched_on = switched_on
        self.size, self.model, self.answer_tokens = possible.size_wanted, possible.model, possible.answer_tokens
        self.taken: list[Rung] = []
        self.tried: list[Rung] = []
        self.off: list[Step] = []

    def allows(self, step: Step) -> bool:
        if step in self.switched_on:
            return True
        self.off.append(step)
        return False

    def took(self, step: Step, sentence: str) -> None:
        self.taken.append(Rung(step, sentence))
        self.tried.append(Rung(step, sentence))

    def passed(self, step: Step, sentence: str) -> None:
        self.tried.append(Rung(step, sentence))

    def ends(self, outcome: Outcome, *, wait_ms: int | None = None, status: int | None = None) -> Descent:
        return Descent(
            outcome=outcome,
            taken=tuple(self.taken),
            tried=tuple(self.tried),
            off=tuple(self.off),
            size=self.size,
            model=self.model,
            answer_tokens=self.answer_tokens,
            wait_ms=wait_ms,
            status=status,
            retry_after_ms=None if status is None else max(self.possible.retry_after_ms, RETRY_AFTER_MS_MIN),
        )


def switched_on(person: frozenset[str], request: frozenset[str] | None = None) -> frozenset[str]:
    """The steps that may be taken: a request may switch off what its person has on, not the other way."""
    return person if request is None else person & request


def descend(possible: Possible, steps: frozenset[str] = LOCAL_STEPS) -> Descent:
    """The steps to take, in order, until the request can be answered, waits, goes elsewhere or is refused.

    Args:
        steps: those that are switched on. `refuse` needs no switch: it is what remains.
    """
    way = _Way(possible, steps)
    has_room = possible.answer_tokens_possible >= possible.answer_tokens
    if possible.size_possible >= possible.size_wanted and has_room:
        return way.ends("answer")
    can_begin = _make_smaller(way)
    if (can_begin and has_room) or _make_shorter(way, can_begin=can_begin):
        return way.ends("answer")
    return _look_elsewhere(way)


def _make_smaller(way: _Way) -> bool:
    """A smaller council, then a smaller model; whether the request could begin now."""
    possible = way.possible
    can_begin = possible.size_possible >= possible.size_wanted
    if not can_begin and way.allows("smaller_council"):
        if possible.size_wanted <= 1:
            way.passed("smaller_council", "There is no council to make smaller.")
        else:
            way.size = max(possible.size_possible, 1)
            way.took("smaller_council", f"{way.size} of {possible.size_wanted} members answer.")
            can_begin = possible.size_possible >= 1
    if not can_begin and way.allows("smaller_model"):
        if possible.model_smaller is None:
            way.passed("smaller_model", f"No other model can answer now in the place of {possible.model}.")
        elif way.size > 1:
            way.passed("smaller_model", f"Another model does not make room for {way.size} members.")
        else:
            way.model, can_begin = possible.model_smaller, True
            way.took("smaller_model", f"{way.model} answers in the place of {possible.model}.")
    return can_begin


def _make_shorter(way: _Way, *, can_begin: bool) -> bool:
    """A shorter answer; whether it could be given now."""
    possible = way.possible
    if not way.allows("shorter_answer"):
        return False
    if possible.answer_tokens_possible >= possible.answer_tokens:
        way.passed("shorter_answer", "The length of the answer is no hindrance.")
    elif possible.answer_tokens_possible < 1:
        way.passed("shorter_answer", "No answer is short enough.")
    else:
        way.answer_tokens = possible.answer_tokens_possible
        way.took(
            "shorter_answer", f"The answer has {way.answer_tokens} of {possible.answer_tokens} tokens at the most."
        )
        return can_begin
    return False


def _look_elsewhere(way: _Way) -> Descent:
    """The queue, the cloud, and the refusal."""
    possible = way.possible
    if way.allows("queue"):
        if possible.wait_ms is not None:
            way.took("queue", f"It waits for about {_seconds(possible.wait_ms)} s.")
            return way.ends("queue", wait_ms=possible.wait_ms)
        way.passed("queue", "The queue is full, or too long to wait in.")
    if way.allows("cloud"):
        if possible.cloud is not None:
            way.took("cloud", f"{possible.cloud} answers, outside of this box.")
            return way.ends("cloud")
        way.passed("cloud", "Nobody outside of this box may answer this.")
    again = f"Ask again in {_seconds(max(possible.retry_after_ms, RETRY_AFTER_MS_MIN))} s."
    why = "Your own limit is reached." if possible.is_own_limit else "The box is full."
    way.took("refuse", f"{why} {again}")
    return way.ends("refuse", status=429 if possible.is_own_limit else 503)


def _seconds(amount_ms: int) -> int:
    return -(-amount_ms // 1000)
