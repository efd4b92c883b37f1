"""Everything about clouds, joined: for the composition root (server/app.py)."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from server.accounts.quotas import Quotas
from server.accounts.secrets import new_token
from server.chat.pipeline import Way
from server.clock import Clock, uuid7
from server.cloud.consents import Consents
from server.cloud.deciding import Deciding, Offering
from server.cloud.detection import looking
from server.cloud.hop import Hops
from server.cloud.overflow import Overflow, Switch
from server.cloud.preview import Parse, Previews
from server.cloud.providers import Providers
from server.cloud.registry import CloudRegistry
from server.cloud.replacing import replacing
from server.cloud.sending import Endings, Sending
from server.db.session import Database
from server.privacy.detectors.code import Code
from server.privacy.detectors.secrets import Secrets
from server.privacy.detectors.structured import Structured
from server.privacy.egress_log import EgressLog
from server.privacy.policies import Policies
from server.privacy.sealed import seal_from
from server.privacy.version import Version
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Joined:
    """What handlers ask for by name, the way of requests, and what runs as the server does.

    Attributes:
        way: the pipeline for all that must not leave, or the way around the queue.
    """

    parts: dict[str, object]
    way: Way
    loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


def clouds_of(
    plain: Way, parse: Parse, *, settings: Settings, database: Database, quotas: Quotas, clock: Clock
) -> Joined:
    """The clouds of one replica.

    Args:
        plain: the pipeline. It is given nothing of what is made here.
        parse: checks a body of /v1/chat/completions.
    """
    seal = seal_from(settings.encryption_key)
    # One for all: a change that is made here is seen here at once.
    version = Version(database, clock)
    policies = Policies(database, clock, version)
    providers = Providers(database, clock, seal, version)
    by_form = (Secrets(), Structured(), Code())

    async def offering(is_stale: bool) -> Offering:  # noqa: FBT001 (see Deciding)
        if is_stale:
            version.forget()
        return await providers.current()

    deciding = Deciding(
        database=database,
        clock=clock,
        quotas=quotas,
        policies=policies,
        offering=offering,
        by_form=by_form,
        by_model=looking(plain, clock, lambda: uuid7(clock.now())),
        replaced=replacing(None if seal is None else seal.derived("pseudonyms")),
    )
    endings = Endings(database, clock, grace_ms=settings.shutdown_grace_ms)
    consents = Consents(database, clock, new_token)
    sending = Sending(database, endings, clock, lambda: str(uuid4()))
    hops = Hops(deciding=deciding, sending=sending, endings=endings, consents=consents, clock=clock)
    switch = Switch(policies, version, by_form, clock)
    parts: dict[str, object] = {
        "cloud_consents": consents,
        "cloud_policies": policies,
        "cloud_previews": Previews(deciding, parse, clock),
        "cloud_providers": providers,
        "cloud_registry": CloudRegistry(database, clock, seal, version),
        "egress_log": EgressLog(database, clock),
    }
    return Joined(parts, Overflow(plain, hops, switch), (_Lines(providers).run, endings.run, switch.run))


class _Lines:
    """Connections to providers, which are closed behind what they were used for."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    async def run(self) -> None:
        """Until the server ends."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._providers.close()
