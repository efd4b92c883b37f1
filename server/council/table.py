"""The table: what a strategy sees of a council, and the rules that hold whichever strategy it is.

- The leader is asked alone; the others follow at its first token, or when it has a slot and lets them wait for 30 s
  (floor.py).
- If the leader fails, the next member leads: it is waited for without a deadline of its own, and told.
- A turn that fails, is stopped or is late ends nobody else's. If none is left, those at the table who were not asked
  yet are asked, one by one; after the last comes `CouncilFailed`.
- There is one conclusion: content, then the verdict. What still runs then is stopped. A strategy that breaks or comes
  to no conclusion has the leader's answer as its conclusion.
- `run` leaves no task behind, also when it is cancelled because the asker has left.
"""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import msgspec
import structlog
from msgspec import Struct

from server.clock import Clock
from server.council.agreement import STOP_AT, agreement, opinions
from server.council.calls import Answer, Ask, Call, CouncilFailed, Message, Prompt, Seat, Spoken, label_of
from server.council.events import Content, Event, Joined, Report, Role, Verdict
from server.council.floor import Floor
from server.council.turns import Turn
from server.deadline import within
from server.errors import WirthforgeError

# Chairs that are tried, one after the other.
CHAIRS_MAX = 2
# Who may sit down later, and how many seats there are at all.
JOINED_MAX = 6
MORE_MS_MAX = 2_000
SEATS_MAX = 64

log = structlog.get_logger(__name__)

Strategy = Callable[["Table"], Awaitable[None]]
More = Callable[[], Awaitable[Seat | None]]


class Brief(Struct, frozen=True, kw_only=True):
    """What a council is to do, and who sits in it.

    Attributes:
        question: the asker's messages.
        seats: the leader first, labels unique.
        chairs: who may join the answers, best first; they need not be members. None is the seats in their order, empty
            is nobody.
        kind: of question, by the allocator's words.
        rounds: of a debate.
        deadline_ms: of every member but the leader, instead of the rule above.
        stop_at: P from which a vote stops (agreement.STOP_AT).
        answer_tokens: kept free for the answer in the context of whoever reads the answers.
    """

    question: tuple[Message, ...]
    seats: tuple[Seat, ...]
    chairs: tuple[Seat, ...] | None = None
    kind: str = "open"
    rounds: int = 1
    deadline_ms: int | None = None
    stop_at: float = STOP_AT["balanced"]
    answer_tokens: int = 1024


class Conclusion(Struct, frozen=True):
    """What a council came to."""

    text: str
    verdict: Verdict


class Table:
    """One council, while it sits.

    Args:
        ask: makes one call (calls.py).
        chance: shuffles answers, and seeds samples.
        emit: gets every event, in order, at once; must not raise.
        more: one more member if there is room now, else None. Its label is given by the table.
    """

    def __init__(
        self,
        brief: Brief,
        *,
        ask: Ask,
        clock: Clock,
        chance: Random,
        emit: Callable[[Event], None],
        more: More,
    ) -> None:
        if not brief.seats or len({seat.label for seat in brief.seats}) < len(brief.seats):
            raise ValueError("a council has seats, and each has a label of its own")
        self.brief = brief
        self.chance = chance
        self.seats: tuple[Seat, ...] = brief.seats
        self._clock, self._emit, self._more = clock, emit, more
        self._seed = chance.getrandbits(30)
        self._floor = Floor(ask, clock, brief.deadline_ms)
        self._text: str | None = None
        self._verdict: Verdict | None = None
        self._has_content = self._is_restart = False
        self._joined = 0

    # What a strategy reads.

    @property
    def question(self) -> tuple[Message, ...]:
        """The asker's messages."""
        return self.brief.question

    @property
    def kind(self) -> str:
        """The kind of question."""
        return self.brief.kind

    @property
    def rounds(self) -> int:
        """How often a debate goes round."""
        return self.brief.rounds

    @property
    def chairs(self) -> tuple[Seat, ...]:
        """Who may join the answers, best first; whose own answer has failed comes last."""
        broken = {turn.call.seat.model for turn in self._floor.turns if turn.state in {"failed", "late"}}
        chairs = self.seats if self.brief.chairs is None else self.brief.chairs
        return tuple(sorted(chairs, key=lambda seat: seat.model in broken))

    @property
    def leader(self) -> Seat:
        """Who leads now."""
        return self.seats[0] if self._floor.leader is None else self._floor.leader.call.seat

    @property
    def unasked(self) -> tuple[Seat, ...]:
        """Who sits here, and was neither asked nor dropped."""
        known = {turn.call.seat.label for turn in self._floor.turns if turn.call.role == "member"}
        return tuple(seat for seat in self.seats if seat.label not in known)

    @property
    def done(self) -> list[Answer]:
        """The members' answers that may be used: the leader's first, then by their seats."""
        order = {seat.label: index for index, seat in enumerate(self.seats)}
        answers = [turn.answer() for turn in self._floor.members if turn.state == "done"]
        leader = self.leader.label
        return sorted(answers, key=lambda answer: (answer.seat.label != leader, order[answer.seat.label]))

    @property
    def reports(self) -> tuple[Report, ...]:
        """Every call that was made, and every seat that was dropped, in order."""
        return tuple(turn.report() for turn in self._floor.turns)

    @property
    def is_cut(self) -> bool:
        """Whether the final answer ended because it may not be longer."""
        return any(turn.is_cut and turn.text == self._text for turn in self._floor.turns if turn.state == "done")

    # What a strategy does.

    async def answers(
        self,
        seats: Sequence[Seat],
        *,
        enough: Callable[[list[Answer]], str | None] | None = None,
        leader_first: bool = True,
        reason: str | None = None,
    ) -> list[Answer]:
        """Ask seats that were not asked yet, and wait until all have answered, are late, or it is enough.

        Args:
            enough: is given the answers that are done, of all members, after each end; a sentence stops the others,
                who are dropped for this reason.
            leader_first: let the leader begin alone, if none has begun yet.
            reason: why these are asked now, for their first line.

        Returns: what came of each of them, in their order; of more, if all failed and others were asked instead.

        Raises:
            CouncilFailed: nobody at the table has given an answer.
        """
        is_first = self._floor.leader is None
        turns = [
            self._turn(seat, "member", self.question, is_leader=is_first and index == 0)
            for index, seat in enumerate(seats)
        ]
        for turn in turns:
            turn.announce(reason)
        others: Sequence[Turn] = turns
        if leader_first and self._floor.needs_leader:
            others = await self._floor.lead(turns)
        elif self._floor.leader is None and turns:
            self._floor.leader = turns[0]
        for turn in others:
            self._floor.start(turn)

        def is_over() -> bool:
            reason = enough(self.done) if enough is not None and self.done else None
            for turn in turns if reason else ():
                turn.end("dropped", reason)
            return all(turn.is_over for turn in turns)

        await self._floor.wait(is_over)
        answers = [turn.answer() for turn in turns]
        if self.done:
            return answers
        if self.unasked:
            instead = await self.answers(self.unasked[:1], enough=enough, reason="Nobody has answered so far.")
            return answers + instead
        raise self._failed()

    async def ask(
        self, seat: Seat, messages: Sequence[Message], role: Role, output_tokens_max: int | None = None
    ) -> Answer:
        """One more request to a seat, with these messages; what came of it, also where it failed."""
        return (await self.ask_all([(seat, messages)], role, output_tokens_max))[0]

    async def ask_all(
        self, calls: Sequence[tuple[Seat, Sequence[Message]]], role: Role, output_tokens_max: int | None = None
    ) -> list[Answer]:
        """Several such requests at once; what came of each, in their order."""
        turns = [self._turn(seat, role, messages, output_tokens_max) for seat, messages in calls]
        for turn in turns:
            turn.announce()
            self._floor.start(turn)
        await self._floor.wait(lambda: all(turn.is_over for turn in turns))
        return [turn.answer() for turn in turns]

    async def more(self, reason: str) -> Seat | None:
        """One more member: who sits here and was not asked, else somebody new if there is room; None if not."""
        if self.unasked:
            return self.unasked[0]
        if self._joined == JOINED_MAX or len(self.seats) >= SEATS_MAX:
            return None
        try:
            seat = await within(self._clock, self._more(), MORE_MS_MAX)
        except WirthforgeError:
            return None
        if seat is None:
            return None
        self._joined += 1
        return self._join(seat, reason)

    def add_sample(self, seat: Seat, reason: str) -> Seat:
        """One more seat of the same model, which will be asked with another seed."""
        samples = [other.sample for other in self.seats if other.model == seat.model]
        return self._join(msgspec.structs.replace(seat, sample=max(samples) + 1), reason)

    def drop(self, seat: Seat, reason: str) -> None:
        """Stop a seat, or do not ask it at all; nothing if its answer is there."""
        known = [turn for turn in self._floor.members if turn.call.seat.label == seat.label]
        for turn in known or [self._turn(seat, "member", self.question)]:
            turn.end("dropped", reason)

    def conclude(self, text: str, verdict: Verdict) -> None:
        """This is the answer, and how it came about."""
        self._dismiss()
        self._say(text)
        self._text = text
        self.tell(verdict)

    async def chair_says(self, prompt_of: Callable[[Seat], Prompt | None], *, otherwise: Answer) -> Spoken:
        """Let the chair write the answer; the next best if it dies.

        Must be followed by `tell`.

        Args:
            prompt_of: what a chair is asked, made for its context; None if its context is too small.
            otherwise: the answer if no chair can: the leader's, as a rule.
        """
        self._dismiss()
        notes: list[str] = []
        tried = 0
        for seat in self.chairs:
            if tried == CHAIRS_MAX:
                break
            prompt = prompt_of(seat)
            if prompt is None:
                notes.append(f"The answers do not fit into the context of {seat.model}, so it is not the chair.")
                continue
            tried += 1
            turn = self._turn(seat, "chair", prompt.messages, on_text=self._say)
            turn.announce()
            self._floor.start(turn)
            await self._floor.over(turn)
            if turn.state == "done":
                self._text = turn.text
                if prompt.shortened:
                    notes.append(f"What {' and '.join(prompt.shortened)} said was shortened for the chair.")
                return Spoken(turn.text, seat, tuple(notes))
            notes.append(f"The chair {seat.model} broke off: {turn.reason}")
            self._is_restart = self._has_content
        notes.append(f"No chair could join the answers, so this is the answer of {otherwise.seat.label}.")
        self._text = otherwise.text
        self._say(otherwise.text)
        return Spoken(self._text, None, tuple(notes))

    def tell(self, verdict: Verdict) -> None:
        """How the answer came about: the last that a strategy does."""
        assert self._text is not None
        assert self._verdict is None
        self._verdict = verdict
        self._emit(verdict)

    # How it is run.

    async def run(self, strategy: Strategy) -> Conclusion:
        """Let a strategy bring the council to its conclusion.

        Raises:
            CouncilFailed: nobody has given an answer.
        """
        try:
            try:
                await strategy(self)
                reason = "The strategy came to no conclusion"
            except CouncilFailed:
                raise
            except Exception as error:
                log.exception("council strategy broke")
                reason = f"The strategy broke ({type(error).__name__})"
            if self._verdict is None:
                self._rescue(reason)
            assert self._text is not None
            assert self._verdict is not None
            return Conclusion(self._text, self._verdict)
        finally:
            await self._floor.close("The council was stopped.")

    def _rescue(self, reason: str) -> None:
        done = self.done
        if not done:
            raise self._failed()
        groups = opinions([(answer.seat.label, answer.text) for answer in done])
        first, share = done[0].seat.label, agreement(groups)
        if self._text is None:
            self._is_restart = self._has_content
            sentence = f"{reason}, so this is the answer of {first}."
            self.conclude(
                done[0].text,
                Verdict(method="solo", agreement=share, opinions=groups, winner=first, reason=sentence),
            )
        else:
            self.tell(Verdict(method="chair", agreement=share, opinions=groups, reason=f"{reason} after the answer."))

    def _failed(self) -> CouncilFailed:
        members = self._floor.members
        waits = [turn.error.retry_after_s for turn in members if turn.error and turn.error.retry_after_s]
        errors = [turn.error for turn in members]
        return CouncilFailed([turn.answer() for turn in members], errors, retry_after_s=min(waits, default=None))

    def _join(self, seat: Seat, reason: str) -> Seat:
        seat = msgspec.structs.replace(seat, label=label_of(len(self.seats)))
        self.seats = (*self.seats, seat)
        self._emit(Joined(label=seat.label, model=seat.model, engine=seat.engine, reason=reason))
        return seat

    def _turn(
        self,
        seat: Seat,
        role: Role,
        messages: Sequence[Message],
        output_tokens_max: int | None = None,
        *,
        is_leader: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> Turn:
        assert self._text is None, "the council has concluded"
        call = Call(
            seat=seat,
            role=role,
            messages=tuple(messages),
            is_leader=is_leader,
            seed=self._seed + seat.sample if seat.sample else None,
            output_tokens_max=output_tokens_max,
        )
        turn = Turn(call, clock=self._clock, tell=self._emit, changed=self._floor.changed, on_text=on_text)
        self._floor.turns.append(turn)
        return turn

    def _say(self, text: str) -> None:
        self._emit(Content(text=text, is_restart=self._is_restart))
        self._has_content, self._is_restart = True, False

    def _dismiss(self) -> None:
        """Nothing but the chair speaks from here on."""
        assert self._text is None
        for turn in self._floor.turns:
            turn.end("dropped", "Its answer was no longer needed.")
        for seat in self.unasked:
            self.drop(seat, "It was not needed.")
