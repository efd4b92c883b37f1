"""`serve`, `migrate`, `doctor`, `openapi`: the commands of whoever brings Postgres, Redis and engines."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import httpx
import msgspec
import pytest

from tests.cli.programs import COMMAND, NEWEST, House, Server, environment
from tests.conftest import _with_database, execute
from tests.stand_ins import openai_engine
from tests.web.described import litestar

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"wirthforge_empty_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield _with_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def test_serve_says_what_it_needs(house: House) -> None:
    """Everything that is missing, in one sentence; and what needs nothing."""
    assert house.refusal("serve") == "`serve` needs DATABASE_URL, REDIS_URL. (`up` brings its own parts.)"
    assert house.refusal("serve", "--engine", NOWHERE, "--redis-url", "redis://x").startswith(
        "`serve` needs DATABASE_URL. "
    )


async def test_serving_a_new_database(
    house: House,
    start: Callable[..., Server],
    empty_database_url: str,
    redis_url: str,
    engine_url: str,
    order: openai_engine.Order,
) -> None:
    """Refused until it is migrated, which may be done twice; then a request gets from end to end."""
    urls = {"DATABASE_URL": empty_database_url, "REDIS_URL": redis_url, "WIRTHFORGE_ENGINES": engine_url}
    refusal = await asyncio.to_thread(house.refusal, "serve", "--port", "0", settings=urls)
    assert refusal == f"The database has no schema, and revision {NEWEST} is needed: run `wirthforge migrate`."
    assert house.ask("migrate", settings=urls) == f"The database is at revision {NEWEST}."
    assert house.ask("migrate", settings=urls) == f"The database is at revision {NEWEST} already."
    house.ask("user", "add", "ann", "--password-stdin", stdin="correct horse battery\n", settings=urls)
    key = house.ask("key", "create", "--user", "ann", settings=urls)
    server = await asyncio.to_thread(start, "serve", "--port", "0", **urls)
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        body = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}]}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == " word0 word1 word2"
    assert len(order.seen) == 1
    assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0


async def test_serving_without_an_engine_until_an_admin_adds_one(
    house: House, start: Callable[..., Server], database_url: str, redis_url: str, engine_url: str
) -> None:
    """The pages are there, /readyz says what is missing, a request how it comes; then it is added, and answers."""
    urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "WIRTHFORGE_UPKEEPS": "false"}
    server = await asyncio.to_thread(start, "serve", "--port", "0", **urls)
    assert f"The settings name no engine: those that an admin adds at {server.url}/engines serve." in server.lines
    house.ask(
        "user", "add", "ann", "--role", "admin", "--password-stdin", stdin="correct horse battery\n", settings=urls
    )
    key = house.ask("key", "create", "--user", "ann", settings=urls)
    body = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}]}
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["parts"]["engine"]) == (503, False)
        assert (await client.get("/v1/models")).json()["data"] == []
        refused = await client.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_engine")
        assert "An admin adds one on the page Engines" in refused.json()["error"]["message"]
        added = await client.post("/api/admin/engines", json={"name": "late", "kind": "openai", "url": engine_url})
        assert added.status_code == 201, added.text
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
    told = house.ask("upkeep", "status", settings=urls)
    assert "The server runs no job by itself (upkeeps is false): `wirthforge upkeep run` does, daily." in told
    assert "archive      never ran" in told
    assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0
    said = [line for line in server.lines if "no upkeep here" in line]
    assert len(said) == 1
    assert "upkeeps is false" in said[0]


def test_a_wrong_key_of_an_engine_ends_the_start_without_showing_it(house: House) -> None:
    """Both ways of starting refuse before they start anything, and nothing that they print has the key."""
    urls = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    keys = {"WIRTHFORGE_ENGINES": f"a={NOWHERE}", "WIRTHFORGE_ENGINE_KEYS": "a=fine,b=sk-nobody-may-read-this"}
    for command in ("serve", "up"):
        done = house.run(command, settings=urls | keys)
        assert done.returncode == 1
        assert "Entry 2 of the setting engine_keys is not written as name=key" in done.stderr
        assert "nobody-may-read-this" not in done.stdout + done.stderr


async def test_an_invitation_where_the_server_is_elsewhere(house: House, database_url: str) -> None:
    """Without a server on this machine the link says where the settings put it, or what people type."""
    urls = {"DATABASE_URL": database_url, "WIRTHFORGE_PORT": "8123"}
    assert house.ask("user", "add", "ann", settings=urls).startswith("http://127.0.0.1:8123/setup#")
    urls["WIRTHFORGE_PUBLIC_URL"] = "https://box.home.example/"
    assert house.ask("user", "add", "ben", settings=urls).startswith("https://box.home.example/setup#")


def _findings(house: House, **settings: str) -> tuple[int, dict[str, str]]:
    """The exit status, and what was found by subject: `ok` or `missing`. Each fault has a line that says what to do."""
    done = house.run("doctor", settings=settings)
    assert done.stderr == ""
    found = {}
    lines = iter(done.stdout.splitlines())
    for line in lines:
        state, subject = line[:7].strip(), line[9:].split("  ")[0]
        found[subject] = state
        assert state == "ok" or next(lines).lstrip().startswith("→ ")
    return done.returncode, found


async def test_doctor_on_a_healthy_machine(house: House, database_url: str, redis_url: str, engine_url: str) -> None:
    """Exit status 0 where nothing is missing; it looks, and changes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "WIRTHFORGE_ENGINES": engine_url}
    status, found = await asyncio.to_thread(_findings, house, WIRTHFORGE_PORT=port, **urls)
    engine = engine_url.removeprefix("http://").removesuffix("/v1")
    assert {"python", "gpu", "web client", "port", "data folder", "disk", "postgres", "redis", engine} <= found.keys()
    missing = [subject for subject, state in found.items() if state == "missing"]
    assert set(missing) <= {"web client"}
    assert status == (1 if missing else 0)
    assert not house.data.exists()


def test_doctor_finds_what_is_missing(house: House) -> None:
    """Exit status 1, and each fault has a line that says how to mend it."""
    house.data.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        urls = {
            "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
            "REDIS_URL": "redis://127.0.0.1:1",
            "WIRTHFORGE_ENGINES": NOWHERE,
            "WIRTHFORGE_PORT": str(taken.getsockname()[1]),
        }
        status, found = _findings(house, **urls)
    assert status == 1
    for subject in ("port", "data folder", "postgres", "redis", "127.0.0.1:1"):
        assert found[subject] == "missing"


def test_doctor_looks_for_models(house: House) -> None:
    """A path that leads nowhere is found before the start; what the hub has is not fetched for that."""
    assert _findings(house, WIRTHFORGE_MODELS="hf:owner/repo:file.gguf,absent.gguf")[1]["models"] == "missing"
    assert not house.data.exists()


def test_the_printed_schema_is_the_applications(house: House) -> None:
    """What the web client's types are made of is what the server serves."""
    done = subprocess.run(  # noqa: S603 (our own program)
        [*COMMAND, "openapi"], capture_output=True, check=True, cwd=house.home, env=environment(house.home)
    )
    assert json.loads(done.stdout) == json.loads(msgspec.json.encode(litestar().openapi_schema.to_schema()))
