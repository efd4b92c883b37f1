"""Runs the `wirthforge` command as people do: as a program, in a folder of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]
# The revision of the newest migration.
NEWEST = max(
    re.findall(
        r'^revision = "(\d+)"',
        "".join(path.read_text() for path in (REPOSITORY / "migrations" / "versions").glob("*.py")),
        re.MULTILINE,
    )
)
COMMAND = [sys.executable, "-m", "server"]
ENDS_S_MAX = 30


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Ours, without settings that the test does not know of."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WIRTHFORGE_", "HF_")) and name not in {"DATABASE_URL", "REDIS_URL"}
    }
    return {
        **kept,
        "HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # What engines are asked is what tests ask them.
        "WIRTHFORGE_CALIBRATES": "false",
        **settings,
    }


class House:
    """A data folder, and commands that work on it.

    Attributes:
        data: what is passed as --data-dir.
        home: the working folder and $HOME.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"

    def run(
        self,
        *words: str,
        stdin: str | bytes = "",
        settings: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        done = subprocess.run(  # noqa: S603 (our own program)
            [*COMMAND, *words, "--data-dir", str(self.data)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            check=False,
            cwd=self.home,
            env=environment(self.home, **(settings or {})),
            timeout=ENDS_S_MAX,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ask(self, *words: str, **options: Any) -> str:
        """Run a command that must succeed; what it prints."""
        done = self.run(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    def refusal(self, *words: str, **options: Any) -> str:
        """Run a command that must fail; its one sentence, which is the last thing that it says."""
        done = self.run(*words, **options)
        *progress, last = done.stderr.splitlines()
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        assert last.startswith("wirthforge: ")
        assert not any(line.startswith("wirthforge:") for line in progress)
        return last.removeprefix("wirthforge: ")

    def start(self, *words: str, **settings: str) -> "Server":
        """Start a server, and read what it says until it is open."""
        return Server(self, words or ("up", "--port", "0"), settings)


class Server:
    """A running `up` or `serve`.

    Attributes:
        lines: what it has said so far.
    """

    def __init__(self, house: House, words: tuple[str, ...], settings: Mapping[str, str]) -> None:
        self._program = subprocess.Popen(  # noqa: S603 (our own program)
            [*COMMAND, *words, "--data-dir", str(house.data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=house.home,
            env=environment(house.home, **settings),
        )
        assert self._program.stderr is not None
        self.lines: list[str] = []
        # The end of the pipe ends this, should the server not start.
        for line in self._program.stderr:
            self.lines.append(line.rstrip("\n"))
            if "Open " in line or "Serving on" in line:
                break
        assert self.is_running, "\n".join(self.lines)

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._program.poll() is None

    @property
    def url(self) -> str:
        """Where it said that it can be reached."""
        return self.lines[-1].split()[-1]

    @property
    def setup_link(self) -> str | None:
        """The link for the first admin, if it printed one."""
        return next((line.split()[-1] for line in self.lines if "Set up " in line), None)

    def family(self) -> list[psutil.Process]:
        """Its process and all that it started."""
        parent = psutil.Process(self._program.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self, number: signal.Signals = signal.SIGINT, *, within_s: float = 10) -> int:
        """Signal it and wait until it has ended; its exit status."""
        if self.is_running:
            self._program.send_signal(number)
        out, err = self._program.communicate(timeout=within_s)
        assert out == ""
        self.lines += err.splitlines()
        return self._program.returncode

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.is_running:
            family = self.family()
            self._program.kill()
            self._program.communicate()
            psutil.wait_procs(family, timeout=10)
