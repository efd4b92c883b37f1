"""The folder in which Postgres keeps its rows: what state it is in, making it, and whoever still holds it.

A folder that has its name is complete. initdb works in a sibling, NAME.part, which gets the name when initdb has ended
well and has written everything through to the disk; that costs about 0.1 s once, and without it a power cut in the
first minute could leave pages that no checkpoint ever visits. So a half-made folder under the final name was made by
something else, and we touch nothing in it.

Text is compared by Postgres' own C.UTF-8, not by the operating system's: indexes then survive an upgrade of libc, and a
backup from a laptop sorts the same in the cupboard.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from server.clock import Clock
from server.embedded.binaries import postgres_bin
from server.embedded.child import POLL_MS, Child
from server.errors import StartError

MAJOR = "18"
SUPERUSER = "postgres"
INITDB_MS_MAX = 120_000
# An orphan gets so long for its fast shutdown, and again for being killed.
ORPHAN_MS_MAX = 10_000
# macOS: a Postgres with no locale becomes multi-threaded while it starts, and refuses.
ENVIRONMENT = {"LC_ALL": "C"}
RECOVER = "Move it away to start with no rows, or restore a backup of it."


def is_made(folder: Path) -> bool:
    """Whether `folder` holds a cluster of our major version; False when there is nothing in it.

    Raises:
        StartError: it holds something else.
    """
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return False
        version, control = folder / "PG_VERSION", folder / "global" / "pg_control"
        major = version.read_text(errors="replace").strip() if version.is_file() else ""
        whole = major.isdecimal() and control.is_file() and control.stat().st_size > 0
    except OSError as error:
        raise StartError(f"The Postgres folder {folder} cannot be read: {error.strerror}.") from None
    if not whole:
        raise StartError(f"The Postgres folder {folder} is incomplete (no valid PG_VERSION or pg_control). {RECOVER}")
    if major != MAJOR:
        raise StartError(
            f"The Postgres folder {folder} was written by Postgres {major}, and this is Postgres {MAJOR}: "
            f"dump it with Postgres {major} and load it here. {RECOVER}"
        )
    return True


async def make(folder: Path, child: Child) -> None:
    """Run initdb by way of `child`; afterwards `folder` is a cluster. See the module's docstring.

    Raises:
        StartError: initdb failed.
    """
    part = folder.with_name(f"{folder.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        await child.launch(
            [
                *[str(postgres_bin("initdb")), "-D", str(part), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"],
                *["--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"],
            ],
            ENVIRONMENT,
        )
        try:
            status = await child.exited_within(INITDB_MS_MAX)
        finally:
            await child.stop()
        if status != 0:
            raise child.failure("could not make its folder")
        part.rename(folder)
    except OSError as error:
        raise StartError(f"The Postgres folder {folder} cannot be made: {error.strerror}.") from None


def recorded_pid(folder: Path) -> int | None:
    """The process id in postmaster.pid, which a Postgres that was killed leaves behind."""
    try:
        first = (folder / "postmaster.pid").read_text().splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return int(first) if first.strip().isdecimal() else None


async def end_orphan(folder: Path, clock: Clock) -> None:
    """End the Postgres that still runs on `folder`, if one does. We hold the data folder's lock, so nobody needs it.

    Raises:
        StartError: it does not end.
    """
    pid = recorded_pid(folder)
    if pid is None:
        return
    for asked in (signal.SIGINT, signal.SIGKILL):
        deadline_ms = clock.monotonic_ms() + ORPHAN_MS_MAX
        if _runs_on(pid, folder):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, asked)
        while _runs_on(pid, folder) and clock.monotonic_ms() < deadline_ms:
            await clock.sleep_ms(POLL_MS)
    if _runs_on(pid, folder):
        raise StartError(f"Another Postgres (pid {pid}) uses {folder} and does not end: end it.")


def _runs_on(pid: int, folder: Path) -> bool:
    """Whether the process is a Postgres on `folder`. A zombie has no command line any more, so it is none."""
    command = _command_line(pid)
    return "postgres" in command.split(" -D ", 1)[0] and str(folder) in command


def _command_line(pid: int) -> str:
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    found = subprocess.run(  # noqa: S603 (milliseconds, once per start, and only after a kill)
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout
