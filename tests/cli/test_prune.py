"""`wirthforge models prune`, and the limit when a model is pulled. The hub is the stand-in of test_catalogue.py."""

import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from benchmarks import tiny_model
from server.cli.models import models
from server.cli.pruning import Size
from server.errors import StartError
from server.settings import load
from tests.cli import test_catalogue
from tests.cli.programs import House, Server
from tests.embedded.pulled import MB, pull, put

hub = test_catalogue.hub


@pytest.fixture
def ask(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`wirthforge models prune` in this process: what it does is not in how it is started."""
    for name in set(os.environ):
        if name.startswith("WIRTHFORGE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(house.home)

    def begin(*words: str, **settings: str) -> Result:
        words = ("prune", "--data-dir", str(house.data), *words)
        return CliRunner().invoke(models, words, env=settings, standalone_mode=False)

    return begin


def test_the_table(house: House, ask: Callable[..., Result]) -> None:
    """What would go, what stays and why; only without --dry-run it is gone, and then once."""
    folder = house.data / "models"
    pull(folder, "a/x/old.gguf", 1000 * MB, used=1)
    pull(folder, "a/x/new.gguf", 2000 * MB, used=2)
    named = pull(folder, "a/x/named.gguf", 500 * MB)
    put(folder / "mine.gguf", 300 * MB)
    settings = {"WIRTHFORGE_MODELS": f"hf:a/x:named.gguf,{folder}/elsewhere.gguf"}
    before = ask("--to", "2.5GB", "--dry-run", **settings).output
    assert before.splitlines() == [
        "      model              GB last used (UTC)   why",
        "goes  a/x/old.gguf      1.0 2026-11-02 00:00  the longest unused",
        "stays a/x/named.gguf    0.5 2026-11-01 00:00  named by the settings",
        "stays mine.gguf         0.3 2026-11-01 00:00  yours",
        "stays a/x/new.gguf      2.0 2026-11-03 00:00  within the limit",
        "",
        "1.0 GB goes; of what counts, 2.5 GB are left of 2.5 GB allowed.",
    ]
    assert (folder / "a" / "x" / "old.gguf").exists()
    assert ask("--to", "2.5GB", **settings).output == before.replace("goes", "gone")
    assert not (folder / "a" / "x" / "old.gguf").exists()
    assert "0.0 GB gone" in ask("--to", "2.5GB", **settings).output
    more = ask("--to", "0", "--also-mine", **settings).output
    assert more.splitlines()[-2:] == [
        "2.3 GB gone; of what counts, 0.5 GB are left of 0.0 GB allowed.",
        "0.5 GB more should go and may not.",
    ]
    assert named.exists()
    assert not (folder / "mine.gguf").exists()


def test_nothing_to_remove(house: House, ask: Callable[..., Result]) -> None:
    """Without a folder, and with an empty one, it says so and makes nothing."""
    assert ask().output == f"There is no folder {house.data / 'models'}: nothing to remove.\n"
    assert not house.data.exists()
    (house.data / "models").mkdir(parents=True)
    assert ask().output == "There are no models.\n"


def test_sizes_that_are_none(ask: Callable[..., Result]) -> None:
    """The sentence says how a size is written, and what is allowed."""
    wrong = ask("--to", "many").exception
    assert isinstance(wrong, click.BadParameter)
    assert wrong.message == "'many' is no size: write 20GB, 500MB or a number of bytes."
    refusal = ask("--to", "60 GB").exception
    assert isinstance(refusal, StartError)
    assert refusal.message == "--to 60.0GB is more than model_cache_bytes_max allows: 50.0 GB."


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("20GB", 20 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("7 B", 7), ("2TB", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert Size().convert(text, None, None) == size


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_removed(house: House, ask: Callable[..., Result]) -> None:
    """The rest goes, the table says why, and the command fails."""
    folder = house.data / "models"
    stuck = pull(folder, "a/x/stuck.gguf", used=1)
    pull(folder, "a/y/goes.gguf", used=2)
    for path in (house.home, *house.home.rglob("*")):
        path.chmod(0o755)
        os.chown(path, 65534, 65534)
    os.chown(stuck.parent, 0, 0)
    os.seteuid(65534)
    try:
        done = ask("--to", "0")
    finally:
        os.seteuid(0)
    assert isinstance(done.exception, StartError)
    assert done.exception.message == "Not removed: a/x/stuck.gguf. The table says why."
    assert "gone  a/y/goes.gguf" in done.output
    assert "cannot be removed: Permission denied" in done.output
    assert stuck.exists()


@pytest.mark.parametrize("size", ["499999999", "50000000001", "0", "20GB"])
def test_limits_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    """500 MB to 50 GB, in bytes; the sentence names the setting."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match="model_cache_bytes_max is wrong"):
        load({}, {"WIRTHFORGE_MODEL_CACHE_BYTES_MAX": size})
    assert load({}, {"WIRTHFORGE_MODEL_CACHE_BYTES_MAX": "500000000"}).model_cache_bytes_max == 500_000_000


def test_a_pull_makes_room(house: House, hub: tuple[str, list[str]]) -> None:
    """The longest unused goes when the next one comes, and that is told; where nothing may go, the pull is refused."""
    folder = house.data / "models"
    old = pull(folder, "a/x/old.gguf", 500 * MB, used=1)
    settings = {"HF_ENDPOINT": hub[0], "WIRTHFORGE_MODEL_CACHE_BYTES_MAX": "500000000"}
    words = ("models", "pull", "hf:owner/repo:file.gguf")
    refusal = house.refusal(*words, settings={**settings, "WIRTHFORGE_MODELS": str(old)})
    assert refusal.startswith("There is no room for hf:owner/repo:file.gguf (0.0 GB): the model cache may hold 0.5 GB")
    assert old.exists()
    done = house.run(*words, settings=settings)
    assert done.stdout == f"{folder / 'owner' / 'repo' / 'file.gguf'}\n", done.stderr
    assert "Removed a/x/old.gguf (0.5 GB, last used 2026-11-02 00:00) to make room." in done.stderr
    assert not old.exists()
    assert "gone  owner/repo/file.gguf" in house.ask("models", "prune", "--to", "0")
    assert [path.name for path in folder.iterdir()] == [".wirthforge"]


def test_what_a_running_server_offers(house: House, start: Callable[..., Server]) -> None:
    """It stays, though nobody has asked for it, until the server has ended; then it goes, since it was used."""
    path = house.data / "models" / "own" / "repo" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    tiny_model.build(path)
    os.utime(path, (1_000_000_000,) * 2)
    server = start()
    told = house.ask("models", "prune", "--to", "0", "--also-mine")
    assert "2001-09-09" not in told
    assert told.splitlines()[1].endswith("in use: a server offers it")
    assert path.exists()
    server.stop()
    assert "gone  own/repo/tiny.gguf" in house.ask("models", "prune", "--to", "0", "--also-mine")
    assert not path.exists()
