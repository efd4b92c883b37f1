"""What the manifests tell containers to run, run for real: their commands, with their environments.

Postgres and Redis are the embedded ones, in the places of the official images. Only addresses and folders differ: what
a container reaches by TCP is reached by a socket here, and /data is a folder of the test.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import httpx
import pytest

from server.clock import SystemClock
from server.db.session import APP_ROLE
from server.embedded import cluster
from server.embedded.binaries import postgres_bin, redis_bin
from server.embedded.paths import POSTGRES_SOCKET, socket_dir
from server.embedded.postgres import NAME, Postgres
from tests.cli.programs import House
from tests.cli.programs import environment as own_environment
from tests.helm.charts import Manifest, containers, environment, one, pods, render

ENDS_S_MAX = 60
PORT = POSTGRES_SOCKET.rpartition(".")[2]


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    """One rendering: passwords are the same in all of it."""
    return render({"backup": {"enabled": True, "keep": 3}})


def container_of(manifests: list[Manifest], component: str, name: str | None = None) -> Manifest:
    """The container of a component."""
    return next(
        container
        for _, pod in pods(manifests)
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component
        for container in containers(pod)
        if name in {None, container["name"]}
    )


class Place:
    """A Postgres that began with the chart's roles, as the image of Postgres would have made it."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self._host = str(sockets)

    def environment(self, container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
        """The container's, with our Postgres and folders in the place of the cluster's."""
        found = environment(container, manifests)
        for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
            if name in found:
                login = found[name].removeprefix("postgresql://").partition("@")[0]
                found[name] = f"postgresql://{login}@/{NAME}?host={self._host}&port={PORT}"
        return own_environment(self.folder, **(found | {"WIRTHFORGE_DATA_DIR": str(self.folder / "data")}))

    async def asked(self, query: str) -> list[asyncpg.Record]:
        """As the superuser."""
        connection = await asyncpg.connect(host=self._host, port=int(PORT), user="postgres", database=NAME)
        try:
            found: list[asyncpg.Record] = await connection.fetch(query)
            return found
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def place(short_dir: Path, manifests: list[Manifest]) -> AsyncIterator[Place]:
    """The embedded Postgres, without what it made itself; then the chart's script, as the image's shell reads it."""
    folder = short_dir / "helm"
    postgres = Postgres(folder, SystemClock())
    await postgres.start()
    sockets = socket_dir(folder)
    connection = await asyncpg.connect(host=str(sockets), port=int(PORT), user=cluster.SUPERUSER, database="postgres")
    for statement in (f"DROP DATABASE {NAME}", f"DROP ROLE {NAME}", f"DROP ROLE IF EXISTS {APP_ROLE}"):
        await connection.execute(statement)
    await connection.close()
    script = one(manifests, "ConfigMap", "box-wirthforge-postgresql")["data"]["roles.sh"]
    found = environment(container_of(manifests, "postgresql"), manifests)
    assert found["POSTGRES_USER"] == cluster.SUPERUSER
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-e", "-c", script],
        env={**found, "PATH": f"{postgres_bin('psql').parent}:/usr/bin:/bin", "PGHOST": str(sockets), "PGPORT": PORT},
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    yield Place(folder, sockets)
    await postgres.stop()


def words(container: Manifest) -> list[str]:
    """What it runs; the image's entry point is `wirthforge`."""
    if "command" in container:
        program, *rest = container["command"]
        return [sys.executable if program == "python" else program, *rest]
    return [str(Path(sys.executable).with_name("wirthforge")), *container["args"]]


def run(container: Manifest, place: Place, manifests: list[Manifest], cwd: Path | None = None) -> str:
    """To its end, which must be a good one."""
    found = place.environment(container, manifests)
    found["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(  # noqa: S603 (our own program)
        words(container),
        env=found,
        cwd=cwd or place.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


async def test_roles_are_as_isolation_asks(place: Place) -> None:
    """Nobody but the image's superuser may lift policies; both logins have passwords."""
    rows = await place.asked(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcanlogin FROM pg_roles WHERE rolname LIKE 'wirth%'"
    )
    assert {tuple(row) for row in rows} == {
        ("wirthforge", False, False, True, True),
        ("wirthforge_app", False, False, False, False),
        ("wirthforge_login", False, False, False, True),
    }
    stored = await place.asked(
        "SELECT count(*) FROM pg_authid WHERE rolname ~ 'wirthforge(_login)?$' AND rolpassword ~ '^SCRAM'"
    )
    assert stored[0][0] == 2


async def test_servers_wait_for_the_migration_which_may_run_twice(place: Place, manifests: list[Manifest]) -> None:
    """The init container waits with a reason, and ends as soon as the job is done."""
    waits = container_of(manifests, "server", "wait-for-schema")
    waiting = await asyncio.create_subprocess_exec(
        *words(waits),
        env=place.environment(waits, manifests),
        cwd=place.folder,
        stderr=asyncio.subprocess.PIPE,
    )
    assert waiting.stderr is not None
    first = await asyncio.wait_for(waiting.stderr.readline(), ENDS_S_MAX)
    assert b"run `wirthforge migrate`" in first
    migrates = container_of(manifests, "migrate")
    said = [await asyncio.to_thread(run, migrates, place, manifests) for _ in range(2)]
    assert said[0].startswith("The database is at revision")
    assert said[1].strip().endswith("already.")
    assert await asyncio.wait_for(waiting.wait(), ENDS_S_MAX) == 0


async def test_upkeep_runs_as_the_owner(place: Place, manifests: list[Manifest]) -> None:
    """The job of every night."""
    await asyncio.to_thread(run, container_of(manifests, "migrate"), place, manifests)
    said = await asyncio.to_thread(run, container_of(manifests, "upkeep"), place, manifests)
    assert "partitions: done" in said


async def test_backups_come_and_the_oldest_go(place: Place, manifests: list[Manifest]) -> None:
    """As many as `keep` says are left, the new one among them."""
    await asyncio.to_thread(run, container_of(manifests, "migrate"), place, manifests)
    folder = place.folder / "backups"
    folder.mkdir()
    for day in range(1, 6):
        (folder / f"wirthforge-2020010{day}-000000.tar").touch()
    await asyncio.to_thread(run, container_of(manifests, "backup"), place, manifests, folder)
    left = sorted(path.name for path in folder.iterdir())
    assert left[:2] == ["wirthforge-20200104-000000.tar", "wirthforge-20200105-000000.tar"]
    assert len(left) == 3
    assert (folder / left[2]).stat().st_size > 10_000


def free_port() -> int:
    """One that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def redis(manifests: list[Manifest], tmp_path: Path) -> AsyncIterator[Mapping[str, str]]:
    """The container's own command, on another port and folder; yields the environment of those who ask it."""
    container = container_of(manifests, "redis")
    port = free_port()
    shell, option, script = container["command"]
    assert "--dir /data" in script
    found = environment(container, manifests) | {"PATH": f"{redis_bin('redis-server').parent}:/usr/bin:/bin"}
    program = await asyncio.create_subprocess_exec(
        shell, option, script.replace("--dir /data", f"--dir {tmp_path} --port {port}"),
        env=found, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    yield {**found, "PORT": str(port), "FOLDER": str(tmp_path)}
    # The shell has become Redis: it ends when it is asked to, in order.
    program.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(program.wait(), 10) == 0


async def asked(container: Manifest, redis: Mapping[str, str]) -> bool:
    """What the probe finds."""
    shell, option, script = container["readinessProbe"]["exec"]["command"]
    probe = await asyncio.create_subprocess_exec(
        shell, option, script.replace("redis-cli", f"redis-cli -p {redis['PORT']}"), env=redis,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await probe.wait() == 0


async def test_redis_keeps_a_ledger_behind_a_password(redis: Mapping[str, str], manifests: list[Manifest]) -> None:
    """Its probe finds it once it answers, and nobody without the password; everything is written down."""
    container = container_of(manifests, "redis")
    for _ in range(100):
        if await asked(container, redis):
            break
        await SystemClock().sleep_ms(50)
    else:
        pytest.fail("it never answered its probe")
    assert not await asked(container, {**redis, "REDISCLI_AUTH": "wrong"})
    told = await asyncio.create_subprocess_exec(
        "redis-cli", "-p", redis["PORT"], "config", "get", "append*", env=redis, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await told.communicate()
    assert b"appendonly\nyes\n" in out
    assert b"appendfsync\neverysec\n" in out


async def test_the_server_starts_and_passes_helm_test(
    place: Place, manifests: list[Manifest], redis_url: str, engine_url: str, tmp_path: Path
) -> None:
    """With the settings of the config map and the login that owns nothing; it ends in order when it is told to."""
    await asyncio.to_thread(run, container_of(manifests, "migrate"), place, manifests)
    found = place.environment(container_of(manifests, "server", "server"), manifests)
    # The cluster's names lead nowhere here.
    ours = {"WIRTHFORGE_PORT": "0", "WIRTHFORGE_HOST": "127.0.0.1", "WIRTHFORGE_ENGINES": f"main={engine_url}"}
    server = await asyncio.to_thread(House(tmp_path).start, "serve", **(found | ours | {"REDIS_URL": redis_url}))
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            for _ in range(1000):
                if (await client.get("/readyz")).status_code == 200:
                    break
        said = await asyncio.to_thread(says, container_of(manifests, "test"), server.url)
        assert said == (0, ["/health 200", "/readyz?engine=no 200", "/readyz 200", "/ 200"], "")
    finally:
        assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0


async def test_a_server_whose_engine_is_away_shows_its_pages(
    place: Place, manifests: list[Manifest], redis_url: str, tmp_path: Path
) -> None:
    """Its own probe finds it ready, so that people reach it; `helm test` says that requests could not be served."""
    await asyncio.to_thread(run, container_of(manifests, "migrate"), place, manifests)
    container = container_of(manifests, "server", "server")
    found = place.environment(container, manifests) | {"REDIS_URL": redis_url}
    # Nobody listens on port 1; and nobody looks away from this server first.
    away = {"WIRTHFORGE_ENGINES": "main=http://127.0.0.1:1/v1", "WIRTHFORGE_SHUTDOWN_DELAY_MS": "0"}
    ours = {"WIRTHFORGE_PORT": "0", "WIRTHFORGE_HOST": "127.0.0.1"}
    server = await asyncio.to_thread(House(tmp_path).start, "serve", **(found | away | ours))
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            probe = await client.get(container["readinessProbe"]["httpGet"]["path"])
            assert (probe.status_code, (await client.get("/")).status_code) == (200, 200)
        status, lines, fault = await asyncio.to_thread(says, container_of(manifests, "test"), server.url)
        assert (status, lines) == (1, ["/health 200", "/readyz?engine=no 200", "/readyz 503"])
        assert "not ready" in fault
    finally:
        assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0


def says(container: Manifest, url: str) -> tuple[int, list[str], str]:
    """How the pod of `helm test` ends, what it prints, and its last words."""
    done = subprocess.run(  # noqa: S603 (our own script)
        words(container),
        env={"URL": url, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr
