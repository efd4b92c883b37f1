"""Every setting, with its default and what it is for.

A setting comes, strongest first, from a command-line flag, the environment (`WIRTHFORGE_PORT`; also the customary
`DATABASE_URL` and `REDIS_URL`), `wirthforge.toml`, or the default below. docs/settings.md lists them all, and a test
holds the two together. Lists are written with commas in the environment.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from server.errors import StartError

ENVIRONMENT_PREFIX = "WIRTHFORGE_"
CUSTOMARY_NAMES = {
    "DATABASE_URL": "database_url",
    "DATABASE_OWNER_URL": "database_owner_url",
    "REDIS_URL": "redis_url",
}
LISTS = ("engines", "engine_keys", "models", "costs")
SECRETS = ("database_url", "database_owner_url", "redis_url", "encryption_key", "engine_keys")

_POSTGRES = ("postgresql", "postgres")
URLS = {
    "database_url": _POSTGRES,
    "database_owner_url": _POSTGRES,
    "redis_url": ("redis", "rediss", "unix"),
    "traces_url": ("http", "https"),
}

Positive = Annotated[int, Meta(ge=1)]
Days = Annotated[int, Meta(ge=0, le=36_500)]


def default_data_dir() -> Path:
    """Where data lives unless told otherwise: /var/lib for root, else the XDG data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/wirthforge")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "wirthforge"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an installation may choose."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    # What people type to reach the server, if a proxy stands before it (https://box.home.example).
    public_url: str = ""
    # Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    trusted_proxies: str = "127.0.0.1"
    data_dir: Path = msgspec.field(default_factory=default_data_dir)

    # Empty: the embedded part (`up`).
    database_url: str = ""
    # The role that owns the tables, for migrations and upkeep; empty: database_url. See docs/isolation.md.
    database_owner_url: str = ""
    redis_url: str = ""
    database_connections_max: Positive = 10
    # The server looks after its tables by itself; off where a job of its own does it.
    upkeeps: bool = True
    # Messages older than this go from Postgres into files in the data folder, and come back when they are opened.
    archive_after_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    # 32 bytes as base64, which seal the keys of cloud providers; a second one after a comma opens older seals.
    encryption_key: str = ""
    # For how many days other things are kept; 0: for ever. Sums of usage are never removed. See docs/upkeep.md.
    usage_keep_days: Days = 400
    council_runs_keep_days: Days = 400
    hardware_keep_days: Days = 90
    hardware_hours_keep_days: Days = 1095
    audit_keep_days: Days = 0
    logins_keep_days: Days = 30
    conversations_keep_days: Days = 0
    member_answers_keep_days: Days = 0
    # What stays of the usage of people who are removed: sums of days under no name, or nothing.
    removed_people_usage: Literal["sums", "nothing"] = "sums"

    # [name=][kind+]URL, such as http://host:8000/v1 or tgi+http://host; where there are some, no embedded model starts.
    engines: tuple[str, ...] = ()
    # What these engines ask for, as name=key.
    engine_keys: tuple[str, ...] = ()
    # Slots of an engine that does not say how many it has.
    engine_slots: Positive = 16
    # Prompt tokens that an engine reads in one step (vLLM's max_num_batched_tokens, llama.cpp's batch): half as many
    # are given to it ahead of their first token. 0: as many as come.
    engine_prefill_tokens: Annotated[int, Meta(ge=0)] = 2048
    # What models that the server loads and unloads may take together in each box of devices. 0: what the devices have.
    models_memory_bytes: Annotated[int, Meta(ge=0)] = 0
    # Slots of each engine that are kept for people who ask now and then, while any are about. -1: by its size.
    reserved_slots: Annotated[int, Meta(ge=-1)] = -1
    # What keeping them may cost of an engine's throughput, in percent, over a minute; large engines keep theirs always.
    reserve_percent_max: Annotated[int, Meta(ge=0, le=100)] = 10
    # How often one answer may pause for somebody light, where the engine can go on with it later. 0: never.
    pauses_max: Annotated[int, Meta(ge=0, le=100)] = 8
    # What tokens cost, as model=input:output; a model that is not named costs what was measured, until then 1:2.
    costs: tuple[str, ...] = ()
    # How fast each model is is measured once, when it is in memory and nobody uses its engine.
    calibrates: bool = True
    # A model that is likely to be asked for next is loaded while nobody uses its box.
    preloads: bool = True
    # What models that answer at the same time are believed to leave each other, before it was measured.
    council_prior: Literal["saturation", "seed"] = "saturation"
    # The allocator only watches: councils get all members, and what it would have chosen is logged and kept.
    council_shadow: bool = False
    # An engine that says nothing for so long has failed. A long prompt on a CPU takes minutes.
    engine_silence_ms_max: Positive = 300_000
    # The same between tokens, once the first has come.
    engine_stall_ms_max: Positive = 60_000

    # Embedded models: GGUF paths or hf:owner/repo:file.
    models: tuple[str, ...] = ()
    # What models that the server fetched may take on the disk together: 500 MB to 50 GB. What people put there
    # themselves does not count.
    model_cache_bytes_max: Annotated[int, Meta(ge=500_000_000, le=50_000_000_000)] = 50_000_000_000
    model_slots: Positive = 4
    model_context_tokens: Positive = 4096

    queue_length_max: Positive = 1000
    queue_wait_ms_max: Positive = 600_000
    redis_grace_ms: Positive = 5_000
    request_bytes_max: Positive = 32 * 1024 * 1024
    # Wrong keys, cookies and set-up links a minute from one address; then others that are not known get a 429. 0: any
    # number.
    address_refusals_per_minute_max: Annotated[int, Meta(ge=0)] = 60

    login_days: Positive = 30
    # How long a server that was asked to end takes new requests, while /readyz sends load balancers away.
    shutdown_delay_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    shutdown_grace_ms: Positive = 10_000
    # Where traces go, as OTLP over HTTP; empty: nowhere. See docs/tracing.md.
    traces_url: str = ""
    # The share of requests that are traced, where their caller does not say.
    traces_percent: Annotated[int, Meta(ge=0, le=100)] = 100
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __repr__(self) -> str:
        """Without what is secret: it may come into a log."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in SECRETS}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def load(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """Merge the sources of settings.

    Args:
        flags: settings given on the command line; None and empty lists mean not given.
        environment: usually `os.environ`.
        config: a TOML file that must exist; without it `./wirthforge.toml` is read if it is there.

    Raises:
        StartError: a source is unreadable, names no setting, or holds a value that does not fit.
    """
    merged: dict[str, object] = {}
    merged |= _from_file(config)
    merged |= _from_environment(environment)
    merged |= {name: value for name, value in flags.items() if value not in (None, (), [])}
    for name, kinds in URLS.items():
        if (url := merged.get(name)) and urlsplit(str(url)).scheme.partition("+")[0] not in kinds:
            raise StartError(
                f"The setting {name} is wrong: it begins with {kinds[0]}://. docs/settings.md lists them all."
            )
    try:
        return msgspec.convert(merged, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        reason, _, name = str(error).partition(" - at `$.")
        subject = f"The setting {name.rstrip('`')} is wrong" if name else "A setting is wrong"
        raise StartError(f"{subject}: {reason}. docs/settings.md lists them all.") from None


def _decode(kind: type, value: object) -> object:
    """Paths are written as text, with ~ for one's home."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    raise msgspec.ValidationError(f"Expected {kind.__name__}, got {type(value).__name__}")


def _from_file(config: Path | None) -> dict[str, object]:
    path = config or Path("wirthforge.toml")
    if config is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"The settings file {path} cannot be read: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable, name in CUSTOMARY_NAMES.items():
        if environment.get(variable):
            found[name] = environment[variable]
    for variable, value in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        # WIRTHFORGE_CONFIG is the command line's, and an empty variable means "not set".
        if not variable.startswith(ENVIRONMENT_PREFIX) or name == "config" or not value:
            continue
        found[name] = [part.strip() for part in value.split(",") if part.strip()] if name in LISTS else value
    return found
