"""What a file of the archive is, in words beside it: for people, and for whoever finds the files without a database.

The server believes the SHA-256 in its table `archives`, never the one in a manifest.
"""

import json
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from server.upkeep.shelf import Shelf

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1


class Written(Struct, frozen=True, kw_only=True):
    """A file.

    Attributes:
        name: of the file.
        month: as 2026_08.
        revision: of the database's schema when its rows were written.
    """

    name: str
    table: str
    month: str
    rows: int
    size_bytes: int
    sha256: bytes
    revision: str


def manifest_name(name: str) -> str:
    """Of the manifest that is beside a file."""
    return f"{name.removesuffix('.parquet')}.json"


def describe(shelf: Shelf, written: Written, schema: "pa.Schema", at: datetime) -> None:
    """Write the manifest. Raises OSError."""
    name = manifest_name(written.name)
    told = {
        "format": FORMAT,
        "file": written.name,
        "table": written.table,
        "month": written.month,
        "rows": written.rows,
        "bytes": written.size_bytes,
        "sha256": written.sha256.hex(),
        "revision": written.revision,
        "columns": {field.name: str(field.type) for field in schema},
        "written_at": at.isoformat(),
    }
    with shelf.writing(name) as file:
        file.write(json.dumps(told, indent=2).encode() + b"\n")
    shelf.keep(name)
