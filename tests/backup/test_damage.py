"""Files that are no backups, or no longer: all of them are refused before anything is written, with a sentence."""

import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from server.backup import manifest as manifests
from server.backup.manifest import DUMP, NAME, SUM_NAME, Manifest, Part
from server.backup.restoring import restore
from server.backup.tape import BLOCK_BYTES, Writer, opened
from server.clock import SystemClock
from server.errors import StartError
from tests.cli.programs import NEWEST

CONTENT = {DUMP: os.urandom(3000), "archive/messages/2026_01.parquet": os.urandom(700), "archive/empty": b""}
# Nobody listens there: who comes so far has not looked at the file.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), 500):
        yield content[begin : begin + 500]


def _manifest(parts: list[Part], revision: str = NEWEST) -> Manifest:
    return Manifest(
        server="0.1.0",
        revision=revision,
        postgres="18.4",
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
        counts={"users": 1},
        isolated=["usage"],
        left_out=[],
        missing=[],
        parts=parts,
        models=[],
    )


async def write(path: Path, *, revision: str = NEWEST) -> None:
    """A whole backup, but that its dump is none."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    writer, heard = Writer(file, 1), list[int]()
    parts = [await writer.add(name, _pieces(content), heard.append) for name, content in CONTENT.items()]
    writer.end(_manifest(parts, revision))
    os.close(file)
    assert heard == [500, 1000, 1500, 2000, 2500, 3000, 500, 700]


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A backup."""
    await write(tmp_path / "box.tar")
    return tmp_path / "box.tar"


async def refusal(file: Path, tmp_path: Path) -> str:
    """Restore it, which must fail and leave nothing; the sentence."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with pytest.raises(StartError) as refused:
        await restore(file, data_dir, NOWHERE, SystemClock(), lambda _: None)
    assert list(data_dir.iterdir()) == []
    return refused.value.message


def members(file: Path) -> dict[str, bytes]:
    """What any tar finds in it."""
    with tarfile.open(file) as tar:
        return {member.name: ((part := tar.extractfile(member)) and part.read()) or b"" for member in tar}


def put(file: Path, content: bytes) -> None:
    """Replace it."""
    file.write_bytes(content)


def flip(file: Path, offset: int) -> None:
    """One bit of it."""
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    put(file, bytes(content))


def forge(file: Path, content: dict[str, bytes], *more: tarfile.TarInfo, names: bool = False) -> None:
    """Write a tar with these members; `names`: with a manifest that says so."""
    if names:
        parts = [
            Part(name, len(text), hashlib.sha256(text).hexdigest())
            for name, text in content.items()
            if name not in (NAME, SUM_NAME)
        ]
        text = manifests.encode(_manifest(parts))
        content = {**content, NAME: text, SUM_NAME: f"{hashlib.sha256(text).hexdigest()}  {NAME}\n".encode()}
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, part in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(part)
            tar.addfile(member, io.BytesIO(part))
        for member in more:
            tar.addfile(member)


async def test_a_backup_is_an_ordinary_tar(file: Path) -> None:
    """Whoever has only a shell finds the parts, the manifest, and sums that `sha256sum -c` understands."""
    found = members(file)
    assert list(found) == [*CONTENT, NAME, SUM_NAME]
    assert {name: found[name] for name in CONTENT} == CONTENT
    digest, name = found[SUM_NAME].decode().split()
    assert (digest, name) == (hashlib.sha256(found[NAME]).hexdigest(), NAME)
    with opened(file) as tape:
        await tape.verify(lambda _, __: None)
        for part in tape.manifest.parts:
            assert b"".join([chunk async for chunk in tape.chunks(part)]) == CONTENT[part.name]


async def test_a_whole_one_is_looked_at_first(file: Path, tmp_path: Path) -> None:
    """The control of the tests below: nothing but Postgres, which is not there, keeps this one from being restored."""
    lines: list[str] = []
    with pytest.raises(Exception, match="Postgres cannot be reached"):
        await restore(file, tmp_path / "data", NOWHERE, SystemClock(), lines.append)
    assert lines[-1] == "  checked: 3 parts, 0.0 MB"


@pytest.mark.parametrize("part", [DUMP, "archive/messages/2026_01.parquet", NAME, SUM_NAME])
async def test_one_bit(file: Path, tmp_path: Path, part: str) -> None:
    """A bit that has flipped in any part is found by its sum."""
    with tarfile.open(file) as tar:
        member = tar.getmember(part)
    flip(file, member.offset_data + member.size // 3)
    sentence = await refusal(file, tmp_path)
    assert sentence.startswith("The backup is damaged: ")
    assert "SHA-256" in sentence


@pytest.mark.parametrize("part", [*CONTENT, NAME, SUM_NAME])
async def test_a_header_that_was_hit(file: Path, tmp_path: Path, part: str) -> None:
    """A bit in a name or a size ends the tar there, as if it had been cut off."""
    with tarfile.open(file) as tar:
        begins = tar.getmember(part).offset
    flip(file, begins + 3)
    assert "is no backup of WIRTHFORGE, or only the beginning of one" in await refusal(file, tmp_path)


@pytest.fixture
def content(file: Path) -> bytes:
    """Of the backup."""
    return file.read_bytes()


async def test_a_file_that_was_cut_off(file: Path, tmp_path: Path, content: bytes) -> None:
    """Wherever it ends, it is refused; only the zeros at the end, which say nothing, may be missing."""
    with tarfile.open(file) as tar:
        ends = tar.getmember(SUM_NAME).offset_data + len(f"{'0' * 64}  {NAME}\n")
    for size in {0, 1, ends - 1, *range(BLOCK_BYTES - 1, ends, BLOCK_BYTES // 2)}:
        put(file, content[:size])
        with pytest.raises(StartError, match=r"no backup of WIRTHFORGE|is damaged"), opened(file) as tape:
            await tape.verify(lambda _, __: None)
    put(file, content[: ends - 1])
    assert "only the beginning of one" in await refusal(file, tmp_path)


@pytest.mark.parametrize("other", [b"", b"words", b"\0" * 10_240, b"PGDMP" + b"x" * 600])
async def test_what_is_no_backup(file: Path, tmp_path: Path, other: bytes) -> None:
    """An empty file, a text, zeros, a dump without its tar."""
    put(file, other)
    assert "is no backup of WIRTHFORGE" in await refusal(file, tmp_path)


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The sentence names it; so it does for a folder."""
    assert await refusal(tmp_path / "absent", tmp_path) == (
        f"The backup {tmp_path / 'absent'} cannot be read: No such file or directory."
    )


def _renamed(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace("empty", "other"): part for name, part in content.items()}


def _without(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: part for name, part in content.items() if name != "archive/empty"}


def _with_another(content: dict[str, bytes]) -> dict[str, bytes]:
    return {"archive/more": b"", **content}


def _longer(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "archive/empty": b"no longer"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_renamed, "The backup is damaged: archive/empty is missing."),
        (_without, "The backup is damaged: archive/empty is missing."),
        (_with_another, "The backup holds 'archive/more', of which its manifest.json says nothing."),
        (_longer, "The backup is damaged: archive/empty has 9 bytes in place of 0."),
    ],
)
async def test_parts_that_were_changed(
    file: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], sentence: str
) -> None:
    """A part that was renamed, taken out, added, or made longer."""
    forge(file, change(members(file)))
    assert await refusal(file, tmp_path) == sentence


@pytest.mark.parametrize(
    "name",
    [
        *["/etc/passwd", "../outside", "archive/../../outside", "archive/./x", "archive//x", "archive/", "archive"],
        *["run/lock", "archive/.hidden", "archive/new\nline", "archive/back\\slash", "archive/" + "x" * 1000],
    ],
)
async def test_names_that_lead_elsewhere(file: Path, tmp_path: Path, name: str) -> None:
    """Also where the manifest names them, and all sums are right: only the dump and paths below the archive may be."""
    forge(file, {**members(file), name: b"x"}, names=True)
    assert "names a part that no backup has" in await refusal(file, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
async def test_members_that_are_no_files(file: Path, tmp_path: Path, kind: bytes) -> None:
    """Links, folders, pipes and devices are in no backup."""
    member = tarfile.TarInfo("archive/link")
    member.type, member.linkname = kind, "/etc/passwd"
    forge(file, members(file), member)
    assert "holds a link, a folder, or something twice" in await refusal(file, tmp_path)


async def test_the_same_name_twice(file: Path, tmp_path: Path) -> None:
    """Whichever of the two a tar would take."""
    forge(file, members(file), tarfile.TarInfo("archive/empty"))
    assert "something twice" in await refusal(file, tmp_path)


async def test_a_newer_format(file: Path, tmp_path: Path) -> None:
    """Whatever else its manifest says."""
    text = msgspec.json.encode({"format": 2, "all": "new"})
    line = f"{hashlib.sha256(text).hexdigest()}  {NAME}\n".encode()
    forge(file, {**members(file), NAME: text, SUM_NAME: line})
    assert (await refusal(file, tmp_path)).startswith("The backup is of format 2, and this version of WIRTHFORGE knows")


@pytest.mark.parametrize("text", [b"{}", b"[]", b"{", b"\xff", b'{"format": 1}', b'{"format": 1, "parts": [{}]}'])
async def test_a_manifest_that_is_none(file: Path, tmp_path: Path, text: bytes) -> None:
    """With a sum that is right."""
    line = f"{hashlib.sha256(text).hexdigest()}  {NAME}\n".encode()
    forge(file, {**members(file), NAME: text, SUM_NAME: line})
    assert (await refusal(file, tmp_path)).startswith("The backup's manifest.json cannot be read: ")


async def test_a_revision_of_the_future(tmp_path: Path) -> None:
    """A schema that this version does not know is not restored, since nothing could work with it."""
    await write(tmp_path / "box.tar", revision="9999")
    assert (await refusal(tmp_path / "box.tar", tmp_path)).startswith(
        "The backup is at revision 9999, which this version does not know: it was made by a newer version."
    )
