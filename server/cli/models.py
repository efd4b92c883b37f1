"""`wirthforge models …`, and which model files `up` serves."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from httpx2 import TransportError
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from msgspec import Struct
from msgspec.structs import replace

from server.cli import catalogue, estimates, placing, pruning
from server.cli.catalogue import GB, HUB
from server.cli.options import run, settings_from, settings_options
from server.clock import SystemClock
from server.embedded.gguf_header import check
from server.embedded.model_room import entering, said
from server.embedded.models import DEMONSTRATION
from server.engines.configured import engines_from
from server.errors import EngineFailed, StartError
from server.hardware import headers
from server.hardware.memory import CACHE_BLOCK_BYTES
from server.settings import Settings

HUB_ANSWER_S_MAX = 5
# The hub answers 401 also for what does not exist.
HUB_REFUSALS = frozenset({401, 403, 404})


# What lies beside models without being one: picture encoders, and the later parts of a model in several files.
NO_MODEL = re.compile(r"^mmproj-|-(?!00001)\d{5}-of-\d{5}\.gguf$")


class ModelFile(Struct, frozen=True):
    """A GGUF file to be served under a name."""

    name: str
    path: Path
    is_demonstration: bool = False


def models_dir(settings: Settings) -> Path:
    """Where models lie that `up` serves without being told."""
    return settings.data_dir / "models"


def chosen_files(settings: Settings) -> list[ModelFile]:
    """The models of `up`: those it was told, else those in the models folder, else the built-in ones.

    Raises:
        StartError: a file is not there, cannot be fetched, or two would have one name.
    """
    paths = [_resolve(settings, model) for model in settings.models]
    if not paths and models_dir(settings).is_dir():
        paths = sorted(path for path in models_dir(settings).glob("**/*.gguf") if not NO_MODEL.search(path.name))
    files = [ModelFile(path.stem, path) for path in paths]
    files = files or [ModelFile(path.stem, path, is_demonstration=True) for path in DEMONSTRATION]
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise StartError(f"Two models would be called {name}: rename one of the files.")
    return files


def named_files(settings: Settings) -> list[Path]:
    """Where the models are that the settings name, whether they are there or not."""
    return [
        _hub_file(settings, model) if model.startswith(HUB) else Path(model).expanduser() for model in settings.models
    ]


def _hub_file(settings: Settings, model: str) -> Path:
    repo, _, file = model.removeprefix(HUB).partition(":")
    # By repository: the same file name in another is another model.
    return models_dir(settings) / repo / file


def fetch_missing(settings: Settings) -> None:
    """Fetch what `chosen_files` would, before an event loop runs, so that Ctrl-C ends a long download."""
    for model in settings.models:
        if model.startswith(HUB):
            _fetch(settings, model)


def require_paths(settings: Settings) -> None:
    """Check that models which are given by path are there. Fetches nothing, makes nothing. Raises StartError."""
    for model in settings.models:
        if not model.startswith(HUB):
            _resolve(settings, model)


def _resolve(settings: Settings, model: str) -> Path:
    if model.startswith(HUB):
        return _fetch(settings, model)
    path = Path(model).expanduser()
    if not path.is_file():
        raise StartError(f"There is no model file {path}. Give the path of a GGUF file, or {HUB}owner/repo:file.gguf.")
    check(path)
    return path


def _fetch(settings: Settings, model: str, announce: Callable[[int | None], None] | None = None) -> Path:
    """Fetch a file of the Hugging Face hub, unless it is here already; the library shows its progress bar.

    Args:
        announce: told before a download how many bytes it has, if the hub says so.
    """
    repo, _, file = model.removeprefix(HUB).partition(":")
    if repo.count("/") != 1 or not file.endswith(".gguf"):
        raise StartError(f"{model!r} does not name a model: write {HUB}owner/repo:file.gguf.")
    path = _hub_file(settings, model)
    if path.is_file():
        return path
    try:
        # Asked once by ourselves: when the hub is away, the library would try again for half a minute and more.
        about = get_hf_file_metadata(hf_hub_url(repo, file), timeout=HUB_ANSWER_S_MAX)
        if announce is not None:
            announce(about.size)
        with entering(
            path,
            folder=models_dir(settings),
            reference=model,
            size_bytes=about.size,
            bytes_max=settings.model_cache_bytes_max,
            named=named_files(settings),
            tell=lambda gone: click.echo(said(gone), err=True),
        ):
            return Path(hf_hub_download(repo, file, local_dir=models_dir(settings) / repo))
    except HFValidationError:
        raise StartError(f"{model!r} does not name a model: write {HUB}owner/repo:file.gguf.") from None
    except (TransportError, OSError) as error:
        raise StartError(
            f"{model} cannot be fetched: {_reason(error)}. Copy any GGUF file into {models_dir(settings)}, "
            "pass --model PATH, or use an engine that runs already with --engine URL."
        ) from None


def _reason(error: TransportError | OSError) -> str:
    match error:
        case HfHubHTTPError() if error.response.status_code in HUB_REFUSALS:
            return "the hub has no such file, or shows it only to those with a token (HF_TOKEN)"
        case HfHubHTTPError():
            return f"the hub answers {error.response.status_code}"
        case OSError(strerror=str(reason), filename=str(path)):
            return f"{path}: {reason}"
        case _:
            return "Hugging Face cannot be reached from here"


@click.group()
def models() -> None:
    """Models: list, pull, estimate, place."""


@models.command()
@click.argument("model", required=False)
@click.option("--free-bytes", type=click.IntRange(min=0), help="To compare with, instead of what is free here.")
@settings_options
def pull(model: str | None, *, free_bytes: int | None, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Fetch MODEL (a name of the list, or hf:owner/repo:file.gguf) into the models folder, where `up` finds it.

    Without MODEL: list some that you could take, and whether they fit here. Nothing is fetched for that.
    """
    settings = settings_from(config, **flags)
    if model is None:
        click.echo(catalogue.table(_boxes(free_bytes), settings))
        return
    entry = catalogue.named(model)
    if entry is None and not model.startswith(HUB):
        raise StartError(
            f"{model!r} does not name a model of the hub: write {HUB}owner/repo:file.gguf, "
            "or a name that `wirthforge models pull` lists."
        )
    reference = entry.reference if entry else model

    def announce(size: int | None) -> None:
        click.echo(catalogue.announcement(reference, size, _boxes(free_bytes), settings), err=True)

    click.echo(_fetch(settings, reference, announce))


def _boxes(free_bytes: int | None) -> list[catalogue.Box]:
    found = catalogue.boxes(*run(placing.look(SystemClock())))
    return found if free_bytes is None else [replace(found[0], free_bytes=free_bytes)]


@models.command("list")
@settings_options
def list_(config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """What configured engines list, or the files in the models folder, from which `up` chooses."""
    settings = settings_from(config, **flags)
    if settings.engines:
        click.echo("\n".join(run(_of_engines(settings))))
        return
    files = sorted(models_dir(settings).glob("**/*.gguf"))
    for path in files:
        click.echo(f"{path.stem:<40} {path.stat().st_size / 2**20:8.0f} MiB  {path}")
    if not files:
        names = ", ".join(path.stem for path in DEMONSTRATION)
        click.echo(f"No GGUF files in {models_dir(settings)}: `up` serves the built-in demonstration models ({names}).")


@models.command()
@click.option(
    "--to", "to_bytes", type=pruning.Size(), help="As 20GB or 500MB; 0 for all that may go.  [default: the limit]"
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--also-mine", is_flag=True, help="Also files that you put into the models folder yourself.")
@settings_options
def prune(*, to_bytes: int | None, dry_run: bool, also_mine: bool, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Remove pulled models, the longest unused first, until they are within model_cache_bytes_max, or --to.

    Never one that is in use or named by the settings; what you put into the folder yourself only with --also-mine.
    """
    settings = settings_from(config, **flags)
    limit = settings.model_cache_bytes_max
    if to_bytes is not None and to_bytes > limit:
        raise StartError(f"--to {to_bytes / GB:.1f}GB is more than model_cache_bytes_max allows: {limit / GB:.1f} GB.")
    pruning.prune(
        models_dir(settings),
        limit if to_bytes is None else to_bytes,
        named_files(settings),
        dry_run=dry_run,
        also_theirs=also_mine,
    )


@models.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--context", "context_tokens", type=int, help="Tokens of each slot. Default: as trained, up to 32768.")
@click.option("--slots", type=int, default=1, show_default=True, help="Answers at the same time.")
@click.option("--cache-type", type=click.Choice(list(CACHE_BLOCK_BYTES)), default="f16", show_default=True)
@click.option("--gpu/--cpu", "accelerator", default=None, help="Where it will be; GGUF files: in main memory.")
@click.option("--free-bytes", type=click.IntRange(min=0), help="To compare with; without --gpu: of main memory.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def estimate(path: Path, *, as_json: bool, **choices: Any) -> None:  # noqa: ANN401
    """Say how much memory the model at PATH takes (GGUF file, safetensors folder); nothing is loaded."""
    found = estimates.of(headers.read(path), **choices)
    click.echo(found.json() if as_json else found.table(path.name))


@models.command("place")
@click.argument("paths", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@settings_options
def place_(paths: tuple[Path, ...], config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Say on which device of this machine `up` would put the models at PATHS (GGUF files); nothing is loaded."""
    settings = settings_from(config, **flags)
    files = {path.stem: path for path in paths}
    if len(files) < len(paths):
        raise StartError("Two of these models would have the same name: rename one of the files.")
    wanted = placing.wanted(files, context_tokens=settings.model_context_tokens, slots=settings.model_slots)
    snapshot, seen = run(placing.look(SystemClock()))
    spots = placing.spots(wanted, snapshot, seen, memory_bytes=settings.models_memory_bytes)
    click.echo(placing.table(spots, snapshot))


async def _of_engines(settings: Settings) -> list[str]:
    lines = []
    engines = engines_from(settings)
    for engine, listed in zip(
        engines, await asyncio.gather(*(engine.probe() for engine in engines), return_exceptions=True), strict=True
    ):
        if isinstance(listed, EngineFailed):
            lines.append(listed.message)
        elif isinstance(listed, BaseException):
            raise listed
        else:
            lines += [f"{model.id:<40} {engine.name}" for model in listed]
        await engine.close()
    return lines
