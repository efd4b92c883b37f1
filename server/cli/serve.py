"""`wirthforge serve`: the server alone, and the web server that `up` shares with it."""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click
import uvicorn
from litestar.types import ASGIApp

from server.app import create_app
from server.cli.options import run, settings_from, settings_options
from server.db.migrate import require_newest
from server.engines.configured import engines_from
from server.errors import StartError
from server.privacy.sealed import seal_from
from server.settings import Settings
from server.telemetry import configure_logging

BACKLOG = 2048
# Browsers only listen.
WEBSOCKET_BYTES_MAX = 4096
# Ports and addresses that a user without rights may not have, and such that do not exist here.
SENTENCES = {
    errno.EADDRINUSE: "is taken: stop what uses it, or choose another with --port or WIRTHFORGE_PORT",
    errno.EACCES: "needs rights that this user does not have: choose one above 1023 with --port",
    errno.EADDRNOTAVAIL: "is no address of this machine: choose another with --host",
}


def listen(settings: Settings) -> socket.socket:
    """Take the port before anything else is started.

    Raises:
        StartError: it cannot be had; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartError(f"The host {settings.host!r} is not known: {error.strerror}.") from None
    taken = socket.socket(family, kind, protocol)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        sentence = SENTENCES.get(error.errno or 0, f"cannot be used ({error.strerror})")
        raise StartError(f"Port {settings.port} on {settings.host} {sentence}.") from None
    taken.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return taken


def address(settings: Settings, listening: socket.socket) -> str:
    """What to type into a browser."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = settings.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 (asked, not bound)
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


class WebServer(uvicorn.Server):
    """uvicorn, with its signals left to us: it would raise them once more at its end, while we clean up."""

    def __init__(self, app: ASGIApp, settings: Settings, *, on_started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                cast("Any", app),  # Litestar's and uvicorn's ASGI types differ in name only
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=WEBSOCKET_BYTES_MAX,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=True,
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_graceful_shutdown=settings.shutdown_grace_ms // 1000,
            )
        )
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell when the first request can come."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def stop(self) -> None:
        """Ask to end; asked twice, end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def run_on(self, listening: socket.socket) -> None:
        """Serve until stopped. Raises StartError when the application does not start."""
        await self.serve([listening])
        if not self.started:
            raise StartError("The server did not start; its log says why.")


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on Ctrl-C, on being asked to end, and when the terminal closes."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8000]")
@click.option("--engine", "engines", multiple=True, help="OpenAI-compatible base URL; may be repeated.")
@click.option("--database-url", help="Postgres.")
@click.option("--redis-url", help="Redis.")
@settings_options
def serve(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Serve without embedded parts: Postgres, Redis and engines are given by URL."""
    settings = settings_from(config, **flags)
    needed = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "--engine": settings.engines,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise StartError(f"`serve` needs {', '.join(missing)}. (`up` brings its own parts.)")
    seal_from(settings.encryption_key)
    configure_logging(settings)
    run(_serve(settings))


async def _serve(settings: Settings) -> None:
    listening = listen(settings)
    await require_newest(settings.database_url)
    app = create_app(settings, engines_from(settings))
    where = address(settings, listening)
    server = WebServer(app, settings, on_started=lambda: click.echo(f"Serving on {where}", err=True))
    with on_signals(server.stop):
        await server.run_on(listening)
