"""`wirthforge up`: everything, on one machine, with one command."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from server import VERSION
from server.accounts.users import SETUP_HOURS
from server.app import create_app
from server.cli import placing
from server.cli.catalogue import HUB
from server.cli.models import ModelFile, chosen_files, fetch_missing
from server.cli.options import open_rooms, run, settings_from, settings_options
from server.cli.placing import Spot
from server.cli.serve import WebServer, address, listen
from server.cli.signals import on_signals
from server.clock import Clock, SystemClock
from server.db.migrate import migrate
from server.embedded import key_file, lock
from server.embedded.llama import Llama
from server.embedded.model_cache import offering
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis
from server.embedded.supervisor import Part, PartChanged, Supervisor
from server.engines.configured import engines_from
from server.engines.embedded import Embedded
from server.engines.protocol import Engine
from server.privacy.sealed import new_key, seal_from
from server.settings import Settings
from server.sharing.redis import require_trusted
from server.telemetry import configure_logging

FIRST_ADMIN = "admin"


def tell(text: str) -> None:
    """Show progress. It goes to standard error: standard output is for results."""
    click.echo(text, err=True)


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8000]")
@click.option("--model", "models", multiple=True, help="GGUF path or hf:owner/repo:file.gguf; may be repeated.")
@click.option("--engine", "engines", multiple=True, help="OpenAI-compatible base URL, in place of embedded models.")
@click.option("--database-url", help="Postgres, in place of the embedded one.")
@click.option("--redis-url", help="Redis, in place of the embedded one.")
@settings_options
def up(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Start everything: Postgres, Redis, models, and the server. Ctrl-C stops it all."""
    settings = settings_from(config, **flags)
    configure_logging(settings)
    if not settings.engines:
        fetch_missing(settings)
    run(Up(settings).run())


class Up:
    """One run of the whole box."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock: Clock = SystemClock()
        self._server: WebServer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_stopping = False
        self._name_width = 0

    async def run(self) -> None:
        """Start the parts in order, serve until stopped, stop them in reverse."""
        self._task = asyncio.current_task()
        tell(f"WIRTHFORGE {VERSION}, data in {self._settings.data_dir}")
        with on_signals(self._stop):
            try:
                await self._run()
            except asyncio.CancelledError:
                if not self._is_stopping:
                    raise
        tell("Stopped.")

    def _stop(self) -> None:
        """First signal: end in order. Second: do not wait for answers that are under way."""
        if not self._is_stopping:
            tell("Stopping …")
        if self._server is not None:
            self._server.stop()
        elif not self._is_stopping and self._task is not None:
            self._task.cancel()
        self._is_stopping = True

    async def _run(self) -> None:
        configured = engines_from(self._settings)
        async with AsyncExitStack() as stack:
            # The folder before the port: whoever starts a second server wants to know where the first one is.
            data = stack.enter_context(lock.hold(self._settings.data_dir))
            listening = stack.enter_context(listen(self._settings))
            where = address(self._settings, listening)
            parts, settings = self._databases(_with_key(self._settings))
            models = [] if settings.engines else await self._models()
            # Loaded or not, they may be asked for: nobody prunes them meanwhile.
            stack.enter_context(offering([file.path for file, _, _ in models if not file.is_demonstration]))
            names = ("schema", *(part.name for part in parts), *(llama.name for _, _, llama in models))
            self._name_width = max(len(_shown(name)) for name in names)
            parts += [llama for _, spot, llama in models if spot.is_started]
            supervisor = Supervisor(parts, self._clock, on_change=self._tell_change)
            stack.push_async_callback(supervisor.stop)
            await supervisor.start()
            for _, spot, llama in models:
                if spot.why:
                    self._tell_part(_shown(llama.name), spot.why)
            engines = [self._engine(*model, supervisor) for model in models] or configured
            before, after = await migrate(settings.database_owner_url or settings.database_url)
            if before != after:
                self._tell_part("schema", f"at revision {after}")
            await require_trusted(settings.redis_url)
            setup_link = await self._first_admin(settings, where)
            data.tell(where)
            self._server = WebServer(
                create_app(settings, engines, self._clock), settings, on_started=lambda: _greet(where, setup_link)
            )
            await self._server.run_on(listening)

    def _databases(self, settings: Settings) -> tuple[list[Part], Settings]:
        """Postgres and Redis, as far as they are ours, and the settings with the addresses filled in."""
        parts = list[Part]()
        if not settings.database_url:
            postgres = Postgres(settings.data_dir, self._clock)
            settings = replace(settings, database_url=postgres.url, database_owner_url=postgres.owner_url)
            parts.append(postgres)
        if not settings.redis_url:
            redis = Redis(settings.data_dir, self._clock)
            settings = replace(settings, redis_url=redis.url)
            parts.append(redis)
        return parts, settings

    async def _models(self) -> list[tuple[ModelFile, Spot, Llama]]:
        """The models, where each goes, and the process that serves it."""
        settings = self._settings
        files = chosen_files(settings)
        if any(file.is_demonstration for file in files):
            tell("No model is given: three built-in ones answer questions about this server, and nothing else.")
            tell(f"For a real one: --model PATH or --model {HUB}owner/repo:file.gguf")
        paths = {file.name: file.path for file in files}
        models = placing.wanted(paths, context_tokens=settings.model_context_tokens, slots=settings.model_slots)
        snapshot, seen = await placing.look(self._clock)
        spots = placing.spots(models, snapshot, seen, memory_bytes=settings.models_memory_bytes)
        return [(file, spot, self._llama(file, spot)) for file, spot in zip(files, spots, strict=True)]

    def _llama(self, file: ModelFile, spot: Spot) -> Llama:
        return Llama(
            file.path,
            name=file.name,
            slots=self._settings.model_slots,
            context_tokens=self._settings.model_context_tokens,
            data_dir=self._settings.data_dir,
            clock=self._clock,
            on_cpu=spot.on_cpu,
            environment=spot.environment,
        )

    def _engine(self, file: ModelFile, spot: Spot, llama: Llama, supervisor: Supervisor) -> Engine:
        return Embedded(
            llama.base_url,
            name=file.name,
            slots=self._settings.model_slots,
            context_tokens=self._settings.model_context_tokens,
            silence_ms_max=self._settings.engine_silence_ms_max,
            stall_ms_max=self._settings.engine_stall_ms_max,
            api_key=llama.api_key,
            start=partial(supervisor.begin, llama),
            stop=partial(supervisor.end, llama),
            is_started=spot.is_started,
            is_demonstration=file.is_demonstration,
            memory=spot.memory,
            devices=spot.devices,
        )

    def _tell_change(self, change: PartChanged) -> None:
        self._tell_part(_shown(change.name), "ready" if change.up else f"away: {change.reason}")

    def _tell_part(self, name: str, state: str) -> None:
        tell(f"  {name:<{self._name_width}}  {state}")

    async def _first_admin(self, settings: Settings, where: str) -> str | None:
        """Create the first admin on an empty box; returns their set-up link until they have used one."""
        async with open_rooms(settings) as rooms:
            if not await rooms.users.has_any():
                await rooms.users.add(FIRST_ADMIN, "admin")
            admin = await rooms.users.awaits_first_admin()
            return None if admin is None else f"{where}/setup#{await rooms.users.invite(admin.id)}"


def _with_key(settings: Settings) -> Settings:
    """The settings with an encryption key: their own, else that of the data folder, made once. Raises StartError."""
    if settings.encryption_key:
        seal_from(settings.encryption_key)
        return settings
    key = key_file.read_or_make(settings.data_dir, new_key)
    seal_from(key, f"The file {key_file.path_of(settings.data_dir)}")
    return replace(settings, encryption_key=key)


def _shown(part: str) -> str:
    return part.removeprefix("llama-")


def _greet(where: str, setup_link: str | None) -> None:
    tell("")
    if setup_link is not None:
        tell(f"  Set up  {setup_link}")
        tell(f"          (works once, for {SETUP_HOURS} hours; a new start prints a new one)")
    tell(f"  Open    {where}")
    tell("  Stop    Ctrl-C")
    tell("")
    sys.stderr.flush()
