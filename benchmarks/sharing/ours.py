"""Which window our gateway is given on which hardware, and one replay with it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from benchmarks.sharing.engine import A10G, A100, BOX4, BOX16, H100, Hardware
from benchmarks.sharing.job import Job, Record
from benchmarks.sharing.ledger_scheduler import OUTPUT_TOKENS_MAX, LedgerScheduler
from benchmarks.sharing.replay import Replay, Result, Room, Workload
from benchmarks.sharing.schedulers import Scheduler
from quotas.window import Window, window_of

Figures = dict[str, float]
# A seed, a Redis of its own, and whether time is short.
Case = Callable[[int, Redis, bool], Awaitable[Figures]]

# Requests at a time: vLLM's usual limit, or all the slots there are on a desktop.
SLOTS = {A10G: 256, A100: 128, H100: 128, BOX16: 16, BOX4: 4}
# The window that was tuned by hand for the small pool; what plain schedulers get there.
TUNED_SLOTS = {**SLOTS, A10G: 28}
KV_SHARE_MAX = 0.95
# So often a server pauses one answer (`pauses_max` of its settings).
PAUSES_MAX = 8
# What the gateway takes an answer to have grown by since it was last told.
UNREPORTED_TOKENS = 8


def window(hardware: Hardware) -> Window:
    """What a server would set for it by itself."""
    return window_of(SLOTS[hardware], prefill_chunk_tokens=hardware.chunk_tokens, kv_tokens=hardware.pool_tokens)


def _booked_tokens(record: Record) -> float:
    """Of its answer: what there was when it started or went on and half of a usual one, and more once it has grown."""
    foreseen = min(record.kept_tokens + record.usual_tokens / 2, OUTPUT_TOKENS_MAX)
    return max(record.output_tokens, foreseen)


def room_in(gates: Window) -> Room:
    """Whether the heads of the queue fit into a window, whoever they belong to."""

    def fits(flying: list[Record], heads: list[Job], usual: Callable[[str], float]) -> bool:
        if len(flying) >= gates.slots - gates.reserved_slots:
            return False
        prompt = max(job.prompt_tokens for job in heads)
        unread = sum(record.tokens_to_read for record in flying if not record.has_token)
        if unread and gates.prefill_tokens_max and unread + prompt > gates.prefill_tokens_max:
            return False
        held = sum(record.job.prompt_tokens + _booked_tokens(record) for record in flying)
        need = max(job.prompt_tokens + usual(job.client) / 2 for job in heads)
        return held + need + UNREPORTED_TOKENS * (len(flying) + 1) <= gates.kv_tokens * KV_SHARE_MAX

    return fits


async def play(workload: Workload, hardware: Hardware, scheduler: Scheduler, seed: int = 0) -> Result:
    """One replay on one engine."""
    return await Replay(workload, scheduler, {"a": hardware}, seed=seed).run()


def check_settled(records: Iterable[Record], events: Sequence[Mapping[str, str]]) -> None:
    """Every request that ended was settled once, with what its client got of it, whatever happened in between."""
    found = Counter(event["id"] for event in events)
    ended = {record.job.id: record for record in records if record.outcome in {"completed", "cancelled", "revoked"}}
    assert all(found[job_id] == 1 for job_id, record in ended.items() if record.dispatched_ms >= 0), "settled once"
    for event in events:
        record = ended[event["id"]]
        assert int(event["output_tokens"]) == record.output_tokens, event
        assert int(event["pauses"]) == record.pauses, event
        assert record.outcome != "completed" or record.output_tokens == record.job.output_tokens, event


@dataclass(frozen=True, slots=True)
class Ours:
    """The real scripts on one engine.

    Attributes:
        can_pause: the engine can go on with an answer that was cut off.
        keeps_prefixes: what it reads to go on is in its prompt cache still; else all of it is read again.
    """

    redis: Redis
    hardware: Hardware
    gates: Window | None = None
    can_pause: bool = False
    keeps_prefixes: bool = False

    async def play(self, workload: Workload, seed: int = 0) -> Result:
        """One replay; nothing of it stays in Redis."""
        gates = self.gates or window(self.hardware)
        pauses_max = PAUSES_MAX if self.can_pause else 0
        scheduler = LedgerScheduler(self.redis, {"a": gates}, workload.weights, pauses_max=pauses_max)
        # A lease that can be paused is as good as a kept slot, which is free for everybody then.
        room = room_in(replace(gates, reserved_slots=0) if self.can_pause and not gates.is_reserve_standing else gates)
        replay = Replay(
            *(workload, scheduler, {"a": self.hardware}), room=room, keeps_prefixes=self.keeps_prefixes, seed=seed
        )
        try:
            result = await replay.run()
            check_settled(result.records, await scheduler.settled())
        finally:
            await scheduler.close()
        assert not scheduler.errors, scheduler.errors
        return result
