"""Providers of cloud models over HTTP: what admins add, change, check and remove. Keys go in and never out."""

# ruff: noqa: ARG002 (asking for `admin` is the check)

from typing import Annotated

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType, structs, to_builtins

from server.cloud.protocol import MODELS_MAX, URL_CHARACTERS_MAX, CloudModel, ProviderSpec
from server.cloud.providers import Providers
from server.cloud.registry import CloudRegistry, Kept
from server.errors import WirthforgeError
from server.messages import Principal

# A hundred models, each with patterns.
BODY_BYTES_MAX = 512 * 1024


class NewCloudProvider(ProviderSpec, frozen=True, kw_only=True):
    """A provider to be added; `api_key` is kept sealed and shown to nobody."""

    api_key: str


class CloudProviderChange(Struct):
    """Fields that are to change. Another URL needs the key once more."""

    url: Annotated[str, Meta(max_length=URL_CHARACTERS_MAX)] | UnsetType = UNSET
    models: Annotated[list[CloudModel], Meta(max_length=MODELS_MAX)] | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET
    api_key: str | UnsetType = UNSET


class CloudProviderStanding(Struct):
    """A provider as it was registered and as it is.

    Attributes:
        has_key: null where this server cannot open it.
        is_resting: nothing is sent there just now: it has failed, or asked for a pause.
        problem: why nothing is sent there at all, and what to do.
    """

    name: str
    kind: str
    url: str
    models: list[CloudModel]
    is_enabled: bool
    has_key: bool | None
    is_resting: bool
    problem: str | None


class CloudProviderCheck(Struct):
    """Whether it can be reached with this key; `models` are those that it lists, `reason` is why not."""

    is_reachable: bool
    models: list[str]
    reason: str | None


def _standing(found: Kept, providers: Providers) -> CloudProviderStanding:
    spec, provider = found.spec, providers.adapter(found)
    return CloudProviderStanding(
        name=spec.name,
        kind=spec.kind,
        url=spec.url,
        models=list(spec.models),
        is_enabled=spec.is_enabled,
        has_key=None if found.key is None else found.key != "",
        is_resting=provider is not None and not provider.lets_pass,
        problem=found.problem,
    )


class CloudProviderAdmin(Controller):
    """Cloud providers of the box. The `admin` dependency refuses members."""

    path = "/api/admin/cloud/providers"
    tags = ("Administration",)
    request_max_body_size = BODY_BYTES_MAX

    @get()
    async def list_cloud_providers(
        self,
        admin: NamedDependency[Principal],
        cloud_registry: NamedDependency[CloudRegistry],
        cloud_providers: NamedDependency[Providers],
    ) -> list[CloudProviderStanding]:
        """All of them, by name."""
        return [_standing(found, cloud_providers) for found in await cloud_registry.all()]

    @post()
    async def add_cloud_provider(
        self,
        data: JSONBody[NewCloudProvider],
        admin: NamedDependency[Principal],
        cloud_registry: NamedDependency[CloudRegistry],
        cloud_providers: NamedDependency[Providers],
    ) -> CloudProviderStanding:
        """Add a provider. Nothing is sent there by that; ask for a check."""
        spec = ProviderSpec(**{name: getattr(data, name) for name in ProviderSpec.__struct_fields__})
        return _standing(await cloud_registry.add(admin, spec, data.api_key), cloud_providers)

    @patch("/{name:str}")
    async def change_cloud_provider(
        self,
        name: FromPath[str],
        data: JSONBody[CloudProviderChange],
        admin: NamedDependency[Principal],
        cloud_registry: NamedDependency[CloudRegistry],
        cloud_providers: NamedDependency[Providers],
    ) -> CloudProviderStanding:
        """Change a provider. What was decided on before, and has not left, is decided on anew."""
        changes = {field: to_builtins(new) for field, new in structs.asdict(data).items() if new is not UNSET}
        changes.pop("api_key", None)
        return _standing(await cloud_registry.change(admin, name, changes, data.api_key), cloud_providers)

    @delete("/{name:str}", status_code=204)
    async def remove_cloud_provider(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        cloud_registry: NamedDependency[CloudRegistry],
    ) -> None:
        """Remove a provider and its key. The ledger still tells what it was sent."""
        await cloud_registry.remove(admin, name)

    @post("/{name:str}/check", status_code=200)
    async def check_cloud_provider(
        self,
        name: FromPath[str],
        admin: NamedDependency[Principal],
        cloud_registry: NamedDependency[CloudRegistry],
        cloud_providers: NamedDependency[Providers],
    ) -> CloudProviderCheck:
        """Ask a provider for its list of models. It is shown the key, and no text of anybody."""
        found = await cloud_registry.one(name)
        provider = cloud_providers.adapter(found)
        if provider is None:
            return CloudProviderCheck(is_reachable=False, models=[], reason=found.problem)
        try:
            models = await provider.models()
        except WirthforgeError as error:
            return CloudProviderCheck(is_reachable=False, models=[], reason=error.message)
        return CloudProviderCheck(is_reachable=True, models=list(models), reason=None)
