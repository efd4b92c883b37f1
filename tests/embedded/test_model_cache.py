"""What of the models folder may go, what stays, and in which order."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.embedded import model_records
from server.embedded.model_cache import Model, alone_in, carry_out, look, offering, plan
from server.errors import StartError
from tests.embedded.pulled import MB, day, left, prune, pull, put, reasons
from tests.embedded.test_open_files import MAPS, said

OURS, THEIRS = "own/repo/ours.gguf", "theirs.gguf"


@st.composite
def _models(draw: st.DrawFn) -> list[Model]:
    models = []
    for number in range(draw(st.integers(0, 8))):
        stays = draw(st.sampled_from(["", "", "named by the settings"]))
        counts = not stays or draw(st.booleans())
        is_leftover = not stays and draw(st.integers(0, 4)) == 0
        size, used = draw(st.integers(0, 50)), day(draw(st.integers(0, 5)))
        models.append(Model(f"m{number}", (), size, used, counts, stays, is_leftover))
    return models


@given(models=_models(), to=st.integers(0, 200), free=st.integers(0, 100))
def test_the_longest_unused_goes_and_no_more_than_must(models: list[Model], to: int, free: int) -> None:
    """The bounds are kept if they can be, by the fewest from the front of the order; what must stay stays."""
    chosen = plan(models, to, free_bytes=free)
    assert sorted(chosen.going + chosen.staying, key=lambda model: model.name) == models
    assert not any(model.stays for model in chosen.going)
    may_stay = [model for model in chosen.staying if not model.stays]
    assert not any(model.is_leftover for model in may_stay)
    if may_stay:
        assert chosen.left_bytes <= to
        assert chosen.freed_bytes >= free
    by_use = [model for model in chosen.going if not model.is_leftover]
    assert all(gone.used <= kept.used for gone in by_use for kept in may_stay)
    if by_use:
        last = by_use[-1].size_bytes
        assert chosen.left_bytes + last > to or chosen.freed_bytes - last < free


def test_the_longest_unused_of_a_folder(tmp_path: Path) -> None:
    """Three pulled models and room for two: the one that was used last before the others goes, with all about it."""
    for name, used in (("a/x/new.gguf", 3), ("a/x/old.gguf", 1), ("b/y/middle.gguf", 2)):
        pull(tmp_path, name, used=used)
    library = tmp_path / "a" / "x" / ".cache" / "huggingface"
    for kept in ("download/old.gguf.metadata", "download/old.gguf.lock", ".gitignore", "CACHEDIR.TAG"):
        put(library / kept, 1)
    assert prune(tmp_path, 200 * MB)[0] == ["a/x/old.gguf"]
    assert left(tmp_path) == {
        *("a/x/new.gguf", "b/y/middle.gguf"),
        *(f".wirthforge/{name}.{kind}" for name in ("a/x/new.gguf", "b/y/middle.gguf") for kind in ("pulled", "used")),
    }
    # A use puts it behind the others.
    model_records.mark_used(tmp_path, tmp_path / "b" / "y" / "middle.gguf", day(4))
    assert prune(tmp_path, 100 * MB)[0] == ["a/x/new.gguf"]
    assert prune(tmp_path)[0] == ["b/y/middle.gguf"]
    assert [path.name for path in tmp_path.iterdir()] == [".wirthforge"]


def test_what_people_put_there_is_theirs(tmp_path: Path) -> None:
    """It stays and does not count, unless they say so; then it goes in the same order."""
    pull(tmp_path, OURS, used=2)
    put(tmp_path / THEIRS, 900 * MB, since=1)
    put(tmp_path / "notes.txt")
    assert prune(tmp_path, 100 * MB) == ([], {OURS: "", THEIRS: "yours"})
    assert prune(tmp_path, 100 * MB, also_theirs=True)[0] == [THEIRS]
    assert {OURS, "notes.txt"} < left(tmp_path)


@pytest.mark.parametrize("change", ["longer", "newer", "record", "no record"])
def test_a_record_that_does_not_fit_is_none(tmp_path: Path, change: str) -> None:
    """A file that was replaced by one's own, or of which nobody knows how it came, is theirs."""
    path, record = pull(tmp_path, OURS), model_records.pulled_path(tmp_path, Path(OURS))
    match change:
        case "longer":
            put(path, 101 * MB, since=-1)
        case "newer":
            put(path, since=5)
        case "record":
            record.write_bytes(b'{"reference": "hf:\xff')
        case _:
            record.unlink()
    assert prune(tmp_path) == ([], {OURS: "yours"})
    assert path.exists()


def test_a_pull_whose_end_was_not_recorded(tmp_path: Path) -> None:
    """The process was killed between the file's last byte and the record of it: it is as long as announced, so ours."""
    put(tmp_path / OURS, 7 * MB)
    with model_records.fetching(tmp_path, Path(OURS)) as entry:
        entry.write(model_records.Record("hf:x", 7 * MB))
        assert prune(tmp_path) == ([], {OURS: "is being fetched"})
    assert prune(tmp_path)[0] == [OURS]


def test_the_layout_of_the_hubs_own_cache(tmp_path: Path) -> None:
    """Blobs with links to them are theirs; when they go, both go, and the space is free."""
    home = tmp_path / "models--owner--name"
    blob = put(home / "blobs" / "0123abcd", since=1)
    for revision in ("r1", "r2"):
        link = home / "snapshots" / revision / "m.gguf"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../blobs/0123abcd")
    name = "models--owner--name/snapshots/r1/m.gguf"
    assert prune(tmp_path) == ([], {name: "yours"})
    with alone_in(tmp_path):
        (model,) = look(tmp_path, (), also_theirs=True)
    assert model.size_bytes == 100 * MB
    assert prune(tmp_path, named=[home / "snapshots" / "r2" / "m.gguf"], also_theirs=True)[0] == []
    assert prune(tmp_path, also_theirs=True)[0] == [name]
    assert left(tmp_path) == set()
    assert not blob.exists()


def test_hard_links(tmp_path: Path) -> None:
    """Inside of the folder a file goes with all its names; one with a name elsewhere stays: nothing would be free."""
    folder = tmp_path / "models"
    put(folder / "one.gguf")
    os.link(folder / "one.gguf", folder / "two.gguf")
    os.link(pull(folder, OURS), tmp_path / "elsewhere.gguf")
    gone, stays = prune(folder, also_theirs=True)
    assert gone == ["one.gguf"]
    assert stays == {OURS: "also has a name elsewhere: nothing would be freed"}
    assert left(tmp_path) >= {"elsewhere.gguf", f"models/{OURS}"}
    assert not (folder / "two.gguf").exists()


def test_links_out_of_the_folder_and_to_nowhere(tmp_path: Path) -> None:
    """They stay, and what they lead to is not touched, even if one asks for one's own."""
    folder = tmp_path / "models"
    target = put(tmp_path / "disk" / "big.gguf")
    folder.mkdir()
    (folder / "big.gguf").symlink_to(target)
    (folder / "broken.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (folder / "all").symlink_to(target.parent)
    (folder / "circle.gguf").symlink_to("circle.gguf")
    assert prune(folder, also_theirs=True) == (
        [],
        {
            "big.gguf": "also has a name elsewhere: nothing would be freed",
            "broken.gguf": "a link that leads nowhere",
            "circle.gguf": "a link that leads nowhere",
        },
    )
    assert target.exists()


def test_a_pulled_model_with_a_name_of_ones_own(tmp_path: Path) -> None:
    """Whoever gives it a name in the folder wants it: it is theirs then."""
    pull(tmp_path, OURS)
    (tmp_path / "best.gguf").symlink_to(OURS)
    assert prune(tmp_path) == ([], {"best.gguf": "yours"})
    (tmp_path / "best.gguf").unlink()
    assert prune(tmp_path)[0] == [OURS]


def test_a_model_in_parts(tmp_path: Path) -> None:
    """It counts as one, is as recent as its most recent part, and stays whole if one part does."""
    parts = [pull(tmp_path, f"o/r/m-0000{n}-of-00003.gguf", used=n) for n in (1, 2, 3)]
    pull(tmp_path, OURS, used=2)
    with offering(parts[1:2]):
        gone, stays = prune(tmp_path)
    assert gone == [OURS]
    assert stays == {"o/r/m-00001-of-00003.gguf": "in use: a server offers it"}
    assert all(part.exists() for part in parts)
    assert prune(tmp_path, named=parts[2:]) == ([], {"o/r/m-00001-of-00003.gguf": "named by the settings"})
    assert prune(tmp_path)[0] == ["o/r/m-00001-of-00003.gguf"]
    assert not any(part.exists() for part in parts)


def test_what_another_program_has_open(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """A server that knows nothing of us serves a pulled model: it stays until that has ended."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells")
    other = spawn(sys.executable, "-P", "-c", MAPS, pull(tmp_path, OURS))
    assert said(other) == "mapped"
    assert prune(tmp_path) == ([], {OURS: "in use: another program has it open"})
    other.kill()
    other.wait(5)
    assert prune(tmp_path)[0] == [OURS]


def test_what_is_used_after_it_was_chosen(tmp_path: Path) -> None:
    """A model whose load begins between the choice and the removal stays, and so does one that was replaced."""
    offered, replaced = pull(tmp_path, "a/x/offered.gguf"), pull(tmp_path, "a/x/replaced.gguf")
    pull(tmp_path, OURS)
    with alone_in(tmp_path):
        chosen = plan(look(tmp_path, ()), 0)
        replaced.unlink()
        put(replaced, 5 * MB)
        with offering([offered]):
            gone, kept = carry_out(tmp_path, chosen)
    assert [model.name for model in gone] == [OURS]
    assert reasons(chosen, kept) == {
        "a/x/offered.gguf": "in use: a server offers it",
        "a/x/replaced.gguf": "in use: it has changed meanwhile",
    }
    assert offered.exists()
    assert replaced.exists()


def test_a_load_and_a_removal_at_once(tmp_path: Path) -> None:
    """Whichever is first: what was offered is there as long as it is, or the offer is refused in a sentence."""
    path, outcomes = tmp_path / OURS, set[str]()
    for _ in range(60):
        pull(tmp_path, OURS)
        start = threading.Barrier(2)

        def remove(start: threading.Barrier = start) -> None:
            start.wait()
            prune(tmp_path)

        remover = threading.Thread(target=remove)
        remover.start()
        start.wait()
        try:
            with offering([path]):
                remover.join()
                assert path.exists()
                outcomes.add("offered")
        except StartError:
            outcomes.add("refused")
        remover.join()
    assert outcomes


def test_prunes_at_once_remove_no_more_than_one_would(tmp_path: Path) -> None:
    """They work one after the other, and the later ones see what the first has left."""
    for number in range(6):
        pull(tmp_path, f"o/r/{number}.gguf", used=number)
    gone = list[str]()

    def remove() -> None:
        gone.extend(prune(tmp_path, 250 * MB)[0])

    several = [threading.Thread(target=remove) for _ in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert gone == ["o/r/0.gguf", "o/r/1.gguf", "o/r/2.gguf", "o/r/3.gguf"]
    assert {path.name for path in tmp_path.glob("o/r/*.gguf")} == {"4.gguf", "5.gguf"}


def test_killed_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was removed by then, the next run removes the rest and leaves no records."""
    unlink, steps = Path.unlink, 0

    def interrupted(self: Path, *, missing_ok: bool = False) -> None:
        nonlocal steps
        if steps == 0:
            raise KeyboardInterrupt
        steps -= 1
        unlink(self, missing_ok=missing_ok)

    for first in range(6):
        for part in (1, 2):
            pull(tmp_path, f"o/r/m-0000{part}-of-00002.gguf")
        steps = first
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", interrupted)
            with pytest.raises(KeyboardInterrupt):
                prune(tmp_path)
        prune(tmp_path)
        assert left(tmp_path) == set(), first


def test_what_a_killed_download_left(tmp_path: Path) -> None:
    """It goes first and whatever the limit, but not while something of its repository is on its way."""
    half = put(tmp_path / "o" / "r" / ".cache" / "huggingface" / "download" / "x.abc.incomplete", 40 * MB)
    put(tmp_path / "p" / "q" / ".cache" / "huggingface" / "download" / "theirs.incomplete")
    with model_records.fetching(tmp_path, Path("o/r/m.gguf")) as entry:
        entry.write(model_records.Record("hf:o/r:m.gguf", 70 * MB))
        with alone_in(tmp_path):
            (coming,) = look(tmp_path, ())
        assert (coming.name, coming.size_bytes, coming.stays) == ("o/r/m.gguf", 70 * MB, "is being fetched")
        assert prune(tmp_path)[0] == []
    with half.open("ab"):
        assert prune(tmp_path)[0] == []
        pull(tmp_path, "o/r/other.gguf")
    assert prune(tmp_path, 10**12)[0] == ["o/r/.cache/huggingface/download/x.abc.incomplete"]
    assert not half.exists()
    assert "p/q/.cache/huggingface/download/theirs.incomplete" in left(tmp_path)
    assert (tmp_path / "o" / "r" / "other.gguf").exists()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A sentence for a folder that is not there, or is a file."""
    for path in (tmp_path / "none", put(tmp_path / "file", 1)):
        with pytest.raises(StartError, match=f"The models folder {path} cannot be used"), alone_in(path):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_cannot_be_written(data_dir: Path) -> None:
    """The model stays, and the table says why; nothing is half removed."""
    path = pull(data_dir, OURS)
    for folder in (data_dir, *path.parents[:2], *model_records.pulled_path(data_dir, Path(OURS)).parents[:3]):
        folder.chmod(0o755)
    os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        assert prune(data_dir) == ([], {OURS: "cannot be removed: Permission denied"})
    finally:
        os.seteuid(0)
    assert prune(data_dir)[0] == [OURS]


def test_offering_what_is_gone(tmp_path: Path) -> None:
    """A sentence, before anything starts."""
    with pytest.raises(StartError, match="cannot be used: No such file"), offering([tmp_path / "gone.gguf"]):
        pass
