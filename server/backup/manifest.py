"""What a backup says about itself."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from server.errors import StartError

FORMAT = 1
NAME, SUM_NAME, DUMP = "manifest.json", "manifest.json.sha256", "database.dump"
ARCHIVE = "archive/"
BYTES_MAX = 64 * 1024 * 1024
PARTS_MAX = 100_000
NAME_CHARS_MAX = 1_000
# No part of a path may begin with a dot, so none is `..`, and none is hidden.
_PATH = re.compile(r"[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*(/[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*)*")

Natural = Annotated[int, Meta(ge=0)]
Sum = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Part(Struct, frozen=True):
    """A file in the backup."""

    name: str
    bytes: Natural
    sha256: Sum


class Model(Struct, frozen=True):
    """A model that lay in the models folder, and is not in the backup."""

    name: str
    bytes: Natural


class Manifest(Struct, frozen=True, kw_only=True):
    """The manifest.

    Attributes:
        revision: of the schema.
        postgres: the version of the server that was dumped.
        counts: rows of each table; those of a table in months are counted together.
        isolated: tables under forced row-level security.
        left_out: tables whose rows are not in the backup.
        missing: files of the archive that should have been there, or were not what the table `archives` says.
    """

    format: int = FORMAT
    server: str
    revision: str
    postgres: str
    made_at: datetime
    counts: dict[str, Natural]
    isolated: Sequence[str]
    left_out: Sequence[str]
    missing: Sequence[str]
    parts: Sequence[Part]
    models: Sequence[Model]


class _Formed(Struct):
    """The one field that every format has."""

    format: int


def encode(manifest: Manifest) -> bytes:
    """As JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(text: bytes) -> Manifest:
    """Read and check it; names of parts are safe to use as paths afterwards.

    Raises:
        StartError: it is none, of a newer format, or names what no backup holds.
    """
    try:
        found = msgspec.json.decode(text, type=_Formed).format
        if found != FORMAT:
            raise StartError(
                f"The backup is of format {found}, and this version of WIRTHFORGE knows format {FORMAT}: "
                "restore it with the version that made it, or a newer one."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartError(f"The backup's {NAME} cannot be read: {error}.") from None
    names = [part.name for part in manifest.parts]
    if len(names) > PARTS_MAX or len(set(names)) != len(names) or DUMP not in names:
        raise StartError(f"The backup's {NAME} does not name {DUMP} and files of the archive, each once.")
    for name in names:
        if name != DUMP and not is_archive_name(name):
            raise StartError(f"The backup's {NAME} names a part that no backup has: {name[:80]!r}.")
    return manifest


def is_archive_name(name: str) -> bool:
    """Whether this is a path below the archive, and nothing else."""
    return name.startswith(ARCHIVE) and len(name) <= NAME_CHARS_MAX and _PATH.fullmatch(name) is not None
