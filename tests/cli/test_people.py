"""The commands that work on a running server: people and their keys."""

import json
import zipfile
from pathlib import Path

import httpx

from server.embedded.models import DEMONSTRATION
from tests.cli.programs import NEWEST, House, Server

PASSWORD = "correct horse battery"
Open = tuple[House, Server]


def _status(url: str, key: str) -> int:
    return httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def _login(url: str, name: str, password: str) -> int:
    return httpx.post(f"{url}/api/login", json={"name": name, "password": password}).status_code


def test_up_says_what_it_does(open_house: Open) -> None:
    """Every part, in a column; then the link for the first admin, the address, and how to stop."""
    house, server = open_house
    names = [path.stem for path in DEMONSTRATION]
    width = max(map(len, names))
    assert server.lines[0].endswith(f"data in {house.data}")
    for name, state in (
        ("postgres", "ready"),
        ("redis", "ready"),
        *((each, "ready") for each in names),
        ("schema", "at"),
    ):
        assert any(line.startswith(f"  {name:<{width}}  {state}") for line in server.lines), name
    assert server.setup_link is not None
    assert server.setup_link.startswith(f"{server.url}/setup#")
    assert httpx.get(f"{server.url}/readyz").json()["status"] == "ready"


def test_a_second_server_is_told_where_the_first_is(open_house: Open) -> None:
    """One sentence, whichever port it asks for."""
    house, server = open_house
    port = server.url.rpartition(":")[2]
    for wanted in ("0", port):
        sentence = house.refusal("up", "--port", wanted)
        assert sentence.startswith("WIRTHFORGE is already running (pid ")
        assert f" at {server.url} with the data folder {house.data}." in sentence


def test_a_person_with_a_password(open_house: Open) -> None:
    """Added from standard input, they log in at once; the name is taken then."""
    house, server = open_house
    added = house.ask("user", "add", "ann", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert added == "ann was added."
    assert _login(server.url, "ann", PASSWORD) == 200
    assert house.refusal("user", "add", "ANN") == "The name 'ANN' is taken."
    assert house.refusal("user", "add", "a b").startswith("A name begins with a letter or digit")
    short = house.refusal("user", "add", "eve", "--password-stdin", stdin="short\n")
    assert short == "A password has at least 10 characters."
    garbled = house.refusal("user", "add", "eve", "--password-stdin", stdin=b"\xff" * 12)
    assert garbled == "The password on standard input is not UTF-8."


def test_a_key_for_a_script(open_house: Open) -> None:
    """`key create` prints the key and nothing else; it works, is listed without its secret, and is revoked."""
    house, server = open_house
    house.ask("user", "add", "cleo")
    key = house.ask("key", "create", "--user", "CLEO", "--label", "cron", "--days", "3")
    assert key.startswith("wf-")
    assert len(key.split()) == 1
    assert _status(server.url, key) == 200
    listed = house.ask("key", "list", "--user", "cleo")
    assert listed.startswith(f"{key[:11]}…  cron ")
    assert "expires 20" in listed
    assert key not in listed
    assert house.ask("key", "revoke", f"{key[:11]}…", "--user", "cleo") == "The key is revoked."
    assert _status(server.url, key) == 401
    gone = house.refusal("key", "revoke", key[:11], "--user", "cleo")
    assert gone == f"cleo has 0 keys that begin with {key[:11]!r}; `key list` shows them."


def test_a_person_is_locked_out_and_let_in(open_house: Open) -> None:
    """`user list` shows who may come in; a disabled person's key stops at once."""
    house, server = open_house
    link = house.ask("user", "add", "dora")
    assert link.startswith(f"{server.url}/setup#")
    key = house.ask("key", "create", "--user", "dora")
    states = dict(line.split()[::2] for line in house.ask("user", "list").splitlines())
    assert states["dora"] == "invited"
    assert house.ask("user", "disable", "dora") == "dora is disabled."
    assert _status(server.url, key) == 401
    assert "disabled" in house.ask("user", "list")
    assert house.ask("user", "enable", "dora") == "dora is enabled."
    assert _status(server.url, key) == 200
    nobody = house.refusal("user", "disable", "nobody")
    assert nobody == "There is nobody named 'nobody'. `wirthforge user list` shows everybody."


def test_a_forgotten_password(open_house: Open) -> None:
    """`reset-password` prints a whole link, which works; or takes the new password."""
    house, server = open_house
    house.ask("user", "add", "emil", "--password-stdin", stdin=f"{PASSWORD}\n")
    link = house.ask("user", "reset-password", "emil")
    address, _, token = link.partition("/setup#")
    assert address == server.url
    body = {"token": token, "password": "another password"}
    assert httpx.post(f"{address}/api/setup", json=body).json()["name"] == "emil"
    assert _login(server.url, "emil", "another password") == 200
    reset = house.ask("user", "reset-password", "emil", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert reset == "emil has a new password."
    assert _login(server.url, "emil", PASSWORD) == 200


def test_doctor_sees_the_server(open_house: Open) -> None:
    """Where it runs is the first thing that somebody in trouble wants to know."""
    house, server = open_house
    lines = house.run("doctor").stdout.splitlines()
    assert any("running as process " in line and line.endswith(f" at {server.url}") for line in lines)


def test_migrating_under_a_running_server(open_house: Open) -> None:
    """There is nothing to do, and it says so."""
    house, _ = open_house
    assert house.ask("migrate") == f"The database is at revision {NEWEST} already."


def test_a_person_takes_everything_along_and_goes(open_house: Open, tmp_path: Path) -> None:
    """A zip file with their data; then nothing of them is left, and the receipt says so. It must be meant."""
    house, server = open_house
    house.ask("user", "add", "fay")
    key = house.ask("key", "create", "--user", "fay", "--label", "cron")
    said = {"model": DEMONSTRATION[0].stem, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=said, headers=headers, timeout=60).status_code == 200
    file = tmp_path / "fay.zip"
    assert house.ask("user", "export", "FAY", str(file)) == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(file) as found:
        assert json.loads(found.read("users.json"))[0]["name"] == "fay"
        assert json.loads(found.read("api_keys.json"))[0]["label"] == "cron"
    assert house.refusal("user", "export", "fay", str(file)) == f"{file} is there already."
    assert house.refusal("user", "export", "fay", str(tmp_path / "no" / "fay.zip")).endswith(
        "cannot be written: No such file or directory."
    )
    unsure = house.refusal("user", "remove", "fay")
    assert unsure.startswith("This removes everything that fay has, for good: say --everything.")
    receipt = json.loads(house.ask("user", "remove", "fay", "--everything", "--usage", "nothing"))
    assert receipt["done_at"] is not None
    assert (receipt["asked_by"], receipt["done"]["tables"]["api_keys"]) == (None, 1)
    assert _status(server.url, key) == 401
    assert "fay" not in house.ask("user", "list")
    assert house.refusal("user", "remove", "fay", "--everything").startswith("There is nobody named 'fay'.")
    assert "departures" in house.ask("upkeep", "status")
