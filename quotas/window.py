"""The window: how much an engine is given at a time.

An engine that takes everything queues it inside, first come, first served, and the fair queue before it means nothing.
So requests go out only as far as the engine works on them at once. Three gates decide that (lua/shared/turns.lua):
slots, prompt tokens without a first token, and tokens that hold memory. Some slots are kept for sparse flows, people
who ask now and then: a free slot is what spares them the wait for somebody else's answer. Each costs 1/slots of the
throughput while such people are about, so small engines keep one and large ones a few.
"""

from dataclasses import dataclass

SPARSE_COST_MAX = 4096
# On a small pool a quantum is a smaller part of it.
POOL_PER_QUANTUM = 5
RESERVED_PERCENT = 3
RESERVED_SLOTS_MAX = 4
# With so many slots the few that are kept cost next to nothing, and are kept always.
STANDING_SLOTS_MIN = 32
# A step lasts as long as the prompts in it, and whoever arrives waits for its end: half full, it costs no throughput.
CHUNK_PARTS = 2
# What an answer is taken to need until some were seen.
ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The gates of one engine; 0 opens a gate.

    Attributes:
        slots: requests at a time.
        reserved_slots: how many of them are kept for sparse flows, while any are about.
        prefill_tokens_max: prompt tokens that were dispatched and have no first token yet.
        is_reserve_standing: whether they are kept also while none are about.
        reserve_percent_max: what keeping them may cost of the throughput, where they are not standing, over a minute.
        kv_tokens: the pool of tokens that hold memory, prompts and answers so far.
        answer_tokens: what an answer is taken to need until some were seen.
        sparse_cost_max: a flow is sparse while it has used less since it was idle, in cost units at the normal weight.
        books_whole_answers: whether the engine sets the memory of the whole answer aside at once, as TGI does.
    """

    slots: int
    reserved_slots: int = 0
    prefill_tokens_max: int = 0
    kv_tokens: int = 0
    answer_tokens: int = ANSWER_TOKENS
    sparse_cost_max: int = SPARSE_COST_MAX
    books_whole_answers: bool = False
    is_reserve_standing: bool = False
    reserve_percent_max: int = 100

    def fields(self) -> list[str | int]:
        """Names and values, flat, as Redis takes them."""
        return [
            *("slots", self.slots, "reserved_slots", self.reserved_slots),
            *("prefill_tokens_max", self.prefill_tokens_max, "kv_tokens", self.kv_tokens),
            *("answer_tokens", self.answer_tokens, "sparse_cost_max", self.sparse_cost_max),
            *("books_whole_answers", int(self.books_whole_answers)),
            *("is_reserve_standing", int(self.is_reserve_standing)),
            *("reserve_percent_max", self.reserve_percent_max),
        ]


def window_of(
    slots: int,
    *,
    reserved_slots: int | None = None,
    prefill_chunk_tokens: int = 0,
    kv_tokens: int = 0,
    books_whole_answers: bool = False,
    reserve_percent_max: int = 100,
) -> Window:
    """The window of an engine with so many slots.

    Args:
        reserved_slots: None: by the number of slots.
        prefill_chunk_tokens: prompt tokens that it reads in one step; 0 opens the gate.
        kv_tokens: its whole pool, where it tells one.
        reserve_percent_max: what kept slots may cost.
    """
    if reserved_slots is None:
        reserved_slots = min(-(-slots * RESERVED_PERCENT // 100), RESERVED_SLOTS_MAX)
    return Window(
        slots=slots,
        reserved_slots=min(reserved_slots, slots - 1),
        prefill_tokens_max=prefill_chunk_tokens // CHUNK_PARTS,
        kv_tokens=kv_tokens,
        books_whole_answers=books_whole_answers,
        is_reserve_standing=slots >= STANDING_SLOTS_MIN,
        reserve_percent_max=reserve_percent_max,
        sparse_cost_max=min(SPARSE_COST_MAX, kv_tokens // POOL_PER_QUANTUM) if kv_tokens else SPARSE_COST_MAX,
    )
