"""`wirthforge serve`: the server alone, and the web server that `up` shares with it."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import click
import uvicorn

from server.api.connections import bounded_http
from server.api.scope import RequestScopes
from server.app import create_app
from server.cli.closing import let_in
from server.cli.options import run, settings_from, settings_options
from server.cli.signals import on_signals
from server.clock import SystemClock
from server.db.migrate import require_newest
from server.engines.configured import engines_from
from server.errors import StartError
from server.privacy.sealed import seal_from
from server.settings import Settings
from server.sharing.redis import require_trusted
from server.telemetry import configure_logging

BACKLOG = 2048
# Browsers only listen.
WEBSOCKET_BYTES_MAX = 4096
# Longer than proxies keep a connection that nobody uses (nginx: 60 s, HAProxy: 5 s). So it is they who close it, and
# never send a request into one that we have just closed.
KEEP_ALIVE_S = 75
# Ports and addresses that a user without rights may not have, and such that do not exist here.
SENTENCES = {
    errno.EADDRINUSE: "is taken: stop what uses it, or choose another with --port or WIRTHFORGE_PORT",
    errno.EACCES: "needs rights that this user does not have: choose one above 1023 with --port",
    errno.EADDRNOTAVAIL: "is no address of this machine: choose another with --host",
}


def listen(settings: Settings) -> socket.socket:
    """Take the port before anything else is started. It opens when the server is ready for requests (`run_on`).

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
    except OSError as error:
        taken.close()
        raise _unusable(error, settings.host, settings.port) from None
    taken.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return taken


def _unusable(error: OSError, host: str, port: int) -> StartError:
    sentence = SENTENCES.get(error.errno or 0, f"cannot be used ({error.strerror})")
    return StartError(f"Port {port} on {host} {sentence}.")


def address(settings: Settings, listening: socket.socket) -> str:
    """What to type into a browser."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = settings.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 (asked, not bound)
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def _is_open(listening: socket.socket) -> bool:
    with suppress(OSError):
        return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


class WebServer(uvicorn.Server):
    """uvicorn, with its signals left to us: it would raise them once more at its end, while we clean up.

    How it ends, so that behind a proxy no request fails that had not begun (docs/replicas.md):

        asked to     /readyz says 503 and answers end their connections, but everybody is served: proxies look away
        the delay    is over, or it was asked again: who has connected is let in, the port is closed, idle connections
                     and websockets are closed (1012: come again); what runs or waits in the queue goes on
        the grace    is over, or it was asked once more: streams end with an error, who still waits gets a 503
    """

    def __init__(self, app: RequestScopes, settings: Settings, *, on_started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                cast("Any", app),  # Litestar's and uvicorn's ASGI types differ in name only
                http=cast("Any", bounded_http()),  # makes connections as a class does
                ws="websockets-sansio",
                ws_max_size=WEBSOCKET_BYTES_MAX,
                lifespan="on",
                backlog=BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=True,
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.shutdown_grace_ms // 1000,
            )
        )
        self._on_started = on_started
        self._ending = app.ending
        self._delay_ms = settings.shutdown_delay_ms

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, and tell that requests can come. Raises StartError where somebody else has just opened it."""
        names = [listening.getsockname()[:2] for listening in sockets or ()]
        fault: OSError | None = None
        try:
            await super().startup(sockets)
        except OSError as error:
            fault = error
        # uvloop (0.23) does not tell: it closes the socket.
        if fault or not all(map(_is_open, sockets or ())):
            await self.lifespan.shutdown()
            raise _unusable(fault or OSError(errno.EADDRINUSE, ""), *names[0])
        if self.started:
            self._on_started()

    def stop(self) -> None:
        """Ask to end; asked again, end the delay, then the grace."""
        if self.should_exit:
            self.force_exit = True
        elif self._delay_ms == 0 or self._ending.has_begun:
            self._close()
        else:
            self._ending.has_begun = True
            asyncio.get_running_loop().call_later(self._delay_ms / 1000, self._close)

    def _close(self) -> None:
        self._ending.has_begun = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and let what runs come to its end."""
        for listening in sockets or ():
            await let_in(listening, SystemClock())
        await super().shutdown(sockets)

    async def run_on(self, listening: socket.socket) -> None:
        """Serve until stopped. Raises StartError when the application does not start."""
        await self.serve([listening])
        if not self.started:
            raise StartError("The server did not start; its log says why.")


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8000]")
@click.option("--engine", "engines", multiple=True, help="OpenAI-compatible base URL; may be repeated.")
@click.option("--database-url", help="Postgres.")
@click.option("--redis-url", help="Redis.")
@settings_options
def serve(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Serve without embedded parts: Postgres, Redis and engines are given by URL.

    Engines may also be added later, on the page Engines.
    """
    settings = settings_from(config, **flags)
    needed = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise StartError(f"`serve` needs {', '.join(missing)}. (`up` brings its own parts.)")
    seal_from(settings.encryption_key)
    configure_logging(settings)
    run(_serve(settings))


async def _serve(settings: Settings) -> None:
    engines = engines_from(settings)
    listening = listen(settings)
    await require_newest(settings.database_url)
    await require_trusted(settings.redis_url)
    app = create_app(settings, engines)
    where = address(settings, listening)
    if not engines:
        click.echo(f"The settings name no engine: those that an admin adds at {where}/engines serve.", err=True)
    server = WebServer(app, settings, on_started=lambda: click.echo(f"Serving on {where}", err=True))
    with on_signals(server.stop):
        await server.run_on(listening)
