"""Estimates of memory against what llama.cpp really takes: its own log of buffers, and the process's resident memory.

    python -m benchmarks.memory

Models are hollow (benchmarks/hollow.py) but loaded for real, each in a process of its own. The last row shows what
laying out Q4_0 anew costs on a CPU.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import xllamacpp

from benchmarks import tiny_model
from benchmarks.hollow import (
    DEFAULT_BATCH,
    F16,
    Q4_0,
    Trial,
    deepseek,
    gemma3,
    gpt_oss,
    llama,
    mamba2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    write_hollow,
)
from server.hardware.headers import read
from server.hardware.memory import MIB, estimate

LOAD_S_MAX = 120

# Loads one model as server/embedded does, says what the process holds, and ends.
LOADER = """
import os, sys, psutil, xllamacpp
path, slots, context, cache, batch = sys.argv[1:]
wanted = xllamacpp.CommonParams()
wanted.verbosity, wanted.model.path, wanted.n_parallel, wanted.n_ctx = 4, path, int(slots), int(slots) * int(context)
wanted.kv_unified, wanted.cache_ram_mib, wanted.cache_idle_slots = False, 0, False
wanted.warmup, wanted.fit_params = False, False
wanted.n_batch = wanted.n_ubatch = int(batch)
wanted.cache_type_k = wanted.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + cache.upper())
server = xllamacpp.Server(wanted)
print("RESIDENT", psutil.Process().memory_info().rss, flush=True)
os._exit(0)
"""
BUFFERS = {
    "weights": r"(?:CPU_Mapped|CPU_REPACK|CPU) model buffer size",
    "cache": r"KV buffer size",
    "state": r"RS buffer size",
    "compute": r"(?:compute|output) buffer size",
}


class Measured(NamedTuple):
    """What llama.cpp said of its buffers, and the process's resident memory, in MiB."""

    buffers: Mapping[str, float]
    resident: float


def load(path: Path, trial: Trial) -> Measured:
    """Load it for real, in a process of its own. Raises RuntimeError with the end of its log."""
    arguments = [str(path), str(trial.slots), str(trial.context), trial.cache, str(trial.batch)]
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", LOADER, *arguments], capture_output=True, text=True, timeout=LOAD_S_MAX, check=False
    )
    log = ended.stdout + ended.stderr
    resident = re.search(r"RESIDENT (\d+)", log)
    if resident is None:
        raise RuntimeError(f"{trial.name} was not loaded:\n{log[-1500:]}")
    buffers = {
        name: sum(float(size) for size in re.findall(pattern + r"\s*=\s*([\d.]+) MiB", log))
        for name, pattern in BUFFERS.items()
    }
    return Measured(buffers, int(resident[1]) / MIB)


def trials() -> Iterator[Trial]:
    """What is loaded."""
    yield Trial("demonstration", "", {}, {}, 0, slots=2, context=4096)
    yield Trial("demonstration x24", "", {}, {}, 24, slots=8, context=2048)
    yield llama()
    yield llama(slots=4, context=4096)
    yield llama(context=32768, cache="q8_0")
    yield llama(context=32768, cache="q4_0")
    yield llama(batch=2048)
    yield qwen3(slots=2, context=5000)
    yield qwen3_moe()
    yield gemma3(context=32768)
    yield gemma3(slots=4)
    yield gpt_oss(slots=2)
    yield deepseek()
    yield mamba2(slots=4)
    yield qwen3_next(slots=2)
    yield llama(kind=Q4_0)


def main() -> None:
    """Load everything, one after the other; print predicted / measured."""
    version = getattr(xllamacpp, "__version__", "unknown")
    print(f"xllamacpp {version}, MiB, predicted / measured; resident: what the process really held")
    print("| model | slots x tokens | cache | cache MiB | state | compute | all buffers | error | resident |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hollow.gguf"
        for trial in trials():
            if trial.tensors:
                write_hollow(path, trial)
            else:
                tiny_model.build(path, layers=trial.vocabulary or 1)
            print(_row(path, trial), flush=True)
            path.unlink()


def _row(path: Path, trial: Trial) -> str:
    expected = estimate(
        read(path),
        context_tokens=trial.context,
        slots=trial.slots,
        cache_type=trial.cache,
        batch_tokens=trial.batch,
        accelerator=False,
    )
    found = load(path, trial)
    cells = [
        f"{expected.part(name).expected_bytes / MIB:.1f} / {found.buffers[name]:.1f}"
        for name in ("cache", "state", "compute")
    ]
    predicted = sum(expected.part(name).expected_bytes for name in BUFFERS) / MIB
    measured = sum(found.buffers.values())
    total = f"{predicted:.0f} / {measured:.0f}"
    resident = f"{expected.expected_bytes / MIB:.0f} / {found.resident:.0f}"
    name = trial.name if trial.kind == F16 else f"{trial.name} ({trial.kind.name})"
    size = f"{trial.slots} x {trial.context}" + ("" if trial.batch == DEFAULT_BATCH else f", batch {trial.batch}")
    row = [name, size, trial.cache, *cells, total, f"{predicted / measured - 1:+.1%}", resident]
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
