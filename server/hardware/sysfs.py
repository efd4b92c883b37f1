"""Reading Linux' small text files, each of which may be missing, forbidden, empty or in bytes that are no text."""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from server.hardware.devices import Absent

TEXT_BYTES_MAX = 1 << 20
NUMBER = re.compile(r"-?[0-9]{1,19}")
NUMBER_MAX = (1 << 63) - 1


def read_text(path: Path) -> str:
    """The file without its last newline. Raises Absent with the reason."""
    try:
        with path.open("rb") as file:
            return file.read(TEXT_BYTES_MAX).decode(errors="replace").replace("\0", "").strip()
    except OSError as error:
        raise Absent(f"{path.name}: {error.strerror or type(error).__name__}") from None


def text_or_none(path: Path) -> str | None:
    """The file's text; None where it cannot be read or is empty."""
    try:
        return read_text(path) or None
    except Absent:
        return None


def number_or_none(path: Path) -> int | None:
    """The number in the file; None where there is none."""
    try:
        return read_number(path)
    except Absent:
        return None


def host_mark(proc: Path) -> str:
    """What tells this host's devices from those of another that uses the same database.

    From the host's name, hashed, as it is nobody's business.
    """
    name = text_or_none(proc / "sys" / "kernel" / "hostname") or "host"
    return sha256(name.encode()).hexdigest()[:12]


def read_number(path: Path) -> int:
    """The whole number in the file. Raises Absent, also where it holds none that is plausible (0 .. 2^63)."""
    text = read_text(path)
    if not NUMBER.fullmatch(text) or not 0 <= int(text) <= NUMBER_MAX:
        raise Absent(f"{path.name} holds no number")
    return int(text)


def numbered(folder: Path, prefix: str) -> Iterator[Path]:
    """Entries like card0 and card10, by number; none where there is no such folder."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,6})")
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return
    for _, path in sorted(found):
        yield path


def uevent(folder: Path) -> dict[str, str]:
    """The KEY=value lines by which the kernel describes a device; empty where there are none."""
    try:
        lines = read_text(folder / "uevent").splitlines()
    except Absent:
        return {}
    return {key: value for key, found, value in (line.partition("=") for line in lines) if found}


def numa_node(folder: Path) -> int | None:
    """The device's NUMA node; the kernel writes -1 where it knows none."""
    return number_or_none(folder / "numa_node")
