"""The noisy neighbour: a victim who asks now and then, beside a hog that always has more.

The victim sends 0.2 requests a second at random, 256 tokens in and 128 out; the hog keeps a queue of long prompts, long
answers, or both. What counts is how much later the victim's first token comes than with the engine to itself, and what
that costs in throughput.
"""

from benchmarks.sharing.job import Job
from benchmarks.sharing.replay import Backlog, Workload
from benchmarks.sharing.workloads import chance, poisson

VICTIM_RATE = 0.2
VICTIM_LENGTHS = (256, 128)
HOGS = {"decode-heavy": (512, 512), "long prompts": (4096, 256), "long answers": (128, 1024)}
HOG_DEPTH = 8


def victim(seed: int, until_ms: float) -> list[Job]:
    """Now and then."""
    return list(poisson("victim", VICTIM_RATE, until_ms / 1000, chance((seed, "victim")), lambda _: VICTIM_LENGTHS))


def beside(hog: str | None, seed: int, until_ms: float, *, is_revocable: bool = False) -> Workload:
    """The victim, with a hog or alone."""
    backlogs: tuple[Backlog, ...] = ()
    if hog:
        backlogs = (Backlog("hog", *HOGS[hog], depth=HOG_DEPTH, is_revocable=is_revocable),)
    return Workload(victim(seed, until_ms), backlogs, until_ms)
