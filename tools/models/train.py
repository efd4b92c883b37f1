"""Training: AdamW for the table of tokens, Muon for the matrices (Jordan and others 2024), a rate that falls to zero.

A checkpoint holds weights, optimisers and the step; batches are a function of the step (lessons.py). So a run that was
stopped and goes on gives the same weights as one that was not.

Two workers are two processes with a core each. Each learns half of a batch, they add their gradients, and both take the
same step: threads of one process would wait for each other at every operation, these meet once a step.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch  # type: ignore[import-not-found]
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional  # type: ignore[import-not-found]

from tools.models.lessons import Lesson, Lessons
from tools.models.network import Network
from tools.models.shape import Shape
from tools.models.tokenizer import END

# Of each worker.
THREADS = 1
WARM_UP = 0.03
GRADIENT_MAX = 1.0
TELL_STEPS, SAVE_STEPS = 20, 100


@dataclass(frozen=True)
class Plan:
    """How one model is trained."""

    shape: Shape
    seed: int
    steps: int
    batch: int
    matrix_rate: float = 0.02
    table_rate: float = 0.003
    workers: int = 1


class Training:
    """A network and its optimisers at some step, in one worker."""

    def __init__(self, plan: Plan, worker: int = 0) -> None:
        torch.use_deterministic_algorithms(mode=True)
        # Nothing here reads what it has not written; filling it anyway costs a tenth.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.set_num_threads(THREADS)
        torch.manual_seed(plan.seed)
        self.plan, self._worker = plan, worker
        self.step = 0
        self.network = Network(plan.shape)
        matrices = [each for each in self.network.layers.parameters() if each.dim() > 1]
        ours = {id(each) for each in matrices}
        others = [each for each in self.network.parameters() if id(each) not in ours]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=plan.table_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        part = path.with_suffix(".part")
        state = {
            "plan": repr(self.plan),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
        }
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is of another plan.
        """
        state = torch.load(path, weights_only=True)
        if state["plan"] != repr(self.plan):
            raise ValueError(f"{path} was begun with another plan: remove it to begin anew.")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def learn(self, lessons: Sequence[Lesson]) -> tuple[float, int]:
        """One step; the loss (nats a token of the answers) and how many tokens were read, by all workers."""
        mine = lessons[self._worker :: self.plan.workers]
        tokens, wanted, right = _tensors(mine)
        part = right.numel() / sum(len(each.tokens) - each.learned_from for each in lessons)
        rate = self._rate()
        for optimiser, full in zip(self.optimisers, (self.plan.matrix_rate, self.plan.table_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = full * rate
            optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = self.network(tokens, wanted)
        loss = functional.cross_entropy(scores.float(), right) * part
        loss.backward()
        total = self._add_up(loss.detach()) if self.plan.workers > 1 else loss.item()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_MAX)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return total, tokens.numel() * self.plan.workers

    def _add_up(self, loss: Tensor) -> float:
        """Add the workers' gradients, and their losses."""
        parameters = list(self.network.parameters())
        flat = torch.cat([*(each.grad.flatten() for each in parameters if each.grad is not None), loss.reshape(1)])
        distributed.all_reduce(flat)
        at = 0
        for each in parameters:
            assert each.grad is not None, "every parameter takes part"
            each.grad.copy_(flat[at : at + each.numel()].view_as(each))
            at += each.numel()
        return float(flat[-1])

    def _rate(self) -> float:
        """The part of the full rate at this step: up, level, and down to zero over the second half."""
        done = (self.step + 1) / self.plan.steps
        return min(1.0, done / WARM_UP, 2.0 * (1.0 - done) + 0.002)


def _tensors(lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, padded at the end; from where the next token is to be told; and which that is."""
    length = max(len(each.tokens) for each in lessons) - 1
    tokens = torch.full((len(lessons), length), END)
    wanted = torch.zeros((len(lessons), length), dtype=torch.bool)
    right = [token for each in lessons for token in each.tokens[each.learned_from :]]
    for row, each in enumerate(lessons):
        tokens[row, : len(each.tokens) - 1] = torch.tensor(each.tokens[:-1])
        wanted[row, each.learned_from - 1 : len(each.tokens) - 1] = True
    return tokens, wanted, torch.tensor(right)


@dataclass(frozen=True)
class Run:
    """What to train, from which checkpoint, to which step, and who is told."""

    plan: Plan
    lessons: Lessons
    checkpoint: Path
    tell: Callable[[str], None]
    until: int


def run(
    plan: Plan, lessons: Lessons, checkpoint: Path, tell: Callable[[str], None], *, until: int | None = None
) -> None:
    """Train to the end of the plan (or to the step `until`), from the checkpoint where there is one."""
    all_ = Run(plan, lessons, checkpoint, tell, min(plan.steps, until or plan.steps))
    if plan.workers == 1:
        _train(0, all_)
        return
    with tempfile.TemporaryDirectory() as folder:
        # They meet on the loopback interface, by a file.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        multiprocessing.spawn(_train_together, (all_, f"file://{folder}/meeting"), nprocs=plan.workers)


def _train_together(worker: int, all_: Run, meeting: str) -> None:
    distributed.init_process_group("gloo", init_method=meeting, rank=worker, world_size=all_.plan.workers)
    _train(worker, all_)
    distributed.destroy_process_group()


def _train(worker: int, all_: Run) -> None:
    training = Training(all_.plan, worker)
    if all_.checkpoint.exists():
        training.load(all_.checkpoint)
    if all_.plan.workers > 1:
        # Nobody writes a checkpoint that another has not read yet.
        distributed.barrier()
    losses, read, begun, since = 0.0, 0, perf_counter(), training.step
    for batch in all_.lessons.from_step(training.step):
        if training.step >= all_.until:
            break
        loss, count = training.learn(batch)
        losses, read = losses + loss, read + count
        if worker > 0:
            continue
        if training.step % TELL_STEPS == 0 or training.step == all_.until:
            steps, took = training.step - since, perf_counter() - begun
            left = (all_.plan.steps - training.step) * took / steps
            all_.tell(
                f"step {training.step:5}/{all_.plan.steps}  loss {losses / steps:.4f}  "
                f"{read / took:6.0f} tokens/s  {left / 60:5.1f} min left"
            )
            losses, read, begun, since = 0.0, 0, perf_counter(), training.step
        if training.step % SAVE_STEPS == 0 or training.step == all_.until:
            training.save(all_.checkpoint)
