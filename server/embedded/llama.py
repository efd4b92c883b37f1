"""llama.cpp, one process per model.

A fault in an engine (out of memory, an assertion in a kernel) ends its process; in a process of its own it ends nothing
else, and the supervisor starts it again. The port and the key stay the same over restarts, so whoever holds the address
need not learn a new one.

Every local user can connect to a port on the loopback interface, so the engine answers only to a random key, which
travels in the environment: a command line is for everybody to read. And while the engine does not run, everybody could
take its port: so it counts as started only when whoever listens there has our user number.
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import server
from server.clock import Clock
from server.embedded.child import Child
from server.embedded.gguf_header import check
from server.embedded.llama_program import KEY_VARIABLE
from server.embedded.model_records import mark_used
from server.embedded.paths import private_dir
from server.errors import StartError

HOST = "127.0.0.1"
# A 70 GB file from a slow disk.
LOAD_MS_MAX = 600_000
GRACE_MS_MAX = 5_000
KEY_BYTES = 32
STATUS_LINE_BYTES_MAX = 1024
ERROR_MARK = " E "
TCP = Path("/proc/net/tcp")
LISTENING = "0A"


class Llama:
    """A part (see supervisor.py): one model behind llama.cpp's OpenAI-compatible HTTP server."""

    def __init__(  # noqa: PLR0913 (all by name, most with a default)
        self,
        path: Path,
        *,
        name: str,
        slots: int,
        context_tokens: int,
        data_dir: Path,
        clock: Clock,
        embeddings: bool = False,
        on_cpu: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the engine; nothing starts yet.

        Args:
            path: the model, a GGUF file.
            name: what the engine calls its model; also the name of its log (llama-NAME).
            slots: answers that may grow at the same time.
            context_tokens: tokens that each slot can hold, prompt and answer together.
            data_dir: the data folder, whose lock the caller holds.
            clock: measures waiting, and says when the model was used last.
            embeddings: also serve /v1/embeddings. Prompts of these must fit one batch, so it takes more memory.
            on_cpu: no layer goes to a GPU, also where there is one.
            environment: variables that tell llama.cpp which devices there are (llama_devices.py).
        """
        self.name = f"llama-{_file_name(name)}"
        self.api_key = secrets.token_urlsafe(KEY_BYTES)
        self._path = path
        self._model_name = name
        self._slots = slots
        self._context_tokens = context_tokens
        self._data_dir = data_dir.resolve()
        self._embeddings = embeddings
        self._on_cpu = on_cpu
        self._clock = clock
        self._visible = dict(environment or {})
        self._port: int | None = None
        self._child = Child(self.name, data_dir=self._data_dir, clock=clock, grace_ms_max=GRACE_MS_MAX)

    @property
    def base_url(self) -> str:
        """Where its OpenAI-compatible interface is; the same from the first start on."""
        if self._port is None:
            self._port = _free_port()
        return f"http://{HOST}:{self._port}/v1"

    async def start(self) -> None:
        """Return when the model is loaded and can answer; that may take minutes.

        Raises:
            StartError: the file is missing, is no model, or cannot be loaded; nothing is left running.
        """
        check(self._path)
        await self._child.launch(self._command(), self._environment())
        try:
            await self._child.until(self._ready, start_ms_max=LOAD_MS_MAX)
        except StartError as error:
            complaint = next((line for line in self._child.last_lines(50) if ERROR_MARK in line), None)
            if complaint is None:
                raise
            reason = complaint.partition(ERROR_MARK)[2].strip()
            raise StartError(f"The model {self._path} cannot be loaded: {reason}") from error
        self._put_down_use()

    async def exited(self) -> int:
        """Wait until the engine has ended; its exit status."""
        return await self._child.exited()

    async def stop(self) -> None:
        """End the engine; answers in mid-stream are cut."""
        if self._child.pid is not None:
            self._put_down_use()
        await self._child.stop()

    def _put_down_use(self) -> None:
        mark_used(self._data_dir / "models", self._path, self._clock.now())

    def _command(self) -> list[str]:
        assert self.base_url, "choosing the port"
        saved = private_dir(private_dir(self._data_dir / "run") / "slots")
        return [
            *[sys.executable, "-P", "-m", "server.embedded.llama_program"],
            *["--model", str(self._path.resolve()), "--name", self._model_name],
            *["--slots", str(self._slots), "--context", str(self._context_tokens)],
            *["--port", str(self._port), "--slots-folder", str(saved)],
            *(["--embeddings"] if self._embeddings else []),
            *(["--on-cpu"] if self._on_cpu else []),
        ]

    def _environment(self) -> dict[str, str]:
        # -P keeps the working folder out of the search path, so ours is named.
        ours = str(Path(server.__file__).parents[1])
        paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**self._visible, KEY_VARIABLE: self.api_key, "PYTHONPATH": os.pathsep.join(paths)}

    async def _ready(self) -> bool:
        """Whether /health says so: 503 while it loads. By hand, because a client library would be most of this file."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port, limit=STATUS_LINE_BYTES_MAX)
        except OSError:
            return False
        try:
            writer.write(f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in await reader.readline() and _is_ours(self._port)
        except OSError:
            return False
        finally:
            writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ours(port: int | None) -> bool:
    """Whether nobody else listens on the port; true where the kernel does not tell (macOS).

    /proc/net/tcp: local address, state (0A is listening) and uid are fields 1, 3 and 7 (Linux' proc_net_tcp.txt).
    """
    try:
        rows = [line.split() for line in TCP.read_text().splitlines()[1:]]
    except OSError:
        return True
    owners = {int(row[7]) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == LISTENING}
    return owners == {os.geteuid()}


def _file_name(name: str) -> str:
    """A model's name may hold slashes and colons; a log's may not."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)
