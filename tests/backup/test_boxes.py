"""From a box that serves to a new one, by the commands that people type."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.programs import House, Server

PASSWORD = "correct horse battery"
QUESTION = {"messages": [{"role": "user", "content": "Who comes first?"}], "max_tokens": 3}


@pytest.fixture
def houses() -> Iterator[tuple[House, House]]:
    """An old box's folder and a new one's, with short paths, since sockets lie in them."""
    homes = [Path(tempfile.mkdtemp(prefix="wf-", dir="/tmp")) for _ in range(2)]
    yield House(homes[0]), House(homes[1])
    for home in homes:
        shutil.rmtree(home)


def _ask(server: Server, key: str) -> httpx.Response:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
        return client.post("/v1/chat/completions", json={"model": model, **QUESTION})


@pytest.mark.timeout(240)  # two boxes, and seven commands
def test_a_box_moves(houses: tuple[House, House]) -> None:
    """People, keys and conversations are in the new box; browsers that were logged in are not."""
    old, new = houses
    file = str(old.home / "box.tar")
    first = old.start()
    try:
        assert first.setup_link is not None
        address, _, token = first.setup_link.partition("/setup#")
        with httpx.Client(base_url=address) as browser:
            browser.post("/api/setup", json={"token": token, "name": "ann", "password": PASSWORD}).raise_for_status()
            browser.post("/api/conversations", json={"title": "My thoughts"}).raise_for_status()
            assert len(browser.get("/api/conversations").json()["conversations"]) == 1
            cookies = browser.cookies
        key = old.ask("key", "create", "--user", "ann")
        assert _ask(first, key).status_code == 200
        assert old.ask("backup", file) == file
        assert old.refusal("restore", file).startswith("WIRTHFORGE is already running")
        assert _ask(first, key).status_code == 200
    finally:
        assert first.stop(signal.SIGINT, within_s=30) == 0
    assert "There is a file" in old.refusal("backup", file)
    # Nobody serves: Postgres is started for it, and ended.
    assert old.ask("backup", file, "--force") == file
    assert "The data folder has a database" in old.refusal("restore", file)

    new.ask("restore", file)
    second = new.start()
    try:
        assert second.setup_link is None
        assert [line.split()[0] for line in new.ask("user", "list").splitlines()] == ["ann"]
        assert _ask(second, key).status_code == 200
        with httpx.Client(base_url=second.url, cookies=cookies) as browser:
            assert browser.get("/api/conversations").status_code == 401
            browser.post("/api/login", json={"name": "ann", "password": PASSWORD}).raise_for_status()
            found = browser.get("/api/conversations").json()["conversations"]
            assert [one["title"] for one in found] == ["My thoughts"]
    finally:
        assert second.stop(signal.SIGINT, within_s=30) == 0
