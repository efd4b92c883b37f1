"""Databases whose owners are no superusers, as in a house, and a box with a row in every table."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from server.backup import making, restoring
from server.backup.making import Source
from server.backup.manifest import Manifest
from server.clock import SystemClock
from server.db.migrate import migrate
from server.db.session import APP_ROLE, async_url
from tests.backup.rows import fill

PASSWORD = "of a role that lives for a test"


async def run(url: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    engine = create_async_engine(async_url(url), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@dataclass(frozen=True)
class Place:
    """A database, and its owner, who has it alone."""

    owner: str
    name: str
    url: str


MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture(scope="session")
async def make_place(postgres_url: str) -> AsyncIterator[MakePlace]:
    """Makes empty databases, or copies of others, each with a new owner that may make no roles."""
    made: list[Place] = []
    await run(
        postgres_url,
        f"DO $$ BEGIN CREATE ROLE {APP_ROLE}; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )

    async def make(like: Place | None = None) -> Place:
        name = f"wf_backup_{uuid4().hex[:8]}"
        owner = like.owner if like else name
        url = make_url(async_url(postgres_url)).set(username=owner, password=PASSWORD, database=name)
        if like is None:
            await run(
                postgres_url,
                f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'",
                f"GRANT {APP_ROLE} TO {owner} WITH ADMIN OPTION",
            )
        await run(postgres_url, f"CREATE DATABASE {name} OWNER {owner}" + (f" TEMPLATE {like.name}" if like else ""))
        made.append(Place(owner, name, url.render_as_string(hide_password=False)))
        return made[-1]

    yield make
    for place in made:
        await run(postgres_url, f"DROP DATABASE {place.name} WITH (FORCE)")
    for owner in {place.owner for place in made}:
        await run(postgres_url, f"DROP ROLE {owner}")


@pytest.fixture(scope="session")
async def full(make_place: MakePlace) -> Place:
    """A migrated database with rows in every table; tests that change it take a copy (`make_place(full)`)."""
    place = await make_place()
    await migrate(place.url)
    await fill(place.url)
    return place


@pytest.fixture
async def source(make_place: MakePlace, full: Place) -> Place:
    """A copy of it, for the test alone."""
    return await make_place(full)


@pytest.fixture
async def target(make_place: MakePlace) -> Place:
    """An empty database with another owner."""
    return await make_place()


class Box:
    """What a test does: makes backups of a database, and restores them.

    Attributes:
        lines: what was told.
    """

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.data_dir.mkdir(parents=True)
        self.file = folder / "box.tar"
        self.lines: list[str] = []

    async def backup(self, place: Place, *, overwrite: bool = False) -> Manifest:
        """To `file`."""
        source = Source(place.url, self.data_dir)
        return await making.make(self.file, source, SystemClock(), self.lines.append, overwrite=overwrite)

    async def restore(self, place: Place, data_dir: Path | None = None) -> Manifest:
        """From `file`, into a data folder of its own unless one is named."""
        where = data_dir or self.data_dir.with_name("restored")
        where.mkdir(exist_ok=True)
        return await restoring.restore(self.file, where, place.url, SystemClock(), self.lines.append)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """In an empty folder."""
    return Box(tmp_path / "box")
