"""A box on which things break while it runs, and people who need something of whoever looks after it."""

import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from server.clock import SystemClock
from tests.operations.installation import MODEL, PASSWORD, POLL_MS, WRITTEN_MS_MAX, Installation, installation

pytestmark = pytest.mark.timeout(240)  # real servers, stopped and started


@pytest.fixture(scope="module")
async def box() -> AsyncIterator[Installation]:
    """With one model, and an admin who has asked it something; each test leaves it running."""
    with installation() as made:
        made.start()
        made.add_admin("ann")
        assert made.chat().status_code == 200
        await made.tokens_beyond(0)
        yield made


def kill(box: Installation, part: str, name: str) -> None:
    """Kill a part of the box; return when it is back."""
    said = len(box.up.lines)
    box.up.part(part).send_signal(signal.SIGKILL)
    box.up.until("away: ", after=said)
    box.up.until(f"  {name:<{len(MODEL)}}  ready", after=said)


def settle(box: Installation) -> None:
    """Ask until connections to a Postgres that is gone are; each of the server's two pools has some."""
    with box.http() as client:
        asked = [client.get("/api/usage").status_code for _ in range(4)]
    assert asked[-1] == 200
    assert set(asked) <= {200, 503}


def providers(box: Installation) -> list[str | None]:
    """What is wrong with each provider of the cloud."""
    with box.http() as client:
        return [provider["problem"] for provider in client.get("/api/admin/cloud/providers").json()]


def test_looks(box: Installation) -> None:
    """What somebody looks at every day and every week; a line for cron leaves one backup and says nothing."""
    box.do("a backup")
    box.do("a daily look")
    box.do("last night's backup")
    box.do("upkeep by hand")
    box.do("a weekly look")
    box.do("a backup by cron")
    assert [path.suffix for path in box.home.glob("wirthforge-*")] == [".tar"]


def test_postgres_is_killed(box: Installation) -> None:
    """It comes back by itself, with every row, and budgets still agree."""
    before = box.tokens()
    kill(box, "bin/postgres", "postgres")
    box.do("postgres was killed")
    settle(box)
    assert box.tokens() == before


def test_postgres_folder_goes_away(box: Installation) -> None:
    """A disk that is not mounted any more: no empty database takes its place, and all is there when it is back."""
    folder, away = box.data / "postgres-18", box.home / "unmounted"
    before, said = box.tokens(), len(box.up.lines)
    running = box.up.part("bin/postgres")
    folder.rename(away)
    try:
        running.send_signal(signal.SIGKILL)
        assert " is gone, with all rows. " in box.up.until("away: The Postgres folder", after=said)
        assert not folder.exists()
        assert httpx.get(f"{box.url}/readyz").status_code == 503
    finally:
        away.rename(folder)
    box.up.until(f"  {'postgres':<{len(MODEL)}}  ready", after=said)
    box.do("ready again")
    settle(box)
    assert box.tokens() == before


def test_redis_is_killed(box: Installation) -> None:
    """What it counted is on its disk: budgets agree with usage afterwards."""
    kill(box, "redis-server", "redis")
    box.do("redis was killed")
    assert box.chat().status_code == 200


def test_a_model_is_killed(box: Installation) -> None:
    """It is started again, and answers."""
    kill(box, "llama_program", MODEL)
    box.do("ready again")
    box.do("which engine is down")
    assert box.chat().status_code == 200


def test_somebody_takes_too_much(box: Installation) -> None:
    """A limit is set and taken away."""
    box.do("a limit")


def test_a_forgotten_password(box: Installation) -> None:
    """Whoever owns the data folder makes a link, which works once."""
    box.ask("wirthforge user add eve --role admin && wirthforge user disable ann")
    box.do("a forgotten password")
    link = box.ask("wirthforge user reset-password ann")
    body = {"token": link.partition("/setup#")[2], "password": "another password"}
    assert httpx.post(f"{box.url}/api/setup", json=body).json()["name"] == "ann"
    assert httpx.post(f"{box.url}/api/setup", json=body).status_code >= 400


def test_a_leaked_key(box: Installation) -> None:
    """It ends at once; others of the same person go on."""
    box.ask("wirthforge user add cleo")
    key = box.ask("wirthforge key create --user cleo")
    box.own = {"wf-EXAMPLE": key[:11], "ann": "cleo"}
    assert box.chat(key).status_code == 200
    box.do("a leaked key")
    assert box.chat(key).status_code == 401
    assert box.chat().status_code == 200
    box.own = {}


def test_somebody_leaves(box: Installation) -> None:
    """They have their data, and the box has nothing of theirs but sums under no name."""
    box.ask(f"echo '{PASSWORD}' | wirthforge user add bob --password-stdin")
    assert box.chat(box.ask("wirthforge key create --user bob")).status_code == 200
    box.do("somebody leaves")
    assert (box.home / "bob.zip").stat().st_size > 0
    assert "bob" not in box.ask("wirthforge user list")


def test_the_cloud_and_its_keys(box: Installation) -> None:
    """Nothing leaves any more; providers' keys are read with the old key again, and then with a new one alone."""
    provider = {"name": "openai", "kind": "openai", "url": "https://api.openai.com/v1", "api_key": "sk-x"}
    model = {"name": "m", "stands_in_for": ["*"], "input_micros_per_million": 1, "output_micros_per_million": 1}
    with box.http() as client:
        assert client.post("/api/admin/cloud/providers", json={**provider, "models": [model]}).status_code == 201
    box.do("nothing leaves any more")
    assert providers(box) == [None]
    key = box.data / "encryption.key"
    key.rename(box.home / "old.key")
    box.do("start again")
    assert providers(box) == ["The key of openai was sealed with another encryption key: enter it again."]
    box.do("the encryption key is another one")
    box.do("a new encryption key")
    assert len(key.read_text().splitlines()) == 1
    assert key.stat().st_mode & 0o777 == 0o600


async def test_the_server_is_killed(box: Installation) -> None:
    """Nothing outlives it; the answer that it was writing is a row, and providers' keys are there with the new key."""
    clock = SystemClock()
    with box.http() as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3000, "ignore_eos": True}
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()  # dropped, it would hang up
            next(lines)
            request_id = stream.headers["x-request-id"]
            box.up.end(signal.SIGKILL)
    box.do("after kill -9")
    deadline_ms = clock.monotonic_ms() + WRITTEN_MS_MAX
    with box.http() as client:
        while request_id not in (
            rows := {row["request_id"]: row["outcome"] for row in client.get("/api/usage").json()}
        ):
            assert clock.monotonic_ms() < deadline_ms
            await clock.sleep_ms(POLL_MS)
    assert rows[request_id] == "abandoned"
    assert set(providers(box)) <= {None}


def test_an_upgrade_begins(box: Installation) -> None:
    """With a backup, and a server that has ended in order."""
    box.do("before an upgrade")
    assert (box.home / "before-upgrade.tar").exists()
    assert box.up.lines[-1] == "Stopped."
