"""Kinds of engines: what an admin writes about one, and the adapter that comes of it.

A kind is a function from a spec to an adapter (protocol.py). More kinds come as plugins: an installed package names one
in the entry point group `wirthforge.engines`. One that cannot be loaded is named in the log and left out.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from msgspec import Meta, Struct

from server.clock import Clock
from server.engines.addresses import METADATA_HOSTS, is_metadata
from server.engines.drivers import LlamaRouter, VllmSleep
from server.engines.isolation import Pins
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.protocol import Engine
from server.engines.router_files import Sizer
from server.engines.tgi import Tgi
from server.errors import InvalidRequest

GROUP = "wirthforge.engines"
# Parts of a path; none is empty, `.` or `..`, which clients would take out of an address. `test/` and `kinds`
# are addresses of web/engines.py.
NAME = r"\A(?!test/|kinds\Z)[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*\Z"
NAME_CHARACTERS_MAX = 100
URL_CHARACTERS_MAX = 500
SPEC = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})=)?(?:(?P<kind>[a-z][a-z0-9-]*)\+)?(?P<url>https?://.+)"
)
# A name of the DNS, or an IPv6 address. Other letters are normalised by some, so that checks could be talked round.
HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")

log = structlog.get_logger(__name__)

Slots = Annotated[int, Meta(ge=1, le=100_000)]
Tokens = Annotated[int, Meta(ge=0, le=1 << 40)]


class EngineSpec(Struct, frozen=True, kw_only=True):
    """An engine as an admin describes it.

    Attributes:
        url: with `/v1` where the kind speaks OpenAI's protocol; the root for tgi and ollama.
        api_key: sent to the engine, shown to nobody.
        slots, prefill_tokens, kv_tokens, reserved_slots: None is what the engine says of itself, else the setting.
        moves_models: the server may load and unload its models: Ollama, llama-server as a router, vLLM in sleep mode.
        devices: those of this host that it uses, by the uuid at /api/hardware; none where nobody says (boxes.py).
        is_draining: it takes no new requests; those that run end.
    """

    name: Annotated[str, Meta(pattern=NAME, max_length=NAME_CHARACTERS_MAX)]
    kind: str
    url: Annotated[str, Meta(max_length=URL_CHARACTERS_MAX)]
    api_key: str = ""
    slots: Slots | None = None
    prefill_tokens: Tokens | None = None
    kv_tokens: Tokens | None = None
    reserved_slots: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    moves_models: bool = False
    devices: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=64)] = ()
    is_draining: bool = False

    def __repr__(self) -> str:
        """Without the key, since it may come into a log."""
        return f"EngineSpec(name={self.name!r}, kind={self.kind!r}, has_api_key={bool(self.api_key)})"


class Defaults(Struct, frozen=True, kw_only=True):
    """What holds where neither admin nor engine says anything."""

    slots: int
    silence_ms_max: int
    stall_ms_max: int = 0
    pins: Pins | None = None


# Builds the adapter; must not connect yet.
Kind = Callable[[EngineSpec, Defaults], Engine]


def _openai(kind: str) -> Kind:
    def make(spec: EngineSpec, defaults: Defaults) -> Engine:
        return OpenAICompatible(
            spec.url,
            kind=kind,
            name=spec.name,
            slots=spec.slots or defaults.slots,
            silence_ms_max=defaults.silence_ms_max,
            stall_ms_max=defaults.stall_ms_max,
            api_key=spec.api_key,
            pins=defaults.pins,
        )

    return make


def _native(adapter: type[Tgi] | type[Ollama]) -> Kind:
    def make(spec: EngineSpec, defaults: Defaults) -> Engine:
        engine = adapter(
            spec.url,
            name=spec.name,
            slots=spec.slots or defaults.slots,
            silence_ms_max=defaults.silence_ms_max,
            api_key=spec.api_key,
        )
        engine.stall_s = min(defaults.stall_ms_max or defaults.silence_ms_max, defaults.silence_ms_max) / 1000
        return engine

    return make


def driver_of(
    engine: Engine, spec: EngineSpec, models: Sequence[str], clock: Clock, sizer: Sizer | None = None
) -> LlamaRouter | VllmSleep | Ollama | None:
    """How the engine's models are loaded and unloaded, if the server may.

    Args:
        models: as the engine lists them.
        sizer: reads what a file takes, if the engine's files are ours to read.
    """
    if not spec.moves_models or not models:
        return None
    root = spec.url.rstrip("/").removesuffix("/v1")
    match engine:
        case Ollama():
            return engine
        case OpenAICompatible(kind="llama-server"):
            return LlamaRouter(root, name=spec.name, clock=clock, api_key=spec.api_key, sizer=sizer)
        case OpenAICompatible(kind="vllm"):
            return VllmSleep(root, name=spec.name, model=models[0], clock=clock, api_key=spec.api_key)
        case _:
            log.warning("models cannot be moved", engine=spec.name, kind=spec.kind)
            return None


BUILT_IN: Mapping[str, Kind] = {
    **{kind: _openai(kind) for kind in ("openai", "llama-server", "vllm", "sglang")},
    "tgi": _native(Tgi),
    "ollama": _native(Ollama),
}


class LeftOut(Struct, frozen=True):
    """A plugin that is not used, and why."""

    name: str
    reason: str


class Kinds(dict[str, Kind]):
    """Kinds by name; `left_out` are the plugins that are not among them."""

    def __init__(self) -> None:
        super().__init__(BUILT_IN)
        self.left_out: list[LeftOut] = []


def load_kinds(found: Iterable[EntryPoint] | None = None) -> Kinds:
    """The built-in kinds and those of plugins; a plugin may not take a name that is taken."""
    kinds = Kinds()
    for point in entry_points(group=GROUP) if found is None else found:
        try:
            kind = point.load()
            if point.name in kinds or not callable(kind):
                raise TypeError("its name is taken, or it is no function")  # noqa: TRY301
            kinds[point.name] = kind
        except Exception as error:  # noqa: BLE001 (a plugin may do anything)
            reason = f"{type(error).__name__}: {error}"[:500]
            kinds.left_out.append(LeftOut(point.name, reason))
            log.error("engine plugin left out", plugin=point.name, reason=reason)
    return kinds


def read_spec(text: str) -> EngineSpec:
    """An engine as the settings write it: a URL, in front of it its kind and +, in front of that a name and =.

    `http://a:8000/v1`, `tgi+http://a:8080`, `big=vllm+http://a:8000/v1`.

    Raises:
        InvalidRequest: it is written otherwise, or the URL is none.
    """
    found = SPEC.fullmatch(text)
    if found is None:
        # What stands before an @ may be a password, and this goes to terminals and logs.
        found_instead = repr(text[:100]) if "@" not in text else "the one that has an @"
        raise InvalidRequest(f"An engine is written as [name=][kind+]http://host:port/v1, not as {found_instead}.")
    url = found["url"]
    check_url(url)
    return EngineSpec(name=found["name"] or name_of(url), kind=found["kind"] or "openai", url=url)


def name_of(url: str) -> str:
    """Host and port, and the path if it says more than `/v1`; never the password that a URL may hold."""
    parts = urlsplit(url.rstrip("/"))
    return parts.netloc.rpartition("@")[2] + parts.path.removesuffix("/v1")


def check_url(url: str) -> None:
    """Refuse what no engine is behind.

    Raises:
        InvalidRequest: not http, no host, or an address of a cloud's metadata.
    """
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        raise InvalidRequest("The URL of an engine cannot be read.", param="url") from None
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise InvalidRequest("The URL of an engine has plain characters only.", param="url")
    if parts.scheme not in {"http", "https"} or not HOST.fullmatch(host):
        raise InvalidRequest("The URL of an engine begins with http:// or https:// and a host.", param="url")
    if parts.port == 0:
        raise InvalidRequest("No engine listens on port 0.", param="url")
    if parts.query or parts.fragment:
        raise InvalidRequest("The URL of an engine has no ? and no #.", param="url")
    if host in METADATA_HOSTS or is_metadata(host):
        raise InvalidRequest("There is no engine at an address of the cloud's metadata service.", param="url")
