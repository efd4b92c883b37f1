"""`wirthforge cloud …`"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from server.accounts.users import find
from server.cli.cloud_keys import rekey
from server.cli.options import open_database, run, settings_from, settings_options
from server.clock import SystemClock
from server.db.models import User
from server.db.session import Database
from server.errors import InvalidRequest, NotFound
from server.privacy.checks import FIELDS, MEANINGS, stored
from server.privacy.policies import BOX, Actor, Policies, Whose
from server.privacy.policy import For, InForce, Policy, Scopes, resolve
from server.privacy.version import Version

Command = TypeVar("Command", bound=Callable[..., Any])

ACTOR = Actor("command line")
INHERIT, YES, NO = "inherit", "yes", "no"
_KINDS: Mapping[str, str] = {
    "is_on": "yes|no",
    "mode": "MODE",
    "on_personal_data": "deny|ask|pseudonymise",
    "allows_code": "yes|no",
    "for": "PROVIDER/MODEL=MODE,…",
    "patience_ms": "MS",
    "council_members": "yes|no",
    "detection_model": "NAME",
    "detection_ms": "MS",
}


@click.group()
def cloud() -> None:
    """What may leave this box: policies, and the key that seals what providers gave."""


cloud.add_command(rekey)


@cloud.group()
def policy() -> None:
    """The box's policy and bounds of single people: show, set."""


def _policies(database: Database) -> Policies:
    clock = SystemClock()
    return Policies(database, clock, Version(database, clock))


async def _named(database: Database, name: str) -> User:
    async with database.transaction() as session:
        user = await find(session, name)
    if user is None:
        raise NotFound(f"There is nobody named {name!r}. `wirthforge user list` shows everybody.")
    return user


def _field_options(command: Command) -> Command:
    """An option for every field."""
    for name in reversed(FIELDS["box"]):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, metavar=f"{_KINDS[name]}|{INHERIT}", help=MEANINGS[name])(command)
    return command


@policy.command()
@click.argument("user", required=False)
@settings_options
def show(user: str | None, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Show the box's policy and all bounds; or what is in force for USER, and which rule won."""

    async def work() -> list[str]:
        async with open_database(settings_from(config, **flags)) as database:
            policies = _policies(database)
            if user is None:
                entries = [("box", await policies.box())]
                entries += [(f"user {cap.name}", cap.policy) for cap in await policies.caps()]
                width = max(len(whose) for whose, _ in entries)
                return [f"{whose:<{width}}  {_told(said)}" for whose, said in entries]
            person = await _named(database, user)
            return _in_force((await policies.read(person.id)).scopes, await _names(policies))

    click.echo("\n".join(run(work())))


@policy.command("set")
@click.option("--box", "is_box", is_flag=True, help="For everybody.")
@click.option("--user", "name", help="The most that one person may choose.")
@_field_options
@settings_options
def set_(*, is_box: bool, name: str | None, config: Path | None, **words: Any) -> None:  # noqa: ANN401
    """Set fields; those that are not named stay as they are.

    `inherit` says nothing of a field any more. Of one person only mode, on-personal-data, allows-code and for can be
    set. What people say for themselves they set themselves, in the web client or at /api/cloud/policy.
    """
    if is_box == (name is not None):
        raise InvalidRequest("Say whose policy it is: --box or --user NAME, and one of them only.")
    fields = {field: word for field in FIELDS["box"] if (word := words.pop(field)) is not None}
    if not fields:
        raise InvalidRequest("Name at least one field: `wirthforge cloud policy set --help` lists them.")
    said = {field: _value(field, word) for field, word in fields.items() if word != INHERIT}
    silent = [field for field, word in fields.items() if word == INHERIT]

    async def work() -> str:
        async with open_database(settings_from(config, **words)) as database:
            policies = _policies(database)
            if name is None:
                return f"box  {_told(await policies.amend(ACTOR, BOX, said, silent))}"
            person = await _named(database, name)
            after = await policies.amend(ACTOR, Whose.cap_of(person.id), said, silent)
            return f"user {person.name}  {_told(after)}"

    click.echo(run(work()))


async def _names(policies: Policies) -> list[tuple[str, str]]:
    return [(target.provider, target.model) for target in await policies.targets()]


def _value(field: str, word: str) -> object:
    """What the word means; one that means nothing stays a word, and is refused as such."""
    kind = _KINDS[field]
    if kind == "yes|no":
        return {YES: True, NO: False}.get(word, word)
    if kind == "MS":
        return int(word) if word.isdecimal() else word
    if field == "for":
        return [_exception(each.strip()) for each in word.split(",") if each.strip()]
    return word


def _exception(word: str) -> object:
    target, _, mode = word.rpartition("=")
    provider, _, model = target.partition("/")
    return {"provider": provider, "model": model or "*", "mode": mode}


def _told(said: Policy) -> str:
    fields = stored(said)
    return ", ".join(f"{name} {_word(fields[name])}" for name in FIELDS["box"] if name in fields) or "says nothing"


def _in_force(scopes: Scopes, targets: Sequence[tuple[str, str]]) -> list[str]:
    """Every value and who said it; below it the mode of each model that may be asked."""
    said: InForce = resolve(scopes)
    names = [name for name in FIELDS["box"] if name != "for"]
    # Follows from what is said, and is no field of its own.
    names.insert(names.index("on_personal_data") + 1, "replaces")
    rows = [(name, _word((value := getattr(said, name)).value), value.won_by) for name in names]
    for provider, model in targets:
        mode = resolve(scopes, provider=provider, model=model).mode
        rows.append((f"{provider}/{model}", mode.value, mode.won_by))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{name:<{widths[0]}}  {word:<{widths[1]}}  {won}" for name, word, won in rows]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return YES if value else NO
    if isinstance(value, list):
        entries = msgspec.convert(value, list[For])
        return ",".join(f"{each.provider}/{each.model}={each.mode}" for each in entries) or "none"
    return str(value) or "none"
