"""nginx and HAProxy with the files that users take (docs/proxies), in front of servers."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.stage import clock, free_port

FILES = Path(__file__).parents[2] / "docs" / "proxies"
KINDS = ("nginx", "haproxy")
# Where Debian puts them, which is not on everybody's path.
PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
ADDRESSES = ("10.0.0.11:8000", "10.0.0.12:8000", "10.0.0.13:8000")
START_MS_MAX = 10_000
# What surrounds a file of conf.d: Debian's nginx.conf, as far as it matters, and nothing outside of the folder.
AROUND = """
daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/wirthforge.conf;
}}
"""


def found(kind: str) -> str | None:
    """Where the program is."""
    return shutil.which(kind, path=PLACES)


def configured(kind: str, servers: Sequence[str], port: int, changes: dict[str, str] | None = None) -> str:
    """The users' file, with addresses of servers and a port of its own."""
    text = (FILES / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[kind]).read_text()
    # Every line with an address is one server; there may be fewer.
    lines = []
    for line in text.splitlines():
        known = next((number for number, address in enumerate(ADDRESSES) if address in line), None)
        if known is None:
            lines.append(line)
        elif known < len(servers):
            lines.append(line.replace(ADDRESSES[known], servers[known]))
    text = "\n".join(lines) + "\n"
    for before, after in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "bind :80": f"bind 127.0.0.1:{port}",
        **(changes or {}),
    }.items():
        text = text.replace(before, after)
    return text


@asynccontextmanager
async def proxy(
    kind: str, folder: Path, servers: Sequence[str], changes: dict[str, str] | None = None
) -> AsyncIterator[str]:
    """Run one on a free port until the block ends; gives its URL.

    Args:
        folder: an empty one, for its files.
        servers: as host:port.
        changes: texts of the file, and what stands there instead.
    """
    program, port = found(kind), free_port()
    assert program is not None
    text = configured(kind, servers, port, changes)
    if kind == "nginx":
        (folder / "wirthforge.conf").write_text(text)
        user = "user root root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
        arguments = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]
    else:
        (folder / "haproxy.cfg").write_text(text)
        arguments = ["-db", "-f", str(folder / "haproxy.cfg")]
    with (folder / "said").open("wb") as said:
        running = await asyncio.create_subprocess_exec(program, *arguments, stdout=said, stderr=subprocess.STDOUT)
        try:
            await _until_up(f"http://127.0.0.1:{port}", folder)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            await running.wait()


async def _until_up(url: str, folder: Path) -> None:

    deadline_ms = clock.monotonic_ms() + START_MS_MAX
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"{url}/health")).status_code == 200:  # noqa: PLR2004, RUF100 (OK)
                    return
            except httpx.TransportError:
                pass
            assert clock.monotonic_ms() < deadline_ms, (folder / "said").read_text()
            await clock.sleep_ms(50)
