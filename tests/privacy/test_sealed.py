"""Keys of providers at rest, and the key that seals them."""

import base64
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.cli.serve import serve
from server.cli.up import _with_key
from server.embedded import key_file
from server.errors import StartError
from server.privacy.sealed import KEY_BYTES, Seal, SealBroken, new_key, seal_from
from server.settings import Settings, load

KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
SECRET = "sk-ant-a-providers-key"


@given(key=KEYS, text=st.text(max_size=50), about=st.text(max_size=20))
def test_a_seal_opens_to_what_was_sealed(key: bytes, text: str, about: str) -> None:
    """With the same key, about the same thing; two seals of one text differ, and none shows it."""
    seal = Seal(key)
    sealed = seal.seal(text, about)
    assert seal.open(sealed, about) == text
    assert seal.seal(text, about) != sealed
    assert len(text) < 4 or text.encode() not in sealed


@given(sealed=st.binary(max_size=80))
def test_what_is_no_seal_does_not_open(sealed: bytes) -> None:
    """Whatever lies in its place."""
    with pytest.raises(SealBroken):
        Seal(NEW).open(sealed, "a")


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_changed_seal_does_not_open(at: int, bit: int) -> None:
    """One bit is enough, wherever it is."""
    sealed = bytearray(Seal(NEW).seal(SECRET, "a"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(SealBroken):
        Seal(NEW).open(bytes(sealed), "a")


def test_a_seal_belongs_to_its_row_and_its_key() -> None:
    """Moved to another row it does not open, nor with another key; the fault holds nothing of it."""
    sealed = Seal(NEW).seal(SECRET, "cloud_providers\nfar\nhttps://a")
    for seal, about in ((Seal(NEW), "cloud_providers\nfar\nhttps://b"), (Seal(OLD), "cloud_providers\nfar\nhttps://a")):
        with pytest.raises(SealBroken) as found:
            seal.open(sealed, about)
        assert SECRET not in str(found.value)
    assert OLD.hex() not in repr(Seal(OLD))


def test_an_older_key_opens_and_does_not_seal() -> None:
    """The first key seals; which one did can be told."""
    old, both, new = Seal(OLD), Seal(NEW, OLD), Seal(NEW)
    before = old.seal(SECRET, "a")
    assert both.open(before, "a") == SECRET
    assert not both.is_current(before, "a")
    after = both.seal(SECRET, "a")
    assert both.is_current(after, "a")
    assert new.open(after, "a") == SECRET
    with pytest.raises(SealBroken):
        new.is_current(before, "a")


def test_a_derived_key_is_for_one_purpose() -> None:
    """The same for the same purpose and first key, of the length that is asked for, and never the key itself."""
    seal = Seal(NEW, OLD)
    assert seal.derived("pseudonyms") == Seal(NEW).derived("pseudonyms")
    assert len({seal.derived("pseudonyms"), seal.derived("consents"), Seal(OLD).derived("pseudonyms"), NEW}) == 4
    assert len(seal.derived("pseudonyms", 16)) == 16
    assert seal.derived("seal") != Seal(NEW).derived("for seal")


def test_a_setting_is_a_key_in_base64() -> None:
    """Either alphabet, with or without the signs at its end, several with commas."""
    key = base64.b64decode("+/" + "A" * 41 + "=")
    plain = base64.b64encode(key).decode()
    sealed = Seal(key).seal(SECRET, "a")
    for written in (plain, plain.rstrip("="), base64.urlsafe_b64encode(key).decode(), f" {new_key()} , {plain} "):
        seal = seal_from(written)
        assert seal is not None
        assert seal.open(sealed, "a") == SECRET
    assert seal_from("") is None
    assert seal_from(" ") is None


@pytest.mark.parametrize(
    "written", ["x", "secret key", "ä", base64.b64encode(b"x" * 31).decode(), base64.b64encode(b"x" * 33).decode(), ","]
)
def test_a_setting_that_is_no_key_says_what_to_do(written: str) -> None:
    """And does not repeat it."""
    with pytest.raises(StartError, match=r"encryption_key is wrong.*openssl rand -base64 32") as found:
        seal_from(written)
    assert len(written) < 2 or written not in found.value.message


def test_the_setting_comes_from_the_environment() -> None:
    """Both keys of it."""
    assert load({}, {"WIRTHFORGE_ENCRYPTION_KEY": "a,b"}).encryption_key == "a,b"


def test_a_server_with_a_wrong_key_does_not_start() -> None:
    """It says so before it opens anything."""
    flags = ["--engine", "http://127.0.0.1:1/v1", "--database-url", "postgresql://a@127.0.0.1:1/a"]
    environment = {"WIRTHFORGE_ENCRYPTION_KEY": "abc"}
    result = CliRunner().invoke(serve, [*flags, "--redis-url", "redis://127.0.0.1:1"], env=environment)
    assert isinstance(result.exception, StartError)
    assert "encryption_key is wrong" in result.exception.message


def test_up_makes_a_key_once(tmp_path: Path) -> None:
    """For its owner alone; the next start finds the same, and nothing else is left in the folder."""
    settings = Settings(data_dir=tmp_path / "data")
    first = _with_key(settings).encryption_key
    path = tmp_path / "data" / "encryption.key"
    assert seal_from(first) is not None
    assert path.read_text() == first + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _with_key(settings).encryption_key == first
    assert os.listdir(tmp_path / "data") == ["encryption.key"]  # noqa: PTH208 (names, hidden ones included)


def test_a_setting_is_stronger_than_the_file(tmp_path: Path) -> None:
    """No file is made then; one that is wrong is told before anything starts."""
    key = new_key()
    settings = Settings(data_dir=tmp_path, encryption_key=key)
    assert _with_key(settings).encryption_key == key
    assert not key_file.path_of(tmp_path).exists()
    with pytest.raises(StartError):
        _with_key(replace(settings, encryption_key="x"))


def test_a_file_may_hold_older_keys(tmp_path: Path) -> None:
    """One a line; the first seals."""
    path = key_file.path_of(tmp_path)
    path.write_text(f"{base64.b64encode(NEW).decode()}\n\n{base64.b64encode(OLD).decode()}\n")
    path.chmod(0o600)
    seal = seal_from(_with_key(Settings(data_dir=tmp_path)).encryption_key)
    assert seal is not None
    assert seal.open(Seal(OLD).seal(SECRET, "a"), "a") == SECRET
    assert seal.derived("x") == Seal(NEW).derived("x")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """With what to do about it."""
    path = key_file.path_of(tmp_path)
    path.write_text(new_key())
    path.chmod(mode)
    with pytest.raises(StartError, match=f"chmod 600 {path}"):
        key_file.read(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "x" * 5000])
def test_a_file_that_holds_no_key_is_not_overwritten(tmp_path: Path, text: str) -> None:
    """Somebody may still have the old one."""
    path = key_file.path_of(tmp_path)
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StartError, match="holds no key"):
        key_file.read_or_make(tmp_path, new_key)
    assert path.read_text() == text


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    """Which one is wrong, where it is not the setting; a folder in its place is told as well."""
    path = key_file.path_of(tmp_path)
    path.write_text("not a key")
    path.chmod(0o600)
    with pytest.raises(StartError, match=f"The file {path} is wrong"):
        _with_key(Settings(data_dir=tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(StartError, match="in the way"):
        key_file.read(tmp_path)


def test_two_that_begin_at_once_end_with_one_key(tmp_path: Path) -> None:
    """Whoever comes second takes what is there, and does not write over it."""
    made: list[str] = []

    def make() -> str:
        # Another process is faster, while this one makes its own.
        if not made:
            made.append(new_key())
            path = key_file.path_of(tmp_path)
            path.write_text(made[0] + "\n")
            path.chmod(0o600)
        return new_key()

    assert key_file.read_or_make(tmp_path, make) == made[0]


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    """In a sentence."""
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(StartError):
        key_file.read_or_make(tmp_path / "data", new_key)
