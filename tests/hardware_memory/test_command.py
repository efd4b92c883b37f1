from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from server.cli import estimates
from server.cli.models import models
from server.hardware.memory import GIB, seed_estimate
from server.hardware.shapes import UnreadableModel
from tests.hardware_memory.files import LLAMA, write_folder, write_gguf
from tests.hardware_memory.published import LLAMA_8B


def told(path: Path, *words: str) -> str:
    """What `wirthforge models estimate` prints."""
    result = CliRunner().invoke(models, ["estimate", str(path), *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_table(tmp_path: Path) -> None:
    """Parts, total, band, the seed's figure, and whether it fits."""
    path = write_gguf(tmp_path / "m.gguf", LLAMA)
    table = told(path, "--context", "1024", "--slots", "2", "--free-bytes", str(8 * GIB))
    lines = table.splitlines()
    assert lines[0] == "m.gguf: llama, 4 layers (4 attention), 2 tensors"
    # 4 x (128 + 128) x 2 bytes a token; 2 x 1024 tokens of it are 4 MiB.
    assert lines[1] == "2 x 1024 tokens, cache f16: 2.0 KiB a token"
    assert [line.split()[:2] for line in lines if line.startswith("cache")] == [["cache", "4.0"]]
    for name in ("weights", "state", "compute", "overhead", "total", "seed document"):
        assert any(line.startswith(name) for line in lines)
    assert lines[-1] == "8.0 GiB free, 1.0 GiB of it kept: fits."


def test_for_programs(tmp_path: Path) -> None:
    """One object, bytes only; the parts add up."""
    path = write_gguf(tmp_path / "m.gguf", LLAMA)
    found = msgspec.json.decode(told(path, "--context", "2048", "--cache-type", "q8_0", "--gpu", "--json"))
    assert found["expected_bytes"] == sum(part["expected_bytes"] for part in found["parts"])
    assert found["low_bytes"] < found["expected_bytes"] < found["high_bytes"]
    # 2048 numbers a token, 34 bytes for 32 of them.
    assert found["token_bytes"] == 4 * 256 * 34 // 32
    assert found["seed_bytes"] == seed_estimate(2048)
    assert (found["free_bytes"], found["verdict"]) == (None, "")


def test_a_folder(tmp_path: Path) -> None:
    """Safetensors are estimated for a GPU, of which nothing is known here; the context is bounded unless told."""
    folder = write_folder(tmp_path / "m", LLAMA_8B, {"model.safetensors": {"a": ("BF16", 64)}})
    table = told(folder)
    assert "1 x 32768 tokens, cache f16: 128.0 KiB a token" in table
    assert "free" not in table


@pytest.mark.parametrize(("free", "verdict"), [(64 * GIB, "fits"), (6 * GIB, "may fit"), (2 * GIB, "does not fit")])
def test_verdicts(tmp_path: Path, free: int, verdict: str) -> None:
    """The whole band, the value only, or neither, beside the headroom."""
    folder = write_folder(tmp_path / "m", LLAMA_8B, {"model.safetensors": {"a": ("BF16", 64)}})
    assert told(folder, "--context", "16384", "--free-bytes", str(free)).endswith(f": {verdict}.\n")


def test_free_memory(tmp_path: Path) -> None:
    """As Linux tells it; where it does not, nothing is said."""
    (tmp_path / "meminfo").write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\n")
    assert estimates.free_memory_bytes(tmp_path / "meminfo") == 8000 * 1024
    (tmp_path / "other").write_text("MemTotal: 16000 kB\n")
    assert estimates.free_memory_bytes(tmp_path / "other") is None
    assert estimates.free_memory_bytes(tmp_path / "nowhere") is None


def test_what_is_no_model(tmp_path: Path) -> None:
    """A sentence, and no table."""
    (tmp_path / "text.gguf").write_text("Dear reader, this is not a model at all.")
    with pytest.raises(UnreadableModel, match="does not begin with GGUF"):
        told(tmp_path / "text.gguf")
