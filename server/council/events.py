"""What a council tells while it sits, and what it says at the end.

Every event stands in a chunk's `wirthforge.council`, but for `Content`, which is the answer itself: clients that know
nothing of councils read it as `delta.content`. They come in this order (tests/council/scripts.py checks it):

    allocated ── member, text, joined … ── content … ── verdict ── summary

A member's states only go forward: waiting, answering, and then one of done, failed, revoked, late, dropped. Who is not
asked at all is dropped from the start. A line with the same state again tells something new about it in `reason`. Text
comes only while it is answering. The chair's lines stand between those of its content.
"""

from typing import Literal

from msgspec import Struct

Role = Literal["member", "rank", "judge", "debate", "chair"]
State = Literal["waiting", "answering", "done", "failed", "revoked", "late", "dropped"]
Method = Literal["agreement", "vote", "chair", "judge", "rank", "race", "solo"]

OVER: frozenset[State] = frozenset({"done", "failed", "revoked", "late", "dropped"})


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the engine counted them, in OpenAI's words; the cached ones are among the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class Seated(Struct, frozen=True, kw_only=True):
    """A member as the allocation names it; `sample` counts the answers of one model from 0."""

    label: str
    model: str
    engine: str
    is_leader: bool = False
    sample: int = 0


class Allocated(Struct, frozen=True, kw_only=True, tag="allocated"):
    """Who sits, and why not more.

    Attributes:
        id: of the council's request.
        wanted: members that were asked for; `size` are those that there is room for.
        binding: which bound made it so (allocator/allocate.py); `steps` are the steps of the ladder that were taken.
        chair: the model that would join the answers.
    """

    id: str
    strategy: str
    wanted: int
    size: int
    reason: str
    binding: str
    steps: tuple[str, ...] = ()
    members: tuple[Seated, ...]
    chair: str | None = None


class Member(Struct, frozen=True, kw_only=True, tag="member"):
    """Where one request of a member stands.

    Attributes:
        reason: a sentence, where there is something to say: why it failed, was dropped, or leads from now on.
        first_token_ms, total_ms: since it was asked, its waiting included; null where it did not come so far.
    """

    label: str
    model: str
    role: Role
    state: State
    reason: str | None = None
    is_leader: bool = False
    usage: Usage | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class Text(Struct, frozen=True, kw_only=True, tag="text"):
    """What a member just said; `is_thought` where its model thinks before it answers."""

    label: str
    text: str
    role: Role = "member"
    is_thought: bool = False


class Joined(Struct, frozen=True, kw_only=True, tag="joined"):
    """One more member sat down in the middle."""

    label: str
    model: str
    engine: str
    reason: str


class Content(Struct, frozen=True, kw_only=True, tag="content"):
    """A piece of the final answer.

    Attributes:
        is_restart: what was said before this broke off and counts no more; the answer begins again here.
    """

    text: str
    is_restart: bool = False


class Opinion(Struct, frozen=True, kw_only=True):
    """Members that said the same, and what that was: a value where it could be extracted, else how it begins."""

    answer: str
    labels: tuple[str, ...]


class Verdict(Struct, frozen=True, kw_only=True, tag="verdict"):
    """How the answer came about.

    Attributes:
        agreement: the largest opinion's share of the answers, 0 to 1.
        opinions: all of them, the largest first; a minority is never left out.
        winner: the member whose answer it is, or who was ranked first; null where the chair wrote it unranked.
        by: who decided, by label; null where nobody had to.
        reason: one plain sentence, or several.
    """

    method: Method
    agreement: float
    opinions: tuple[Opinion, ...]
    winner: str | None = None
    by: str | None = None
    reason: str


class Report(Struct, frozen=True, kw_only=True):
    """One request of a member, as the whole answer lists it."""

    label: str
    model: str
    engine: str
    role: Role
    state: State
    reason: str | None = None
    text: str | None = None
    usage: Usage | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class Summary(Struct, frozen=True, kw_only=True, tag="summary"):
    """The whole of it: at the end of a stream without texts, in an answer in one piece with them."""

    id: str
    strategy: str
    wanted: int
    size: int
    reason: str
    binding: str
    steps: tuple[str, ...]
    members: tuple[Report, ...]
    verdict: Verdict
    chair: str | None
    usage: Usage


Event = Allocated | Member | Text | Joined | Content | Verdict | Summary


def summary_of(allocated: Allocated, reports: tuple[Report, ...], verdict: Verdict, *, with_texts: bool) -> Summary:
    """What stands at the end of an answer; its usage is the sum of all reports that have one."""
    total = Usage()
    for report in reports:
        total += report.usage or Usage()
    return Summary(
        id=allocated.id,
        strategy=allocated.strategy,
        wanted=allocated.wanted,
        size=allocated.size,
        reason=allocated.reason,
        binding=allocated.binding,
        steps=allocated.steps,
        members=reports if with_texts else tuple(_without_text(report) for report in reports),
        verdict=verdict,
        chair=allocated.chair,
        usage=total,
    )


def _without_text(report: Report) -> Report:
    return Report(**{name: getattr(report, name) for name in Report.__struct_fields__ if name != "text"})
