"""Secrets are given by reference and stay there: not in logs, not in answers, not in sentences, not in `ps`.

Every kind of secret that a server is given or makes is a word that occurs nowhere else, and then everything that it
says is searched for these words, at debug level, while much goes wrong.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import pytest
from redis.asyncio import Redis
from sqlalchemy.engine import make_url

from server.accounts.authentication import COOKIE
from server.db.session import async_url
from tests.boxes import PASSWORD
from tests.cli.programs import House, Server
from tests.stand_ins import openai_engine
from tests.web.described import addresses

NOWHERE = "127.0.0.1:1"


class Secrets:
    """Words that must not be found, by what they are."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def make(self, what: str) -> str:
        """A new one."""
        return self.keep(what, f"hush{uuid4().hex}")

    def keep(self, what: str, word: str) -> str:
        """One that the server made."""
        self.words[what] = word
        return word

    def found_in(self, text: str) -> list[str]:
        """Which of them are in a text."""
        return [what for what, word in self.words.items() if word in text]


@pytest.fixture
def secrets() -> Secrets:
    """None yet."""
    return Secrets()


@pytest.fixture
async def guarded_redis_url(redis_url: str, secrets: Secrets) -> AsyncIterator[str]:
    """The test's Redis, by a user with a password."""
    word = secrets.make("Redis password")
    redis: Any
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", "hushed", "on", f">{word}", "~*", "&*", "+@all")
        parts = urlsplit(redis_url)
        yield parts._replace(netloc=f"hushed:{word}@{parts.netloc.rpartition('@')[2]}").geturl()
        await redis.execute_command("ACL", "DELUSER", "hushed")


@pytest.fixture
def given(database_url: str, guarded_redis_url: str, engine_url: str, secrets: Secrets) -> dict[str, str]:
    """Settings in which each secret is a word of its own."""
    sealing = base64.b64encode(uuid4().bytes + uuid4().bytes).decode()
    engine = urlsplit(engine_url).netloc
    return {
        "DATABASE_URL": make_url(async_url(database_url))
        .set(password=secrets.make("Postgres password"))
        .render_as_string(hide_password=False),
        "REDIS_URL": guarded_redis_url,
        "WIRTHFORGE_ENGINES": ",".join(
            (
                f"one=http://{engine}/v1",
                f"two=http://user:{secrets.make('password in the URL of an engine')}@{engine}/v1",
                f"gone=http://user:{secrets.make('password in the URL of one that is away')}@{NOWHERE}/v1",
            )
        ),
        "WIRTHFORGE_ENGINE_KEYS": f"one={secrets.make('key of an engine')}",
        "WIRTHFORGE_ENCRYPTION_KEY": secrets.keep("encryption key", sealing),
        "WIRTHFORGE_LOG_LEVEL": "debug",
        "WIRTHFORGE_LOG_FORMAT": "json",
        "WIRTHFORGE_UPKEEPS": "false",
    }


def _seen_by_ps(server: Server) -> str:
    lines = []
    for process in server.family():
        try:
            lines.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return "\n".join(lines)


async def _use(url: str, secrets: Secrets) -> list[str]:
    """Do what people and admins do, rightly and wrongly; everything that was answered but what is shown once."""
    told: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def ask(method: str, path: str, *, shown_once: bool = False, **options: object) -> httpx.Response:
            answer = await client.request(method, path, **options)  # type: ignore[arg-type]
            told.extend(f"{name}: {value}" for name, value in answer.headers.items() if name != "set-cookie")
            if not shown_once:
                told.append(answer.text)
            return answer

        await ask("POST", "/api/login", json={"name": "ann", "password": secrets.make("wrong password")})
        await ask("POST", "/api/login", json={"name": "ann", "password": PASSWORD})
        secrets.keep("session token", client.cookies[COOKIE])
        await ask("GET", "/api/usage", headers={"Authorization": f"Bearer {secrets.make('wrong key')}"})
        await ask("GET", f"/api/setup?token={secrets.make('token in an address')}")
        await ask("POST", "/api/setup/check", json={"token": secrets.make("wrong set-up token")})
        await ask("POST", "/api/login", content=b'{"name": 1, "password": "' + secrets.make("broken body").encode())
        invited = await ask("POST", "/api/admin/users", json={"name": "ben"}, shown_once=True)
        link = json.loads(invited.text)
        token = next(str(value) for value in link.values() if "setup" in str(value)).rpartition("token=")[2]
        secrets.keep("set-up link", token.rpartition("#")[2].rpartition("/")[2])
        await ask("POST", "/api/setup/check", json={"token": token})
        made = await ask("POST", "/api/keys", json={"label": "x"}, shown_once=True)
        bearer = {"Authorization": f"Bearer {secrets.keep('API key', made.json()['key'])}"}
        body = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}]}
        for _ in range(3):
            assert (await ask("POST", "/v1/chat/completions", json=body, headers=bearer)).status_code == 200
        await ask("POST", "/v1/chat/completions", json={"model": "gone", "messages": []}, headers=bearer)
        engine = {"name": "late", "kind": "openai", "url": f"http://{NOWHERE}/v1", "api_key": secrets.make("late key")}
        assert (await ask("POST", "/api/admin/engines", json=engine)).status_code == 201
        await ask("POST", "/api/admin/engines/test/late")
        await ask("POST", "/api/admin/engines", json={**engine, "name": "x", "api_key": "\n" + secrets.make("bad key")})
        provider = {
            "name": "far",
            "kind": "openai",
            "url": f"https://{NOWHERE}/v1",
            "models": [{"id": "m", "context_tokens": 4096}],
            "is_enabled": True,
            "api_key": secrets.make("key of a provider"),
        }
        await ask("POST", "/api/admin/cloud/providers", json=provider)
        await ask("POST", "/api/admin/cloud/providers/far/check")
        for method, path in addresses():
            if method == "GET" and "{" not in path:
                await ask("GET", path)
    return told


async def test_a_server_tells_no_secret(
    house: House,
    start: Callable[..., Server],
    given: Mapping[str, str],
    secrets: Secrets,
    redis_url: str,
    order: openai_engine.Order,
) -> None:
    """Neither in its log, nor in answers, nor to `ps`; also when Redis refuses it and engines are away."""
    house.ask("user", "add", "ann", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n", settings=given)
    secrets.keep("password", PASSWORD)
    key = secrets.keep("key of the command line", house.ask("key", "create", "--user", "ann", settings=given))
    server = await asyncio.to_thread(start, "serve", "--port", "0", **given)
    told = await _use(server.url, secrets)
    assert len(order.seen) == 3
    assert secrets.found_in(_seen_by_ps(server)) == []
    redis: Any
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", "hushed", "off", "resetpass")
        await redis.execute_command("CLIENT", "KILL", "USER", "hushed")
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        for path in ("/readyz", "/api/share", "/v1/models", "/api/usage"):
            told.append((await client.get(path, timeout=30)).text)
        body = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}]}
        told.append((await client.post("/v1/chat/completions", json=body, timeout=30)).text)
    await asyncio.to_thread(server.stop)
    log = "\n".join(server.lines)
    assert '"event"' in log
    assert secrets.found_in(log) == []
    for text in told:
        assert secrets.found_in(text) == [], text[:300]


BROKEN = {
    "Postgres does not answer": {"DATABASE_URL": f"postgresql://user:HUSH@{NOWHERE}/x"},
    "Postgres' port is no number": {"DATABASE_URL": "postgresql://user:HUSH@host:port/x"},
    "a slash in the password": {"DATABASE_URL": "postgresql://user:a/HUSH@host/x"},
    "Redis' port is no number": {"REDIS_URL": "redis://:HUSH@host:port"},
    "Redis' database": {"REDIS_URL": "redis://:HUSH@127.0.0.1:1/HUSH"},
    "Redis does not answer": {"REDIS_URL": f"redis://:HUSH@{NOWHERE}"},
    "an engine's kind": {"WIRTHFORGE_ENGINES": "nothing+http://user:HUSH@host/v1"},
    "an engine's scheme": {"WIRTHFORGE_ENGINES": "user:HUSH@host/v1"},
    "an engine's slash": {"WIRTHFORGE_ENGINES": "http:/user:HUSH@host/v1"},
    "a key without a name": {"WIRTHFORGE_ENGINE_KEYS": "HUSH"},
    "a key for nobody": {"WIRTHFORGE_ENGINE_KEYS": "nobody=HUSH"},
    "the encryption key": {"WIRTHFORGE_ENCRYPTION_KEY": "HUSH"},
    "where traces go": {"WIRTHFORGE_TRACES_URL": "ftp://user:HUSH@host"},
    "the owner's URL": {"DATABASE_OWNER_URL": "postgresql://user:HUSH@host:port/x"},
}
# Who else reads it, and says so; each of these takes a second to start.
ALSO: dict[str, list[tuple[str, ...]]] = {
    "Postgres' port is no number": [("migrate",)],
    "Postgres does not answer": [("doctor",), ("user", "list")],
    "Redis' port is no number": [("doctor",)],
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_what_is_wrong_with_a_setting_is_told_without_it(tmp_path: Path, what: str) -> None:
    """Each command that reads it says a sentence, and neither the secret nor a trace."""
    word = f"hush{uuid4().hex}"
    wrong = {name: value.replace("HUSH", word) for name, value in BROKEN[what].items()}
    base = {"DATABASE_URL": f"postgresql://x@{NOWHERE}/x", "REDIS_URL": f"redis://{NOWHERE}"}
    settings = {**base, "WIRTHFORGE_LOG_LEVEL": "debug", **wrong}
    for command in (("serve", "--port", "0"), *ALSO.get(what, [])):
        done = House(tmp_path).run(*command, settings=settings)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said.replace(word, "HUSH")
        assert word not in said, (command, said.replace(word, "HUSH")[-1500:])
        assert "Traceback" not in said, (command, said.replace(word, "HUSH")[-1500:])
