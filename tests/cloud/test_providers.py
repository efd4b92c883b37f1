"""The registry of providers: what is kept, who may be asked, and that every change counts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from server.cli.cloud_keys import rekey
from server.cloud.addresses import check_url
from server.cloud.client import Waits
from server.cloud.protocol import ProviderSpec
from server.cloud.providers import Providers, matches
from server.cloud.registry import CloudRegistry, about
from server.db.models import AuditEntry, CloudProvider
from server.db.session import Database
from server.embedded import key_file
from server.errors import Conflict, EngineFailed, InvalidRequest, NotFound, Unavailable
from server.messages import Principal
from server.privacy.sealed import Seal, new_key, seal_from
from server.privacy.version import FRESH_MS, Version, bump, hold, read
from tests.clocks import FakeClock
from tests.cloud.wires import HELLO, KEY, LARGE, request
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import Cloud

ROOT = Principal(id=uuid4(), name="root", role="admin")
URL = "https://far.example/v1"
SPEC = ProviderSpec(name="far", kind="openai", url=URL, models=(LARGE,))
SEAL = Seal(b"k" * 32)
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


@pytest.fixture
def clock() -> FakeClock:
    """Of the test."""
    return FakeClock()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    database = Database(database_url, connections_max=4)
    yield database
    await database.close()


@pytest.fixture
def version(database: Database, clock: FakeClock) -> Version:
    """Of the rules."""
    return Version(database, clock)


@pytest.fixture
def registry(database: Database, clock: FakeClock, version: Version) -> CloudRegistry:
    """The registry of a box with a key."""
    return CloudRegistry(database, clock, SEAL, version)


@pytest.fixture
async def providers(database: Database, clock: FakeClock, version: Version) -> AsyncIterator[Providers]:
    """What its server made of it."""
    found = Providers(database, clock, SEAL, version, Waits(first_byte_ms=2_000))
    yield found
    await found.close()


def names(offers: list[Any]) -> list[tuple[str, str]]:
    """Providers and models."""
    return [(provider.name, model.name) for provider, model in offers]


async def number(database: Database) -> int:
    """The version in the database."""
    async with database.transaction() as session:
        return await read(session)


async def test_a_provider_is_offered_until_it_is_gone(registry: CloudRegistry, providers: Providers) -> None:
    """For the models that it stands in for, as it is after each change; at once on the replica that changed it."""
    assert await providers.offers("a") == []
    await registry.add(ROOT, SPEC, KEY)
    assert names(await providers.offers("a")) == [("far", LARGE.name)]
    small = {**msgspec.to_builtins(LARGE), "name": "small", "stands_in_for": ["tiny-*"], "input_micros_per_million": 1}
    await registry.change(ROOT, "far", {"models": [msgspec.to_builtins(LARGE), small]})
    assert names(await providers.offers("tiny-1b")) == [("far", "small"), ("far", LARGE.name)]
    assert names(await providers.offers("big")) == [("far", LARGE.name)]
    offering = await providers.current()
    assert offering.find("far", "small") is not None
    assert offering.find("far", "other") is None
    await registry.change(ROOT, "far", {"is_enabled": False})
    assert await providers.offers("a") == []
    assert (await providers.current()).find("far", "small") is None
    await registry.change(ROOT, "far", {"is_enabled": True})
    await registry.remove(ROOT, "far")
    assert await providers.offers("a") == []
    with pytest.raises(NotFound):
        await registry.remove(ROOT, "far")


async def test_the_cheapest_comes_first_and_the_ill_not_at_all(registry: CloudRegistry, providers: Providers) -> None:
    """One whose breaker is open is left out, though it still stands in."""
    async with cloud_provider.serve(Cloud(behaviour=cloud_provider.refusing("500 Oops"))) as cloud:
        cheap = msgspec.structs.replace(LARGE, output_micros_per_million=1)
        await registry.add(ROOT, SPEC, KEY)
        await registry.add(ROOT, ProviderSpec(name="near", kind="anthropic", url=cloud.url, models=(cheap,)), KEY)
        offers = await providers.offers("a")
        assert [provider.name for provider, _ in offers] == ["near", "far"]
        near, model = offers[0]
        for _ in range(3):
            with pytest.raises(EngineFailed):
                await near.send(near.compose(request(HELLO), HELLO, model), request_id="r")
        assert [provider.name for provider, _ in await providers.offers("a")] == ["far"]
        assert [provider.name for provider, _ in (await providers.current()).stand_ins("a")] == ["near", "far"]
        # Another provider's change does not heal it.
        await registry.remove(ROOT, "far")
        assert await providers.offers("a") == []
        # Another key may.
        await registry.change(ROOT, "near", {}, "another")
        assert [provider.name for provider, _ in await providers.offers("a")] == ["near"]


async def test_another_replica_sees_a_change_soon(
    registry: CloudRegistry, database: Database, clock: FakeClock
) -> None:
    """After a few seconds, without being told."""
    other = Providers(database, clock, SEAL, Version(database, clock))
    assert await other.offers("a") == []
    await registry.add(ROOT, SPEC, KEY)
    assert await other.offers("a") == []
    clock.advance(timedelta(milliseconds=FRESH_MS))
    assert names(await other.offers("a")) == [("far", LARGE.name)]
    assert (await other.current()).version == await number(database)


async def test_every_change_counts_and_is_in_the_log(
    registry: CloudRegistry, database: Database, clock: FakeClock
) -> None:
    """The version grows by one, and who did what is kept, without the key."""
    assert await number(database) == 0
    for doing in (
        registry.add(ROOT, SPEC, KEY),
        registry.change(ROOT, "far", {"is_enabled": False}),
        registry.change(ROOT, "far", {}, KEY + "-2"),
        registry.remove(ROOT, "far"),
    ):
        await doing
        clock.advance(timedelta(seconds=1))
    assert await number(database) == 4
    async with database.transaction(everybody=True) as session:
        entries = (await session.scalars(select(AuditEntry).order_by(AuditEntry.at))).all()
    assert [entry.action.removeprefix("cloud_provider.") for entry in entries] == ["add", "change", "change", "remove"]
    assert {(entry.actor_name, entry.subject) for entry in entries} == {("root", "cloud provider far")}
    assert entries[2].after is not None
    assert entries[2].after["api_key"] == "changed"
    assert KEY not in "".join(f"{entry.before}{entry.after}" for entry in entries)


async def test_what_is_refused_changes_nothing(registry: CloudRegistry, database: Database) -> None:
    """No row, no count, no entry."""
    await registry.add(ROOT, SPEC, KEY)
    refused: list[tuple[type[Exception], Any]] = [
        (Conflict, registry.add(ROOT, SPEC, KEY)),
        (InvalidRequest, registry.add(ROOT, msgspec.structs.replace(SPEC, name="b", url="http://far.example"), KEY)),
        (InvalidRequest, registry.add(ROOT, msgspec.structs.replace(SPEC, name="b"), "a\nb")),
        (InvalidRequest, registry.add(ROOT, msgspec.structs.replace(SPEC, name="b", models=(LARGE, LARGE)), KEY)),
        (InvalidRequest, registry.change(ROOT, "far", {"kind": "anthropic"})),
        (InvalidRequest, registry.change(ROOT, "far", {"models": [{"name": "x"}]})),
        (InvalidRequest, registry.change(ROOT, "far", {"url": "https://elsewhere.example/v1"})),
        (NotFound, registry.change(ROOT, "near", {"is_enabled": False})),
    ]
    for fault, doing in refused:
        with pytest.raises(fault):
            await doing
    assert await number(database) == 1
    assert [found.spec for found in await registry.all()] == [SPEC]


async def test_a_key_goes_nowhere_else_unasked(registry: CloudRegistry) -> None:
    """Another URL takes the key once more; a provider without a key moves as it is."""
    await registry.add(ROOT, SPEC, KEY)
    moved = await registry.change(ROOT, "far", {"url": "https://elsewhere.example/v1"}, KEY)
    assert (moved.spec.url, moved.key) == ("https://elsewhere.example/v1", KEY)
    await registry.add(ROOT, ProviderSpec(name="own", kind="openai", url="http://127.0.0.1:1/v1"), "")
    assert (await registry.change(ROOT, "own", {"url": "http://127.0.0.1:2/v1"})).key == ""


async def test_the_database_holds_no_key(registry: CloudRegistry, providers: Providers, database: Database) -> None:
    """It is sealed; moved to another row, or to another URL by hand, it opens nothing and nothing is sent."""
    await registry.add(ROOT, SPEC, KEY)
    await registry.add(ROOT, msgspec.structs.replace(SPEC, name="other"), "sk-other")
    async with database.transaction() as session:
        rows = {row.name: row for row in (await session.scalars(select(CloudProvider))).all()}
        assert KEY.encode() not in rows["far"].sealed_key
        assert SEAL.open(rows["far"].sealed_key, about(SPEC)) == KEY
        await session.execute(
            update(CloudProvider).where(CloudProvider.name == "other").values(sealed_key=rows["far"].sealed_key)
        )
        await session.execute(update(CloudProvider).where(CloudProvider.name == "far").values(url="https://e.example"))
        await bump(session)
    assert [found.key for found in await registry.all()] == [None, None]
    providers._version.forget()
    assert await providers.offers("a") == []
    assert len((await providers.current()).problems) == 2


async def test_without_an_encryption_key_nothing_is_kept_or_sent(
    registry: CloudRegistry, database: Database, clock: FakeClock, version: Version
) -> None:
    """The sentence says what to do; what was there before can be switched off and removed."""
    await registry.add(ROOT, SPEC, KEY)
    bare = CloudRegistry(database, clock, None, version)
    keyless = Providers(database, clock, None, version)
    assert not keyless.has_seal
    with pytest.raises(Conflict, match="WIRTHFORGE_ENCRYPTION_KEY"):
        await bare.add(ROOT, msgspec.structs.replace(SPEC, name="b"), KEY)
    with pytest.raises(Conflict, match="WIRTHFORGE_ENCRYPTION_KEY"):
        await bare.change(ROOT, "far", {}, KEY)
    assert await keyless.offers("a") == []
    [problem] = (await keyless.current()).problems
    assert "WIRTHFORGE_ENCRYPTION_KEY" in problem
    assert (await bare.change(ROOT, "far", {"is_enabled": False})).problem == problem
    await bare.remove(ROOT, "far")


async def test_keys_are_sealed_anew(database: Database, clock: FakeClock, version: Version) -> None:
    """With the first of the keys; then the older one is not needed, and one that opens nowhere is named."""
    new, lost = b"n" * 32, Seal(b"l" * 32)
    await CloudRegistry(database, clock, SEAL, version).add(ROOT, SPEC, KEY)
    await CloudRegistry(database, clock, lost, version).add(ROOT, msgspec.structs.replace(SPEC, name="lost"), KEY)
    both = CloudRegistry(database, clock, Seal(new, b"k" * 32), version)
    assert await both.reseal() == (1, ["lost"])
    assert await both.reseal() == (0, ["lost"])
    assert [found.key for found in await CloudRegistry(database, clock, Seal(new), version).all()] == [KEY, None]
    with pytest.raises(Conflict):
        await CloudRegistry(database, clock, None, version).reseal()


async def test_the_command_seals_anew(
    database: Database, database_url: str, clock: FakeClock, version: Version, tmp_path: Path
) -> None:
    """`wirthforge cloud rekey`, with the keys of the setting or of the file; what it cannot open it names."""
    old, new = new_key(), new_key()
    first = seal_from(old)
    await CloudRegistry(database, clock, first, version).add(ROOT, SPEC, KEY)
    flags = ["--data-dir", str(tmp_path)]
    environment = {"DATABASE_URL": database_url.replace("postgresql+asyncpg", "postgresql")}

    async def told(**more: str) -> str:
        # It runs a loop of its own.
        result = await asyncio.to_thread(CliRunner().invoke, rekey, flags, env=environment | more)
        return f"{result.output}{result.exception or ''}"

    assert "WIRTHFORGE_ENCRYPTION_KEY" in await told()
    assert "No encryption key opens the keys of far" in await told(WIRTHFORGE_ENCRYPTION_KEY=new)
    assert "Sealed anew: 1." in await told(WIRTHFORGE_ENCRYPTION_KEY=f"{new},{old}")
    path = key_file.path_of(tmp_path)
    path.write_text(new)
    path.chmod(0o600)
    assert await told() == "Sealed anew: 0.\n"


async def test_who_sends_and_who_changes_wait_for_each_other(registry: CloudRegistry, database: Database) -> None:
    """A change commits before the sender looks, or after the sender's commit; many senders go side by side."""
    await registry.add(ROOT, SPEC, KEY)
    order: list[str] = []

    async def change() -> None:
        await registry.change(ROOT, "far", {"is_enabled": False})
        order.append("changed")

    async with database.transaction() as one, database.transaction() as two:
        assert await hold(one) == await hold(two) == 1
        changing = asyncio.create_task(change())
        async with database.transaction() as looking:
            # It waits in the database: seen from there, since no other place tells.
            while await looking.scalar(_WAITING) == 0:
                pass
        order.append("sent")
    await changing
    assert order == ["sent", "changed"]
    async with database.transaction() as session:
        assert await hold(session) == 2


async def test_an_unreachable_database_sends_nothing(clock: FakeClock) -> None:
    """Nobody knows what is allowed, so nothing is offered."""
    away = Database("postgresql://nobody@127.0.0.1:1/none", connections_max=1)
    providers = Providers(away, clock, SEAL, Version(away, clock))
    with pytest.raises(Unavailable):
        await providers.offers("a")
    await away.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://[2001:db8::1]:8443/v1",
        "https://10.0.0.7/v1",
        "http://127.0.0.1:8000/v1",
        "http://localhost:1234/v1",
        "http://[::1]/v1",
        "http://127.8.8.8/v1",
    ],
)
def test_where_a_provider_may_be(url: str) -> None:
    """Behind https, or on this machine."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "far.example",
        "ftp://far.example",
        "https://",
        "https:///v1",
        "http://far.example/v1",
        "http://10.0.0.7/v1",
        "http://127.0.0.1.example.com/v1",
        "http://0.0.0.0/v1",
        "http://2130706433/v1",
        "https://key@far.example/v1",
        "https://far.example/v1?key=x",
        "https://far.example/v1#x",
        "https://far.example:0/v1",
        "https://far.example:x/v1",
        "https://far example/v1",
        "https://far.example\\@evil.example/v1",
        "https://fär.example/v1",
        "https://169.254.169.254/v1",
        "https://[fd00:ec2::254]/v1",
        "https://metadata.google.internal/v1",
        "https://0xA9FEA9FE/v1",
        "https://[::ffff:169.254.169.254]/v1",
        "https://[::1/v1",
    ],
)
def test_where_no_provider_is(url: str) -> None:
    """No other machine without https, no password in a URL, no address of a cloud's secrets."""
    with pytest.raises(InvalidRequest):
        check_url(url)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "", True),
        ("*", "any/thing:q4", True),
        ("llama", "llama", True),
        ("llama", "llama-3", False),
        ("llama*", "llama-3", True),
        ("*-8b", "llama-8b", True),
        ("*-8b", "-8", False),
        ("a*a", "a", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*b*c", "abc", False),
        ("[a-z]?", "ab", False),
        ("a.c", "abc", False),
        ("a**b", "ab", True),
    ],
)
def test_a_pattern_is_a_name_with_gaps(pattern: str, name: str, fits: bool) -> None:
    """No other sign than the star means anything."""
    assert matches(pattern, name) is fits


@given(pieces=st.lists(st.text("ab", max_size=3), max_size=5), fill=st.lists(st.text("ab", max_size=3), min_size=5))
def test_what_was_made_of_a_pattern_fits_it(pieces: list[str], fill: list[str]) -> None:
    """Whatever stands in the gaps."""
    name = "".join(piece + gap for piece, gap in zip(pieces, [*fill[: len(pieces) - 1], ""], strict=False))
    assert matches("*".join(pieces), name)


def test_many_stars_take_no_time() -> None:
    """Neither an admin nor a name of a model can hold the server up."""
    assert not matches("a*" * 249 + "b", "a" * 500)
