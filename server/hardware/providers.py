"""Which providers there are: our own, and those of plugins.

A plugin is an installed package with an entry point in the group `wirthforge.hardware` that names a callable: it is
called with a Clock and returns a `devices.Provider`. docs/hardware.md has an example. A plugin that cannot be loaded is
logged by its name and left out; /api/hardware shows why.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

import structlog
from msgspec import Struct

from server.clock import Clock
from server.hardware.amd import Amd
from server.hardware.devices import Provider
from server.hardware.host import Host
from server.hardware.npu import Npu
from server.hardware.nvml import Nvml

GROUP = "wirthforge.hardware"
PLUGINS_MAX = 32
REASON_CHARACTERS_MAX = 300

Factory = Callable[[Clock], Provider]

log = structlog.get_logger(__name__)


class Loaded(Struct, frozen=True):
    """The providers, and why plugins were left out, by their entry points' names."""

    providers: tuple[Provider, ...]
    broken: dict[str, str]


def load(clock: Clock, found: Iterable[EntryPoint] | None = None) -> Loaded:
    """Our own providers and those of plugins.

    Args:
        found: entry points; those of all installed packages by default.
    """
    providers: list[Provider] = [Nvml(clock), Amd(clock), Npu(clock), Host(clock)]
    broken: dict[str, str] = {}
    for point in list(entry_points(group=GROUP) if found is None else found)[:PLUGINS_MAX]:
        try:
            providers.append(_plugin(point, clock, {provider.name for provider in providers}))
        # Also a plugin that wants to end the server does not.
        except (Exception, SystemExit) as error:  # noqa: BLE001 (foreign code)
            reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
            broken[point.name] = reason
            log.error("hardware plugin left out", plugin=point.name, reason=reason)
    return Loaded(tuple(providers), broken)


def _plugin(point: EntryPoint, clock: Clock, taken: set[str]) -> Provider:
    """Load one. Raises whatever is wrong with it."""
    provider = point.load()(clock)
    if not isinstance(provider, Provider):
        raise TypeError("it has not all of name, devices, sample and close")
    if not isinstance(provider.name, str) or not provider.name or provider.name in taken:
        raise ValueError(f"its name {provider.name!r} is no name, or another's")
    return provider
