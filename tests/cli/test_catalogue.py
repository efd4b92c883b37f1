"""The list of `wirthforge models pull`. The hub is a stand-in that speaks the hub's HTTP on a loopback socket."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from math import prod
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import hollow, tiny_model
from server.cli.catalogue import ENTRIES, GB, LICENCES, Box, Entry, announcement, boxes, fit, named, table
from server.embedded.llama_devices import Seen
from server.hardware import headers
from server.hardware.devices import Device, Sample, Snapshot
from server.hardware.memory import GIB, MIB, estimate
from server.settings import Settings
from tests.cli.programs import House

SETTINGS = Settings()
EACH = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
WORSE_TO_BETTER = ["does not fit", "may fit", "fits"]
QWEN = "Qwen/Qwen3-0.6B-GGUF/resolve/main/Qwen3-0.6B-Q8_0.gguf"
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:1"}
NOW = datetime(2026, 11, 23, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry_of(name: str) -> Entry:
    """The entry, which is there."""
    found = named(name)
    assert found is not None
    return found


def tensors_of(entry: Entry) -> hollow.Tensors:
    """What a model of these sizes consists of, as benchmarks/hollow.py builds it for real loads."""
    sizes = entry.sizes
    _, tensors = hollow.dense(
        layers=sizes.layers, width=sizes.width, heads=sizes.heads, kv_heads=sizes.kv_heads, head=sizes.head,
        forward=sizes.forward, vocabulary=sizes.vocabulary,
    )  # fmt: skip
    if not entry.input_bytes:
        del tensors["output.weight"]
    return (
        hollow.experts(tensors, sizes.layers, sizes.width, sizes.forward, sizes.experts) if sizes.experts else tensors
    )


def header_bytes(entry: Entry) -> int:
    """What of the file is no tensor: keys, and the vocabulary above all."""
    return entry.file_bytes - sum(entry.weight_bytes.values())


def test_names_and_references() -> None:
    """No two are the same, each can be asked for by both, and each names one GGUF file of one repository."""
    assert len({entry.name for entry in ENTRIES}) == len({entry.reference for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert named(entry.name) is named(entry.reference) is entry
        repository, _, file = entry.reference.removeprefix("hf:").partition(":")
        assert repository.count("/") == 1
        assert file.endswith(".gguf")
        assert "/" not in file
        assert entry.licence in LICENCES
    assert named("qwen3") is None
    assert [entry.file_bytes for entry in ENTRIES] == sorted(entry.file_bytes for entry in ENTRIES)


@EACH
def test_weights_have_the_numbers_of_the_sizes(entry: Entry) -> None:
    """The quantised bytes hold exactly as many numbers as the matrices of a model of these sizes."""
    held = 0
    for name, size in entry.weight_bytes.items():
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert size % block_bytes == 0
        held += size // block_bytes * block if name != "F32" else 0
    # Converters leave what chooses the experts in F32.
    matrices = (size for name, size in tensors_of(entry).items() if len(size) > 1 and "ffn_gate_inp" not in name)
    assert held == sum(map(prod, matrices))


@EACH
def test_weights_and_a_vocabulary_make_the_file(entry: Entry) -> None:
    """The rest of the file is its header: from a tenth of a per cent to one, and some bytes for each token."""
    assert 0.001 < header_bytes(entry) / entry.file_bytes < 0.01
    assert 20 < header_bytes(entry) / entry.sizes.vocabulary < 70


def test_files_of_a_family_have_the_same_header() -> None:
    """Their vocabulary is the same, so that a wrong size of one of them would show."""
    alike = sorted(ENTRIES, key=lambda entry: (entry.architecture, entry.sizes.vocabulary))
    groups = [
        [header_bytes(entry) for entry in group]
        for _, group in groupby(alike, key=lambda entry: (entry.architecture, entry.sizes.vocabulary))
    ]
    assert sorted(map(len, groups)) == [1, 1, 2, 2, 4]
    for group in groups:
        # The names of tensors, 64 bytes each, are also in there.
        assert max(group) - min(group) < 16 * 1024


@pytest.mark.parametrize(("name", "trial"), [("gemma-3-1b", hollow.gemma3()), ("qwen3-0.6b", hollow.qwen3())])
def test_a_real_header_gives_the_same_estimate(tmp_path: Path, name: str, trial: hollow.Trial) -> None:
    """A GGUF file with the model's header, read as any file, differs in nothing that an estimate needs."""
    path = tmp_path / "model.gguf"
    hollow.write_hollow(path, trial)
    read, ours = headers.read(path), entry_of(name).shape()
    shape = replace(
        read, weight_bytes=ours.weight_bytes, input_bytes=ours.input_bytes, tensor_count=0, context_tokens=0
    )
    assert shape == ours
    for accelerator in (True, False):
        theirs, mine = (estimate(one, context_tokens=4096, slots=4, accelerator=accelerator) for one in (shape, ours))
        assert theirs == mine


def test_windows_are_not_kept_whole() -> None:
    """Gemma and gpt-oss forget in most of their layers; the others in none."""
    windowed = {entry.name: entry.shape().windowed_layers for entry in ENTRIES if entry.shape().windowed_layers}
    assert windowed == {"gemma-3-1b": 22, "gemma-3-4b": 29, "gpt-oss-20b": 12}
    assert not any(entry.shape().doubts for entry in ENTRIES)


@EACH
def test_more_than_the_file_is_needed(entry: Entry) -> None:
    """On a GPU and without one, and less than four times the file and 2 GiB for four answers."""
    for box in (Box("main memory", 0), Box("card", 0, is_gpu=True)):
        how = fit(entry, [box], SETTINGS)
        assert how.verdict == "does not fit"
        assert entry.file_bytes < how.high_bytes < 4 * entry.file_bytes + 2 * GIB


@given(
    entry=st.sampled_from(ENTRIES), is_gpu=st.booleans(), free=st.integers(0, 64 * GIB), more=st.integers(0, 64 * GIB)
)
def test_more_memory_never_fits_worse(*, entry: Entry, is_gpu: bool, free: int, more: int) -> None:
    """From does not fit over may fit to fits, and never back."""
    less, greater = (fit(entry, [Box("a box", size, is_gpu)], SETTINGS).verdict for size in (free, free + more))
    assert WORSE_TO_BETTER.index(less) <= WORSE_TO_BETTER.index(greater)


def test_answers_take_memory() -> None:
    """More of them, or longer ones, need more; the list says of how many that is."""
    box, entry = Box("main memory", 6 * GIB), entry_of("qwen3-4b")
    one = Settings(model_slots=1, model_context_tokens=2048)
    assert fit(entry, [box], one).high_bytes < fit(entry, [box], SETTINGS).high_bytes
    assert "with model_slots = 1 and model_context_tokens = 2048" in table([box], one)


def test_the_setting_bounds_it() -> None:
    """What `up` would refuse does not fit, however much is free."""
    bounded = Settings(models_memory_bytes=GIB)
    box, entry = Box("main memory", 64 * GIB), entry_of("qwen3-0.6b")
    assert fit(entry, [box], SETTINGS).verdict == "fits"
    assert fit(entry, [box], bounded).verdict == "does not fit"
    assert "models_memory_bytes allows 1.0 GiB" in table([box], bounded)
    assert "does not fit" in announcement("hf:a/b:c.gguf", 2 * GIB, [box], bounded)


def test_where_nobody_knows_what_is_free() -> None:
    """A question mark, not a promise."""
    box = Box("main memory", None)
    assert {fit(entry, [box], SETTINGS).verdict for entry in ENTRIES} == {"?"}
    assert "nobody says how much main memory is free" in table([box], SETTINGS)


def test_the_gpu_first_and_then_main_memory() -> None:
    """The GPU with the most free memory of those that llama.cpp sees; what is too large for it stays in main memory."""
    cards = {"small": (8, True), "large": (12, True), "unseen": (80, False)}
    devices = tuple(
        Device(
            provider="nvml", uuid=name, kind="gpu", vendor="nvidia", name=name, memory_bytes=80 * GIB,
            pci_address=f"0000:{index:02x}:00.0",
        )
        for index, name in enumerate(cards)
    )  # fmt: skip
    samples = {name: Sample(uuid=name, at=NOW, free_bytes=gib * GIB) for name, (gib, _) in cards.items()}
    seen = [Seen(f"CUDA{index}", f"0000:{index:02x}:00.0") for index, (_, shows) in enumerate(cards.values()) if shows]
    gpu, host = boxes(Snapshot(at=NOW, devices=devices, samples=samples), seen)
    assert gpu == Box("large", 12 * GIB, is_gpu=True)
    assert host.name == "main memory"
    roomy = Box("main memory", 64 * GIB)
    assert fit(entry_of("qwen3-4b"), [gpu, roomy], SETTINGS).verdict == "fits"
    assert fit(entry_of("gpt-oss-20b"), [gpu, roomy], SETTINGS).verdict == "fits RAM"
    assert fit(entry_of("gpt-oss-20b"), [gpu, Box("main memory", GIB)], SETTINGS).verdict == "does not fit"


@pytest.mark.parametrize("box", [Box("main memory", 10 * GIB), Box("NVIDIA GeForce RTX 4090", None, is_gpu=True)])
def test_the_table_is_narrow(box: Box) -> None:
    """One line for each model, none wider than 120 characters."""
    lines = table([box], SETTINGS).splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(ENTRIES)]] == [entry.name for entry in ENTRIES]
    assert max(map(len, lines)) <= 120
    for entry, line in zip(ENTRIES, lines[1:], strict=False):
        assert line.endswith(entry.reference)
        assert f" {entry.file_bytes / GB:.1f} " in line


class _Hub(http.server.BaseHTTPRequestHandler):
    """Has one file under every name, as the hub shows it."""

    file: bytes
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()
        self.wfile.write(self.file)

    def _answer(self) -> None:
        self.asked.append(f"{self.command} {self.path.removeprefix('/')}")
        self.send_response(200)
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(self.file)))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub, and what it is asked."""
    tiny_model.build(tmp_path / "tiny.gguf")
    asked: list[str] = []
    answers = type("Answers", (_Hub,), {"file": (tmp_path / "tiny.gguf").read_bytes(), "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_list_needs_no_network(house: House, hub: tuple[str, list[str]]) -> None:
    """It asks nobody, and makes nothing; where little is free, little fits."""
    url, asked = hub
    told = house.ask("models", "pull", "--free-bytes", str(3 * GIB), settings={"HF_ENDPOINT": url})
    verdicts = {line.split()[0]: line for line in told.splitlines()[1 : 1 + len(ENTRIES)]}
    assert " fits " in verdicts["smollm2-360m"]
    assert " does not fit " in verdicts["qwen3-8b"]
    assert "3.0 GiB of" in told
    assert asked == []
    assert not house.data.exists()


def test_a_short_name(house: House, hub: tuple[str, list[str]]) -> None:
    """It is fetched from the repository of the list, after its licence, its size and whether it fits were told."""
    url, asked = hub
    done = house.run("models", "pull", "qwen3-0.6b", "--free-bytes", str(GIB), settings={"HF_ENDPOINT": url})
    assert done.returncode == 0, done.stderr
    path = house.data / "models" / "Qwen" / "Qwen3-0.6B-GGUF" / "Qwen3-0.6B-Q8_0.gguf"
    assert done.stdout == f"{path}\n"
    assert path.read_bytes()[:4] == b"GGUF"
    assert set(asked) == {f"HEAD {QWEN}", f"GET {QWEN}"}
    first = done.stderr.splitlines()[0]
    # The size is that of the file which the hub has.
    assert first.startswith("qwen3-0.6b (Apache License 2.0): 0.0 GB to fetch. It needs ")
    assert ": does not fit (1.0 GiB of" in first
    # Now it is here: nothing is asked, nothing is told.
    again = house.run("models", "pull", "qwen3-0.6b", settings=NOWHERE)
    assert (again.stdout, again.stderr) == (f"{path}\n", "")


def test_a_file_that_is_not_in_the_list(house: House, hub: tuple[str, list[str]]) -> None:
    """Of it only the size is known before it is here."""
    url, _ = hub
    words = ("models", "pull", "hf:owner/repo:file.gguf", "--free-bytes", str(4 * GIB))
    done = house.run(*words, settings={"HF_ENDPOINT": url})
    assert done.stdout == f"{house.data / 'models' / 'owner' / 'repo' / 'file.gguf'}\n"
    assert "hf:owner/repo:file.gguf: 0.0 GB to fetch. That alone fits (4.0 GiB of" in done.stderr
    large = announcement("hf:a/b:c.gguf", 70 * GIB, [Box("main memory", 4 * GIB)], SETTINGS)
    assert "75.2 GB to fetch. That alone does not fit" in large
    unknown = announcement("hf:a/b:c.gguf", None, [Box("main memory", 64 * MIB)], SETTINGS)
    assert unknown == "hf:a/b:c.gguf: the hub does not say how large it is."


def test_a_wrong_name(house: House) -> None:
    """The sentence says how a file is named, and where the list is."""
    assert house.refusal("models", "pull", "qwen3") == (
        "'qwen3' does not name a model of the hub: write hf:owner/repo:file.gguf, "
        "or a name that `wirthforge models pull` lists."
    )
