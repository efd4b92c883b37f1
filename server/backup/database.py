"""What a backup and a restored box ask of Postgres, as the tables' owner."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from server.db.session import APP_ROLE
from server.errors import StartError

VERSIONS = "alembic_version"
# The policy that lets the owner work on all rows (migration 0009). It names the owner's role.
OWNERS_POLICY = "upkeep"
_TABLES = text(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    " AND NOT relispartition AND relname <> 'alembic_version' ORDER BY relname"
)
# Tables that this login would read in part, without an error.
_HIDDEN = text(
    "SELECT relname FROM pg_class AS one WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    " AND row_security_active(oid) AND ("
    "   EXISTS (SELECT FROM pg_policy WHERE polrelid = one.oid AND NOT polpermissive)"
    "   OR NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = one.oid AND polcmd IN ('*', 'r')"
    "     AND pg_get_expr(polqual, polrelid) = 'true' AND EXISTS ("
    "       SELECT FROM unnest(polroles) AS role WHERE role = 0 OR pg_has_role(current_user, role, 'USAGE')))"
    " ) ORDER BY relname"
)
_ISOLATED = text(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    " AND relrowsecurity AND relforcerowsecurity ORDER BY relname"
)
# Of tables under row-level security: those whose people's policy, or whose owner's, is not there.
_OPEN = text(
    "SELECT relname FROM pg_class AS one WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND NOT ("
    "   EXISTS (SELECT FROM pg_policy WHERE polrelid = one.oid AND polname = 'own' AND polpermissive"
    "     AND polroles = ARRAY(SELECT oid FROM pg_roles WHERE rolname = :app))"
    "   AND EXISTS (SELECT FROM pg_policy WHERE polrelid = one.oid AND polname = :owners"
    "     AND polroles = ARRAY(SELECT oid FROM pg_roles WHERE rolname = current_user))"
    " ) ORDER BY relname"
)
_REVISION = text(f"SELECT version_num FROM {VERSIONS}")  # noqa: S608
_HAS_VERSIONS = text(f"SELECT to_regclass('public.{VERSIONS}') IS NOT NULL")
_THERE = text(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
    " AND NOT relispartition ORDER BY relname"
)
_ARCHIVES = text("SELECT path, file_bytes, encode(sha256, 'hex') AS sha256 FROM archives ORDER BY path")
_HAS_ARCHIVES = text("SELECT to_regclass('public.archives') IS NOT NULL")
_MAKE_ROLE = text(
    f"""DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN CREATE ROLE {APP_ROLE} NOLOGIN; END IF;
        IF NOT pg_has_role(current_user, '{APP_ROLE}', 'MEMBER') THEN GRANT {APP_ROLE} TO CURRENT_USER; END IF;
        GRANT USAGE ON SCHEMA public TO {APP_ROLE};
    EXCEPTION
        WHEN insufficient_privilege THEN RAISE EXCEPTION
            'this login may not make or grant the role {APP_ROLE}: see docs/isolation.md';
    END $$"""
)


class ArchivedFile(NamedTuple):
    """A file below the archive folder, as the table `archives` knows it."""

    path: str
    bytes: int
    sha256: str


def quoted(name: str) -> str:
    """A table of the schema public, as SQL writes it."""
    return 'public."' + name.replace('"', '""') + '"'


async def major_version(connection: AsyncConnection) -> tuple[int, str]:
    """Of the server: 18, and "18.4"."""
    number = int(str(await connection.scalar(text("SHOW server_version_num"))))
    return number // 10_000, f"{number // 10_000}.{number % 10_000}"


async def require_all_rows(connection: AsyncConnection) -> None:
    """Raise StartError where row-level security would hide rows from this login: it would dump a part, silently."""
    if hidden := (await connection.scalars(_HIDDEN)).all():
        raise StartError(
            f"This login does not see all rows of {', '.join(hidden)}: set DATABASE_OWNER_URL to the login that owns "
            f"the tables (the policy {OWNERS_POLICY} lets it; docs/isolation.md)."
        )


async def count_all(connection: AsyncConnection, without: Collection[str] = ()) -> dict[str, int]:
    """The rows of each table, as this transaction sees them."""
    counts = {}
    for name in (await connection.scalars(_TABLES)).all():
        if name not in without:
            counts[name] = await connection.scalar(text(f"SELECT count(*) FROM {quoted(name)}")) or 0  # noqa: S608
    return counts


async def revision(connection: AsyncConnection) -> str | None:
    """Of the schema; None where there is none."""
    if not await connection.scalar(_HAS_VERSIONS):
        return None
    found: str | None = await connection.scalar(_REVISION)
    return found


async def isolated(connection: AsyncConnection) -> Sequence[str]:
    """Tables under forced row-level security."""
    return (await connection.scalars(_ISOLATED)).all()


async def archived_files(connection: AsyncConnection) -> Sequence[ArchivedFile]:
    """What lies in the archive."""
    if not await connection.scalar(_HAS_ARCHIVES):
        return ()
    return [ArchivedFile(*row) for row in await connection.execute(_ARCHIVES)]


async def require_empty(connection: AsyncConnection) -> None:
    """Raise StartError where the database has tables."""
    there = (await connection.scalars(_THERE)).all()
    if not there:
        return
    if VERSIONS in there and await revision(connection) is None:
        raise StartError("The database holds a restore that did not come to its end: drop the database, make it anew.")
    raise StartError(
        f"The database is not empty ({', '.join(there[:3])}{', …' if len(there) > 3 else ''}): "  # noqa: PLR2004
        "a backup is restored into an empty one."
    )


async def make_role(connection: AsyncConnection) -> None:
    """Make the role that the app works as, if it is not there; policies and rights name it."""
    await connection.execute(_MAKE_ROLE)


async def open_to_owner(connection: AsyncConnection, tables: Sequence[str]) -> None:
    """Make the policies of the owner, who is this login."""
    for name in tables:
        await connection.execute(
            text(f"CREATE POLICY {OWNERS_POLICY} ON {quoted(name)} TO CURRENT_USER USING (true) WITH CHECK (true)")
        )


async def require_same(connection: AsyncConnection, counts: dict[str, int], tables: Sequence[str]) -> None:
    """Compare what was restored with what was dumped.

    Args:
        counts: rows of each table.
        tables: those under forced row-level security.

    Raises:
        StartError: something differs.
    """
    await require_all_rows(connection)
    found = await count_all(connection)
    for name in sorted(counts.keys() | found.keys()):
        # Of tables that were left out nothing was counted; they are there, and empty.
        if found.get(name) != counts.get(name, 0):
            raise StartError(
                f"The table {name} has {found.get(name, 'no')} rows, and {counts.get(name, 'no')} were in the backup."
            )
    forced = set(await isolated(connection))
    without = (await connection.scalars(_OPEN, {"app": APP_ROLE, "owners": OWNERS_POLICY})).all()
    if forced != set(tables) or without:
        names = sorted((forced ^ set(tables)) | set(without))
        raise StartError(f"Row-level security does not hold as it did: {', '.join(names)}.")


async def set_revision(connection: AsyncConnection, value: str) -> None:
    """What the schema is; from now on servers start on it."""
    await connection.execute(text(f"INSERT INTO {VERSIONS} VALUES (:value)"), {"value": value})  # noqa: S608
