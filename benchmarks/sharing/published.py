"""The engine of VTC's experiments, with its scheduler inside, to see whether our constants give the published numbers.

It differs from today's engines (engine.py): prompts are read in batches of their own, a new batch is tried every ten
decoding steps, and a request is admitted only if memory suffices for the longest that everybody may yet become.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from benchmarks.sharing.engine import A10G, Hardware
from benchmarks.sharing.job import INPUT_PRICE, OUTPUT_PRICE, Job, Record

STEPS_BETWEEN_BATCHES = 10
BATCH_TOKENS_MIN = 3072
# What a batch of prompts costs beside its tokens.
READ_MS = 30.0


def peak_tokens(lengths: Iterable[tuple[int, int]]) -> int:
    """The most memory that (tokens now, tokens to come) of all sequences will ever need, ends being known."""
    ordered = sorted(lengths, key=lambda each: -each[1])
    peak = now = 0
    for count, (held, to_come) in enumerate(ordered, 1):
        now += held
        peak = max(peak, now + to_come * count)
    return peak


class Published:
    """One run, policy "fcfs" or "vtc"."""

    def __init__(self, policy: str, hardware: Hardware = A10G, *, lifts: bool = True) -> None:
        self.policy, self.hardware, self.lifts = policy, hardware, lifts
        self.now_ms = 0.0
        self.queues: dict[str, deque[Record]] = {}
        self.served: dict[str, float] = {}
        self.running: list[Record] = []
        self.serial = 0

    def arrive(self, record: Record) -> None:
        """Queue it, and lift its client to the others' level (not above)."""
        client = record.job.client if self.policy == "vtc" else ""
        queue = self.queues.setdefault(client, deque())
        queue.append(record)
        self.served.setdefault(client, 0.0)
        if len(queue) == 1 and self.lifts:
            others = [self.served[name] for name, queued in self.queues.items() if queued and name != client]
            self.served[client] = max(self.served[client], min(others, default=0.0))

    def batch(self) -> list[Record]:
        """Requests to read now, in the policy's order; the first that does not fit ends it."""
        taken: list[Record] = []
        lengths = [
            (record.job.prompt_tokens + record.output_tokens, record.job.output_tokens - record.output_tokens - 1)
            for record in self.running
        ]
        tokens_max = max(self.hardware.pool_tokens // 6, BATCH_TOKENS_MIN)
        while backlogged := [client for client, queue in self.queues.items() if queue]:
            client = min(backlogged, key=self.served.__getitem__)
            job = self.queues[client][0].job
            lengths.append((job.prompt_tokens + 1, job.output_tokens - 1))
            tokens_max -= job.prompt_tokens
            if tokens_max < 0 or peak_tokens(lengths) >= self.hardware.pool_tokens:
                break
            taken.append(self.queues[client].popleft())
            self.served[client] += INPUT_PRICE * job.prompt_tokens
        return taken

    def token(self, records: Iterable[Record]) -> None:
        """Each gets a token; the complete ones leave."""
        for record in records:
            record.output_tokens += 1
            if record.output_tokens == 1:
                record.first_token_ms = self.now_ms
            if record.output_tokens == record.job.output_tokens:
                record.ended_ms = self.now_ms
                record.outcome = "completed"

    def decode(self) -> None:
        """One step for everybody."""
        if self.policy == "vtc":
            for record in self.running:
                self.served[record.job.client] += OUTPUT_PRICE
        context = sum(record.job.prompt_tokens + record.output_tokens for record in self.running)
        self.now_ms += self.hardware.step_ms(len(self.running), context)
        self.token(self.running)

    def run(self, jobs: Sequence[Job]) -> list[Record]:
        """Replay all jobs to their ends."""
        records = [Record(job, job.arrival_ms) for job in jobs]
        to_come = deque(records)
        waited = 0
        while to_come or self.running or any(self.queues.values()):
            if not self.running and not any(self.queues.values()):
                self.now_ms = max(self.now_ms, to_come[0].arrived_ms)
            while to_come and to_come[0].arrived_ms <= self.now_ms:
                self.arrive(to_come.popleft())
            new = [] if self.running and waited < STEPS_BETWEEN_BATCHES else self.batch()
            if new:
                prompt_tokens = sum(record.job.prompt_tokens for record in new)
                self.now_ms += READ_MS + self.hardware.token_ms * prompt_tokens
                self.token(new)
                self.running += new
                waited = 0
            elif self.running:
                self.decode()
                waited += 1
            self.running = [record for record in self.running if record.outcome == "open"]
        return records
