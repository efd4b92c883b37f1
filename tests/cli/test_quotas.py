"""`wirthforge quota` on a running house."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.clock import SystemClock
from server.embedded.redis import Redis as EmbeddedRedis
from tests.cli.programs import House, Server

Open = tuple[House, Server]


@pytest.fixture(scope="module")
def quota_house() -> Iterator[Open]:
    """A house of its own, since defaults hold for everybody in it."""
    home = Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp"))
    house = House(home)
    server = house.start()
    yield house, server
    server.end()
    shutil.rmtree(home)


def _client(quota_house: Open, name: str, *words: str) -> httpx.Client:
    """A client of somebody new."""
    house, server = quota_house
    house.ask("user", "add", name, *words)
    key = house.ask("key", "create", "--user", name)
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"})


def _rows(table: str) -> dict[str, tuple[str, str]]:
    """What `quota show NAME` prints, by limit."""
    return {name: (value, rule.strip()) for name, value, rule in (line.split(None, 2) for line in table.splitlines())}


def test_a_quota_from_the_command_line(quota_house: Open) -> None:
    """Set, amended, inherited and cleared, it is in force at once, reads back with its reason, and is logged."""
    house, _ = quota_house
    with _client(quota_house, "ann", "--role", "admin") as ann:
        for user in ("ann", "ANN"):
            told = house.ask("quota", "set", "--user", user, "--weight", "300", "--tokens-per-day", "unlimited")
            assert told == "user ann  weight 300, tokens_per_day unlimited"
        house.ask("quota", "set", "--role", "admin", "--tokens-per-day", "5000", "--in-flight-max", "3")
        told = house.ask(*("quota", "set", "--user", "ann", "--tokens-per-day", "inherit", "--models", "a, b*"))
        assert told == "user ann  weight 300, models a,b*"
        limits = ann.get("/api/quota").json()["limits"]
        rows = _rows(house.ask("quota", "show", "ann"))
        assert rows == {
            "weight": ("300", "user ann"),
            "requests_per_minute": ("unlimited", "built-in"),
            "tokens_per_minute": ("unlimited", "built-in"),
            "tokens_per_day": ("5000", "role admin"),
            "tokens_per_month": ("unlimited", "built-in"),
            "in_flight_max": ("3", "role admin"),
            "queue_length_max": ("100", "built-in"),
            "context_tokens_max": ("unlimited", "built-in"),
            "council_size_max": ("unlimited", "built-in"),
            "council_steps": ("unlimited", "built-in"),
            "models": ("a,b*", "user ann"),
            "cloud_cents_per_month": ("0", "built-in"),
        }
        assert {name: limit["rule"] for name, limit in limits.items()} == {
            name: rule for name, (_, rule) in rows.items()
        }
        assert house.ask("quota", "set", "--user", "ann", "--models", "") == "user ann  weight 300, models none"
        assert house.ask("quota", "clear", "--user", "ann") == "user ann  has no rule"
        assert ann.get("/api/quota").json()["limits"]["weight"] == {"value": 100, "rule": "built-in"}
        log = ann.get("/api/admin/audit").json()
    assert {(row["actor"], row["actor_id"]) for row in log} == {("command line", None)}
    assert [(row["action"], row["subject"]) for row in log] == [
        ("quota.clear", "user ann"),
        ("quota.set", "user ann"),
        ("quota.set", "user ann"),
        ("quota.set", "role admin"),
        ("quota.set", "user ann"),
    ]


async def test_the_running_server_is_told(quota_house: Open) -> None:
    """A change renews the version in the server's own Redis, so that it holds from the next request."""
    house, _ = quota_house
    async with Redis.from_url(EmbeddedRedis(house.data, SystemClock()).url, decode_responses=True) as redis:
        ledger = Ledger(redis)
        versions = [await ledger.policy_version()]
        for words in (("set", "--default", "--weight", "90"), ("clear", "--default")):
            house.ask("quota", *words)
            versions.append(await ledger.policy_version())
    assert len(set(versions)) == 3


def test_all_rules(quota_house: Open) -> None:
    """One line for each, the default first; a sentence where there is none."""
    house, _ = quota_house
    house.ask("user", "add", "ben")
    house.ask("quota", "clear", "--role", "admin")
    assert house.ask("quota", "show") == "There are no rules."
    house.ask("quota", "set", "--user", "ben", "--council-size-max", "2")
    house.ask("quota", "set", "--role", "member", "--weight", "50")
    house.ask("quota", "set", "--default", "--tokens-per-month", "1000000", "--queue-length-max", "unlimited")
    assert house.ask("quota", "show").splitlines() == [
        "default      tokens_per_month 1000000, queue_length_max unlimited",
        "role member  weight 50",
        "user ben     council_size_max 2",
    ]
    for scope in (("--default",), ("--role", "member"), ("--user", "ben")):
        house.ask("quota", "clear", *scope)
    assert house.ask("quota", "show") == "There are no rules."


def test_words_that_will_not_do(quota_house: Open) -> None:
    """Each is refused with a sentence that says what would."""
    house, _ = quota_house
    for words, sentence in (
        (("--weight", "0"), "weight is a whole number from 1 to 10000; 100 is a normal share; to lock"),
        (("--weight", "unlimited"), "weight is a whole number from 1 to 10000; 100 is a normal share."),
        (("--weight", "much"), "weight is a whole number from 1 to 10000; 100 is a normal share."),
        (("--tokens-per-day", "-1"), "tokens_per_day is a whole number from 1 to 1000000000000, or null (unlimited)."),
        (("--models", "a\tb"), "models is a list of at most 100 names"),
        ((), "Name at least one limit: `wirthforge quota set --help` lists them."),
    ):
        assert house.refusal("quota", "set", "--default", *words).startswith(sentence)
    whose = "Say whose quota it is: --default, --role ROLE or --user NAME, and one of them only."
    assert house.refusal("quota", "set", "--weight", "5") == whose
    assert house.refusal("quota", "clear", "--default", "--role", "admin") == whose
    nobody = "There is nobody named 'nobody'. `wirthforge user list` shows everybody."
    assert house.refusal("quota", "set", "--user", "nobody", "--weight", "5") == nobody
    assert house.refusal("quota", "clear", "--user", "nobody") == nobody
    assert house.refusal("quota", "show", "nobody") == nobody


def test_a_redis_that_is_away(house: House, database_url: str) -> None:
    """The rule is set all the same; standard error says when it holds, and standard output stays as it is."""
    settings = {"DATABASE_URL": database_url.replace("+asyncpg", ""), "REDIS_URL": "redis://127.0.0.1:1"}
    done = house.run("quota", "set", "--default", "--weight", "50", settings=settings)
    assert (done.returncode, done.stdout) == (0, "default  weight 50\n")
    assert done.stderr == "Redis cannot be reached: the change holds within 10 seconds.\n"
    assert house.ask("quota", "show", settings=settings) == "default  weight 50"


def test_without_a_server(house: House) -> None:
    """There is nobody to ask, and the sentence says how to change that."""
    assert house.refusal("quota", "show").startswith(f"No server is running on the data folder {house.data}. Start it")
