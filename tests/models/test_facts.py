"""What the built-in models are taught is true of the product; after a change these tests name what to train again."""

import json
import re
from importlib import import_module
from pathlib import Path

import click
import msgspec
import pytest
from litestar import Litestar

from quotas.policy import Limits
from server.api.scope import RequestScopes
from server.app import create_app
from server.cli import wirthforge
from server.settings import Settings
from tools.models import texts

HOUSE = Path(__file__).parents[2]
FACTS = texts.told()
# A constant may be an entry of a table: MODULE:NAME[KEY].
CONSTANT = re.compile(r"(?P<module>[\w.]+):(?P<name>\w+)(?:\[(?P<key>\w+)\])?")
PAGE = re.compile(r"title: '([^']+)'")


@pytest.fixture(scope="module")
def routes() -> dict[str, set[str]]:
    """The methods of each path that the server knows."""
    app = create_app(Settings(database_url="postgresql:///", redis_url="redis://"), engines=[])
    assert isinstance(app, RequestScopes)
    assert isinstance(app.app, Litestar)
    paths = app.app.openapi_schema.to_schema()["paths"]
    return {path: {method.upper() for method in methods} for path, methods in paths.items()}


def _command(words: list[str]) -> click.Command:
    found: click.Command = wirthforge
    for word in words:
        assert isinstance(found, click.Group), f"{found.name} has no subcommands"
        below = found.get_command(click.Context(found), word)
        assert below is not None, f"{found.name} has no {word}"
        found = below
    return found


def _value(kind: str, rest: str) -> str:
    """A number or word of the product, as text."""
    if kind == "setting":
        return str({field.name: field.default for field in msgspec.structs.fields(Settings)}[rest])
    if kind == "limit":
        return str(getattr(Limits(), rest))
    where = CONSTANT.fullmatch(rest)
    assert where is not None
    found = getattr(import_module(where["module"]), where["name"])
    return str(found if where["key"] is None else found[where["key"]])


def _is_so(kind: str, rest: str, value: str, routes: dict[str, set[str]]) -> bool:
    match kind:
        case "setting" | "limit" | "constant":
            return _value(kind, rest) == value
        case "command":
            words = rest.split()
            command = _command([word for word in words if not word.startswith("--")])
            options = {flag for each in command.params for flag in each.opts}
            return {word for word in words if word.startswith("--")} <= options
        case "route":
            method, _, path = rest.partition(" ")
            return method in routes.get(path, set())
        case "page":
            return rest in PAGE.findall((HOUSE / "client" / "src" / "shell" / "pages.ts").read_text())
        case "text":
            file, _, quoted = rest.partition(": ")
            return " ".join(quoted.split()) in " ".join((HOUSE / file).read_text().split())
        case _:
            return False


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_is_true_of_the_product(name: str, routes: dict[str, set[str]]) -> None:
    """Where facts.toml says that it is from, the product says the same."""
    fact = FACTS[name]
    kind, _, rest = fact["from"].partition(" ")
    asking = [question.name for question in texts.questions() if name in question.facts]
    assert _is_so(kind, rest, fact.get("value", fact["says"]), routes), (
        f"{name} is no longer {fact['says']!r} ({fact['from']}). Correct tools/models/facts.toml, then run "
        f"`make models`: the answers to {', '.join(asking)} have to be trained again."
    )


@pytest.mark.parametrize("name", [name for name in FACTS if "value" in FACTS[name]])
def test_a_time_or_size_is_told_in_its_unit(name: str) -> None:
    """Minutes, seconds and mebibytes that are said are the number that stands in the product."""
    said, value = FACTS[name]["says"], FACTS[name]["value"]
    units = {"minutes": 60_000, "seconds": 1_000, "MiB": 2**20, "GiB": 2**30}
    words = {"ten": 10}
    match said.split():
        case [number, unit]:
            assert words.get(number) or int(number)
            assert (words.get(number) or int(number)) * units[unit] == int(value)
        case [number] if name.endswith("_minutes"):
            assert int(number) * 60 == int(value)
        case _:
            assert re.findall(r"\d+", said) == re.findall(r"\d+", value)


def test_every_fact_is_taught() -> None:
    """No fact stands there without an answer that tells it."""
    taught = {name for question in texts.questions() for name in question.facts}
    assert set(FACTS) - taught == set()


def test_commands_and_paths_in_answers_are_facts() -> None:
    """An answer does not write a command or an API path by hand, so none can grow old unseen."""
    by_hand = {
        question.name: found
        for question in texts.questions()
        for answer in question.written
        if (
            found := re.findall(
                r"wirthforge (?:user|key|quota|models|bench|serve|doctor|migrate) \w+|/api/\w+|/v1/\w+", answer
            )
        )
    }
    assert {name: found for name, found in by_hand.items() if name != "people.password-admin"} == {}


@pytest.mark.xfail(strict=True, reason="the texts are ahead of the models: the next `make models` teaches them")
def test_shipped_models_were_taught_the_facts_of_today() -> None:
    """What changed since the last training is named, with the questions that tell it."""
    taught = json.loads((HOUSE / "server" / "embedded" / "models" / "taught.json").read_text())
    today = texts.facts()
    changed = sorted(name for name in taught.keys() | today.keys() if taught.get(name) != today.get(name))
    asking = sorted({question.name for question in texts.questions() if question.facts & set(changed)})
    assert changed == [], f"Run `make models`: {', '.join(changed)} changed, told by {', '.join(asking)}."
