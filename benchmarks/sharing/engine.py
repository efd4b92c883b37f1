"""A simulated engine: how a real one batches, stalls and runs out of memory, in virtual time.

Theory of operation. An engine advances in steps. A step decodes one token for every sequence that has its prompt read,
and reads prompts with what is left of the step's token budget (chunked prefill), in the order in which sequences got
their slots. New sequences come from the engine's own queue, first come first served, while slots and memory last.

    step = max(floor, base + token * tokens in the step) + context * tokens in memory + host

The floor is reading the weights once, the slope is arithmetic, the context term is reading the KV cache. Memory is a
pool of KV tokens; when a step would overflow it, the youngest sequence is thrown out, goes back to the front of the
queue and is read anew later, prompt and answer (recompute). That is what a client outside cannot see, and what makes an
engine slow that was given too much.

All decoding sequences advance together, so a sequence's length is a difference of step counts: a step costs nothing
per sequence, only arrivals, ends and evictions do.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from benchmarks.sharing.job import Job


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a step costs, and how much fits."""

    name: str
    floor_ms: float
    base_ms: float
    token_ms: float
    context_us: float
    host_ms: float
    pool_tokens: int
    slots: int
    chunk_tokens: int

    def step_ms(self, tokens: int, context_tokens: int) -> float:
        """Duration of a step."""
        dense_ms = max(self.floor_ms, self.base_ms + self.token_ms * tokens)
        return dense_ms + self.context_us * context_tokens / 1000 + self.host_ms


# Llama-2-7B on an A10G with VTC's pool: calibrated on VTC's own results (first token alone 0.25 ms a prompt token,
# 33 ms a token alone, 42 ms at 19 running).
A10G = Hardware("A10G, 7B, pool 10k", 30.0, 8.4, 0.25, 1.0, 2.6, 10_000, 256, 1024)
# Llama-3-8B on an A100 80 GB, Llama-2-7B on an H100 (both from per-operator profiles; 0.8 of the memory bandwidth).
A100 = Hardware("A100, 8B", 10.05, 6.4, 0.0672, 0.08, 4.0, 400_000, 256, 2048)
H100 = Hardware("H100, 7B, pool 100k", 5.63, 2.9, 0.0204, 0.2, 4.0, 100_000, 256, 2048)
# A desktop GPU behind llama.cpp: few slots, each with its share of the context.
BOX16 = Hardware("RTX 4090, 8B, 16 slots", 15.2, 15.2, 0.081, 0.15, 1.5, 131_072, 16, 2048)
BOX4 = Hardware("RTX 4090, 8B, 4 slots", 15.2, 15.2, 0.081, 0.15, 1.5, 32_768, 4, 2048)


@dataclass(slots=True, eq=False)
class Sequence:
    """A job inside the engine.

    Args:
        kept: tokens of the answer that were there when it joined the decoding ones.
        cached: tokens of prompt and answer that need not be computed once it has a slot.
    """

    job: Job
    serial: int = -1
    kept: int = 0
    cached: int = 0
    read_tokens: int = 0
    joined_step: int = -1

    @property
    def unread_tokens(self) -> int:
        """What is still to be read: the prompt, and after an eviction or a pause the answer so far."""
        return self.job.prompt_tokens + self.kept - self.read_tokens


@dataclass(slots=True)
class Outcome:
    """What a step brought to light."""

    first_tokens: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)


class Engine:
    """The engine itself; whoever drives it calls `begin` and, that many milliseconds later, `end`."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.waiting: deque[Sequence] = deque()
        self.reading: list[Sequence] = []
        self.decoding: dict[str, Sequence] = {}
        self.kv_tokens = 0
        self.kv_tokens_max = 0
        self.evictions = 0
        self.tokens_computed = 0
        self.is_stepping = False
        self._of: dict[str, Sequence] = {}
        self._begun: set[str] = set()
        self._decode_steps = 0
        self._ends: list[tuple[int, int, Sequence]] = []
        self._just_read: list[Sequence] = []
        self._serial = 0

    def submit(self, job: Job, *, kept: int = 0, cached: int = 0) -> None:
        """A request arrives over the wire.

        Args:
            kept: tokens of its answer that were written before and are to be read with the prompt: it goes on.
            cached: tokens of both that are in the prompt cache; at least one has to be read.
        """
        if job.prompt_tokens + job.output_tokens > self.hardware.pool_tokens:
            raise ValueError(f"{job} can never fit into {self.hardware.name}")
        if not 0 <= kept < job.output_tokens or not 0 <= cached < job.prompt_tokens + kept:
            raise ValueError(f"{job} cannot go on after {kept} tokens, {cached} of all in the cache")
        self._of[job.id] = Sequence(job, kept=kept, cached=cached)
        self.waiting.append(self._of[job.id])

    def cancel(self, job: Job) -> None:
        """Its client left: everything that it held is free at once."""
        sequence = self._of.pop(job.id)
        self._begun.discard(job.id)
        if sequence.serial < 0:
            self.waiting.remove(sequence)
        else:
            self._release(sequence)

    def knows(self, job: Job) -> bool:
        """It is here, waiting or running."""
        return job.id in self._of

    def output_tokens(self, job: Job) -> int:
        """How long the answer is at this moment."""
        sequence = self._of[job.id]
        return self._length(sequence)

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._decode_steps

    @property
    def running(self) -> int:
        """Sequences that hold a slot."""
        return len(self.decoding) + len(self.reading)

    def _length(self, sequence: Sequence) -> int:
        if sequence.joined_step < 0:
            return sequence.kept
        # The token of a step that is under way is not there yet.
        return sequence.kept + self._decode_steps - sequence.joined_step - self.is_stepping

    def _memory(self, sequence: Sequence) -> int:
        """KV tokens held: all but the newest token, which is read by the next step."""
        if sequence.joined_step < 0:
            return sequence.read_tokens
        return sequence.job.prompt_tokens + sequence.kept - 1 + self._decode_steps - sequence.joined_step

    def _release(self, sequence: Sequence) -> None:
        self.kv_tokens -= self._memory(sequence)
        if sequence.joined_step < 0:
            self.reading.remove(sequence)
            if sequence in self._just_read:
                self._just_read.remove(sequence)
        else:
            del self.decoding[sequence.job.id]
        sequence.serial = -1

    def _evict_youngest(self) -> None:
        sequence = max((*self.reading, *self.decoding.values()), key=lambda each: each.serial)
        length = self._length(sequence)
        self._release(sequence)
        sequence.kept, sequence.cached, sequence.read_tokens, sequence.joined_step = length, 0, 0, -1
        self.waiting.appendleft(sequence)
        self.evictions += 1

    def _read(self, sequence: Sequence, tokens: int) -> None:
        sequence.read_tokens += tokens
        self.kv_tokens += tokens
        if not sequence.unread_tokens:
            self._just_read.append(sequence)

    def _admit(self, budget: int) -> int:
        """Give slots to the engine's own queue; returns what is left of the budget."""
        while self.waiting and budget and self.running < self.hardware.slots:
            sequence = self.waiting[0]
            tokens = min(budget, sequence.unread_tokens - sequence.cached)
            if self.kv_tokens + sequence.cached + tokens > self.hardware.pool_tokens:
                break
            self.waiting.popleft()
            self._serial += 1
            sequence.serial = self._serial
            self.reading.append(sequence)
            self._read(sequence, sequence.cached + tokens)
            budget -= tokens
        return budget

    def begin(self) -> float | None:
        """Begin a step; its duration in milliseconds, or None when there is nothing to do."""
        evictions = self.evictions
        while self.kv_tokens + len(self.decoding) > self.hardware.pool_tokens:
            self._evict_youngest()
        decoding = len(self.decoding)
        self.kv_tokens += decoding
        self._decode_steps += 1
        self.is_stepping = True
        budget = left = max(0, self.hardware.chunk_tokens - decoding)
        for sequence in self.reading:
            tokens = min(left, sequence.unread_tokens, self.hardware.pool_tokens - self.kv_tokens)
            if tokens:
                self._read(sequence, tokens)
                left -= tokens
        if self.evictions == evictions:
            left = self._admit(left)
        tokens = decoding + budget - left
        if not tokens:
            self._decode_steps -= 1
            self.is_stepping = False
            return None
        self.tokens_computed += tokens
        self.kv_tokens_max = max(self.kv_tokens_max, self.kv_tokens)
        return self.hardware.step_ms(tokens, self.kv_tokens)

    def end(self) -> Outcome:
        """End the step: tokens appear."""
        self.is_stepping = False
        outcome = Outcome()
        while self._ends and self._ends[0][0] <= self._decode_steps:
            _, serial, sequence = heappop(self._ends)
            if sequence.serial == serial:
                self._finish(sequence, outcome)
        for sequence in self._just_read:
            self.reading.remove(sequence)
            self.decoding[sequence.job.id] = sequence
            sequence.kept += 1
            sequence.joined_step = self._decode_steps
            if sequence.job.id not in self._begun:
                self._begun.add(sequence.job.id)
                outcome.first_tokens.append(sequence.job)
            left = sequence.job.output_tokens - sequence.kept
            if left:
                heappush(self._ends, (self._decode_steps + left, sequence.serial, sequence))
            else:
                self._finish(sequence, outcome)
        self._just_read.clear()
        return outcome

    def _finish(self, sequence: Sequence, outcome: Outcome) -> None:
        self._release(sequence)
        del self._of[sequence.job.id]
        self._begun.discard(sequence.job.id)
        outcome.finished.append(sequence.job)
