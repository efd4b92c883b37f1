"""The providers as they are now: what may be sent to, for which models of this box.

They are read anew when the version of the rules changes, which is looked at every few seconds, and held to once more by
who sends. A provider that has not changed keeps its breaker. Nobody is connected to before something is sent.
"""

import structlog
from msgspec import Struct
from sqlalchemy import select

from server.clock import Clock
from server.cloud.anthropic import AnthropicProvider
from server.cloud.client import Client, Waits, Wire
from server.cloud.openai import OpenAIProvider
from server.cloud.prices import cheapness
from server.cloud.protocol import CloudModel, Kind, Provider, ProviderSpec
from server.cloud.registry import Kept, kept
from server.db.models import CloudProvider
from server.db.session import Database
from server.privacy.sealed import Seal
from server.privacy.version import NONE_YET, Version, read

ADAPTERS: dict[Kind, type[OpenAIProvider] | type[AnthropicProvider]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
}

log = structlog.get_logger(__name__)


class Offered(Struct, frozen=True):
    """A provider, its models, and what an admin is told where nothing is sent there."""

    spec: ProviderSpec
    provider: Provider | None
    problem: str | None


class Offering(Struct, frozen=True):
    """All providers as of one version of the rules: what is decided on them holds for this version alone."""

    version: int
    all: tuple[Offered, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why nothing is sent to some of them."""
        return tuple(dict.fromkeys(each.problem for each in self.all if each.spec.is_enabled and each.problem))

    def stand_ins(self, local_model: str) -> list[tuple[Provider, CloudModel]]:
        """Who could answer for a model of this box, well or not; the cheapest first."""
        found = [
            (each.provider, model)
            for each in self.all
            if each.spec.is_enabled and each.provider is not None
            for model in each.spec.models
            if any(matches(pattern, local_model) for pattern in model.stands_in_for)
        ]
        return sorted(found, key=lambda pair: (*cheapness(pair[1]), pair[0].name))

    def offers(self, local_model: str) -> list[tuple[Provider, CloudModel]]:
        """The same, without those to which nothing is sent right now."""
        return [(provider, model) for provider, model in self.stand_ins(local_model) if provider.lets_pass]

    def find(self, provider: str, model: str) -> tuple[Provider, CloudModel] | None:
        """One of them by name, if it is enabled."""
        for each in self.all:
            if each.spec.name == provider and each.spec.is_enabled and each.provider is not None:
                return next(((each.provider, found) for found in each.spec.models if found.name == model), None)
        return None


class Providers:
    """Reads the registry, and keeps what it has made of it."""

    def __init__(
        self, database: Database, clock: Clock, seal: Seal | None, version: Version, waits: Waits | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._version = version
        self._waits = waits or Waits()
        self._wire = Wire()
        self._offering = Offering(NONE_YET)
        self._made: dict[tuple[str, str, str, str], Provider] = {}

    @property
    def has_seal(self) -> bool:
        """Whether the box has an encryption key: without one nothing leaves."""
        return self._seal is not None

    async def current(self) -> Offering:
        """As of a version that is at most a few seconds old. Raises Unavailable when Postgres is away."""
        if await self._version.known() != self._offering.version:
            self._offering = await self._read()
        return self._offering

    async def offers(self, local_model: str) -> list[tuple[Provider, CloudModel]]:
        """See `Offering.offers`."""
        return (await self.current()).offers(local_model)

    def adapter(self, found: Kept) -> Provider | None:
        """Speaks to a provider; the same as before where nothing of it changed. None where its key cannot be opened."""
        if found.key is None:
            return None
        spec = found.spec
        what = (spec.name, spec.kind, spec.url, found.key)
        if what not in self._made:
            adapter = ADAPTERS[spec.kind]
            headers = adapter.headers(found.key)
            client = Client(spec.name, spec.url, headers, wire=self._wire, clock=self._clock, waits=self._waits)
            self._made[what] = adapter(client)
        return self._made[what]

    async def _read(self) -> Offering:
        async with self._database.transaction() as session:
            # The version first: see server/privacy/version.py.
            version = await read(session)
            rows = (await session.scalars(select(CloudProvider).order_by(CloudProvider.name))).all()
            found = [kept(row, self._seal) for row in rows]
        offered = tuple(Offered(each.spec, self.adapter(each), each.problem) for each in found)
        for each in offered:
            if each.problem is not None:
                log.error("provider left out", provider=each.spec.name, reason=each.problem)
        self._forget_others({(each.spec.name, each.spec.kind, each.spec.url, each.key or "") for each in found})
        return Offering(version, offered)

    def _forget_others(self, known: set[tuple[str, str, str, str]]) -> None:
        """Answers under way go on; nothing new is sent to who is gone."""
        self._made = {what: provider for what, provider in self._made.items() if what in known}

    async def close(self) -> None:
        """Break what is under way."""
        await self._wire.close()


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern, in which `*` is anything, stands for a name; in time that grows with their lengths."""
    first, *middle = pattern.split("*")
    if not middle:
        return pattern == name
    last = middle.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        at = name.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
