"""An installation: a data folder, servers that run on it, and a shell in which the page's steps are typed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from server.clock import SystemClock
from server.embedded.models import DEMONSTRATION
from tests.cli.programs import COMMAND, environment
from tests.operations.page import Command, missing, step

# Far more than they take: other tests may run beside these.
STEP_S_MAX = 120
START_S_MAX = 120
WRITTEN_MS_MAX = 30_000
POLL_MS = 50
PASSWORD = "correct horse battery"
MODEL = "wirthforge-small"
# Short, since sockets lie in it; in memory where there is room, since Postgres waits for the disk.
MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of ours is made in it)
MEMORY_BYTES_MIN = 2 * 2**30


def place() -> str | None:
    """Where installations are made."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    return str(MEMORY) if in_memory else "/tmp"  # noqa: S108 (mkdtemp makes a folder of its own there)


class Up:
    """A running `wirthforge up`. What it says is read as it comes."""

    def __init__(self, words: list[str], home: Path, variables: Mapping[str, str]) -> None:
        self._program = subprocess.Popen(  # noqa: S603 (our own program)
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
            env=dict(variables),
        )
        self.lines: list[str] = []
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._program.stderr is not None
        with self._program.stderr as said:
            for line in said:
                with self._heard:
                    self.lines.append(line.rstrip("\n"))
                    self._heard.notify_all()
        # Else it would be there, for those who look for its number, as long as the test lives.
        self._program.wait()
        with self._heard:
            self._heard.notify_all()

    def until(self, words: str, *, after: int = 0) -> str:
        """Wait for a line with these words, beyond the first `after` lines; that line."""

        def found() -> str | None:
            return next((line for line in self.lines[after:] if words in line), None)

        with self._heard:
            self._heard.wait_for(lambda: found() or self.has_ended, START_S_MAX)
            line = found()
        assert line is not None, "\n".join(self.lines)
        return line

    @property
    def has_ended(self) -> bool:
        """Whether it does not run any more."""
        return self._program.returncode is not None

    @property
    def url(self) -> str:
        """Where it said that it can be reached."""
        return self.until("  Open ").split()[-1]

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._program.pid

    def part(self, words: str) -> psutil.Process:
        """The program that it has started whose command line holds these words, and which is no leash."""
        (found,) = (
            child
            for child in psutil.Process(self.pid).children(recursive=True)
            if words in " ".join(child.cmdline()) and "leash.py" not in " ".join(child.cmdline()) and _is_first(child)
        )
        return found

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """Signal it, and wait until all of it has ended."""
        if not self.has_ended:
            family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
            self._program.send_signal(number)
            self._listener.join(STEP_S_MAX)
            psutil.wait_procs(family[1:], timeout=10)
        assert self.has_ended


def _is_first(child: psutil.Process) -> bool:
    """Whether it is no worker of another one that is called like it."""
    parent = child.parent()
    return parent is None or parent.cmdline()[:1] != child.cmdline()[:1] or "leash.py" in " ".join(parent.cmdline())


class Installation:
    """A home folder with everything that somebody who looks after a box has.

    Attributes:
        home: where commands are typed.
        data: the data folder.
        own: what stands on the page, and what this box has in its place.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.data = home / "data"
        self.own: dict[str, str] = {}
        self._up: Up | None = None
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._admin = ""

    @property
    def up(self) -> Up:
        """The server that runs, or ran last."""
        assert self._up is not None
        return self._up

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def variables(self) -> dict[str, str]:
        """The shell's, as the page's first block sets them; and what is the test's."""
        return environment(
            self.home,
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            WIRTHFORGE_DATA_DIR=str(self.data),
            WIRTHFORGE_PORT=str(self._port),
            # The page's steps run upkeep; the server's own would come in between.
            **{"WIRTHFORGE_UPKEEPS": "false", "WIRTHFORGE_MODELS": str(_small()), **self._settings},
            DATA=str(self.data),
            BOX=self.url,
            ADMIN=self._admin,
        )

    def type(self, words: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell to its end; both of its outputs, as somebody sees them."""
        with subprocess.Popen(  # noqa: S603 (what is on our own page)
            ["/bin/bash", "-c", words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env=self.variables,
            start_new_session=True,
        ) as shell:
            try:
                printed, _ = shell.communicate(timeout=STEP_S_MAX)
            except BaseException:
                # What the shell has started, too.
                os.killpg(shell.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(words, shell.returncode, printed)

    def ask(self, words: str) -> str:
        """Run a line that must succeed; what it prints."""
        done = self.type(words)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def do(self, name: str) -> None:
        """Follow the page's step of this name."""
        for command in step(name).commands():
            self._obey(command.with_own(self.own))

    def _obey(self, command: Command) -> None:
        if command.words.split("#")[0].split() == ["wirthforge", "up"]:
            printed, status = "\n".join(self.start().lines), 0
        else:
            done = self.type(command.words)
            printed, status = done.stdout, done.returncode
        absent = missing(command.output, printed)
        assert not absent, f"$ {command.words}\nprinted:\n{printed}\nand not, in this order: {absent}"
        assert status == (1 if command.fails else 0), f"$ {command.words}\nexit status {status}\n{printed}"

    def start(self) -> Up:
        """Run `wirthforge up`, and wait until it can be used."""
        assert self._up is None or self._up.has_ended
        self._up = Up(["up"], self.home, self.variables)
        self._up.until("  Stop ")
        return self._up

    def close(self) -> None:
        """End what runs."""
        if self._up is not None:
            self._up.end(signal.SIGKILL)

    def add_admin(self, name: str) -> None:
        """Somebody with a password and a key, which is the shell's from now on."""
        self.ask(f"echo '{PASSWORD}' | wirthforge user add {name} --role admin --password-stdin")
        self._admin = self.ask(f"wirthforge key create --user {name}")

    def http(self, key: str | None = None) -> httpx.Client:
        """A client of the server, with the admin's key or another one."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key or self._admin}"}, timeout=STEP_S_MAX
        )

    def chat(self, key: str | None = None) -> httpx.Response:
        """Ask the model something."""
        with self.http(key) as client:
            question = [{"role": "user", "content": "Who comes first?"}]
            body = {"model": MODEL, "messages": question, "max_tokens": 3}
            return client.post("/v1/chat/completions", json=body)

    def tokens(self) -> int:
        """What usage tells of all requests together."""
        with self.http() as client:
            rows = client.get("/api/usage").json()
        return sum(row["input_tokens"] + row["output_tokens"] for row in rows)

    async def tokens_beyond(self, tokens: int) -> int:
        """The same, as soon as it is more than that: usage is written a moment after an answer."""
        clock = SystemClock()
        deadline_ms = clock.monotonic_ms() + WRITTEN_MS_MAX
        while (told := self.tokens()) <= tokens:
            assert clock.monotonic_ms() < deadline_ms, f"{told} tokens, and no more"
            await clock.sleep_ms(POLL_MS)
        return told


def _small() -> Path:
    (found,) = (path for path in DEMONSTRATION if path.stem == MODEL)
    return found


@contextmanager
def installation(**settings: str) -> Iterator[Installation]:
    """An empty one, which is gone after the block with all that runs in it."""
    home = Path(tempfile.mkdtemp(prefix="wf-", dir=place()))
    made = Installation(home, **settings)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(home)
