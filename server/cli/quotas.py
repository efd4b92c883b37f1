"""`wirthforge quota …`"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from quotas.policy import LIMITS, LISTS, MEANINGS, Resolved, Rule, Value
from server.accounts.quotas import DEFAULT, Actor, Change, Scope
from server.accounts.users import Users
from server.cli.options import open_rooms, run, settings_from, settings_options
from server.errors import InvalidRequest
from server.messages import Role

Command = TypeVar("Command", bound=Callable[..., Any])

ACTOR = Actor("command line")
REDIS_S_MAX = 2
UNLIMITED, INHERIT = "unlimited", "inherit"


@click.group()
def quota() -> None:
    """Quotas: show, set, clear."""


def _scope_options(command: Command) -> Command:
    """Whose rule it is: one of three."""
    everybody = click.option("--default", "is_default", is_flag=True, help="The rule for everybody.")
    role = click.option("--role", type=click.Choice(["admin", "member"]), help="The rule of a role.")
    user = click.option("--user", "name", help="The rule of a person.")
    return everybody(role(user(command)))


def _limit_options(command: Command) -> Command:
    """An option for every limit."""
    for name in reversed(LIMITS):
        kind = "NAMES" if name in LISTS else "N"
        words = INHERIT if name == "weight" else f"{UNLIMITED}|{INHERIT}"
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, metavar=f"{kind}|{words}", help=MEANINGS[name])(command)
    return command


async def _scope(users: Users, *, is_default: bool, role: str | None, name: str | None) -> Scope:
    if is_default + (role is not None) + (name is not None) != 1:
        raise InvalidRequest("Say whose quota it is: --default, --role ROLE or --user NAME, and one of them only.")
    if name is not None:
        return Scope.of_user((await users.named(name)).id)
    return DEFAULT if role is None else Scope.of_role(cast("Role", role))


@quota.command()
@click.argument("user", required=False)
@settings_options
def show(user: str | None, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Show all rules; or what is in force for USER, and which rule won."""

    async def work() -> list[str]:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            if user is not None:
                return _in_force(await rooms.quotas.in_force((await rooms.users.named(user)).id))
            entries = [(entry.subject, _told(entry.rule)) for entry in await rooms.quotas.rules()]
        width = max((len(subject) for subject, _ in entries), default=0)
        return [f"{subject:<{width}}  {rule}" for subject, rule in entries] or ["There are no rules."]

    click.echo("\n".join(run(work())))


@quota.command("set")
@_scope_options
@_limit_options
@settings_options
def set_(*, is_default: bool, role: str | None, name: str | None, config: Path | None, **words: Any) -> None:  # noqa: ANN401
    """Set limits; those that are not named stay as they are.

    `unlimited` lifts a limit, `inherit` leaves it to weaker rules. Models are divided by commas; '' is none at all.
    """
    limits = {limit: word for limit in LIMITS if (word := words.pop(limit)) is not None}
    if not limits:
        raise InvalidRequest("Name at least one limit: `wirthforge quota set --help` lists them.")
    values = {limit: _value(limit, word) for limit, word in limits.items() if word != INHERIT}
    inherited = [limit for limit, word in limits.items() if word == INHERIT]

    async def work() -> tuple[str, Change]:
        async with open_rooms(settings_from(config, **words)) as rooms:
            scope = await _scope(rooms.users, is_default=is_default, role=role, name=name)
            change = await rooms.quotas.amend_rule(ACTOR, scope, values, inherited)
            return (await rooms.quotas.standing(scope)).subject, change

    _tell(*run(work()))


@quota.command()
@_scope_options
@settings_options
def clear(*, is_default: bool, role: str | None, name: str | None, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Remove a rule: weaker ones hold."""

    async def work() -> tuple[str, Change]:
        async with open_rooms(settings_from(config, **flags)) as rooms:
            scope = await _scope(rooms.users, is_default=is_default, role=role, name=name)
            change = await rooms.quotas.clear_rule(ACTOR, scope)
            return (await rooms.quotas.standing(scope)).subject, change

    _tell(*run(work()))


def _value(limit: str, word: str) -> object:
    """What the word means; one that is no number stays a word, and is refused as such."""
    if word == UNLIMITED:
        return None
    if limit in LISTS:
        return [part.strip() for part in word.split(",") if part.strip()]
    try:
        return int(word)
    except ValueError:
        return word


def _tell(subject: str, change: Change) -> None:
    click.echo(f"{subject}  {_told(change.rule)}")


def _told(rule: Rule) -> str:
    return ", ".join(f"{name} {_word(rule[name])}" for name in LIMITS if name in rule) or "has no rule"


def _in_force(resolved: Resolved) -> list[str]:
    words: Mapping[str, str] = {name: _word(resolved.value(name)) for name in LIMITS}
    name_width, word_width = (max(map(len, column)) for column in (words.keys(), words.values()))
    return [f"{name:<{name_width}}  {word:<{word_width}}  {resolved.won[name]}" for name, word in words.items()]


def _word(value: Value) -> str:
    if value is None:
        return UNLIMITED
    if isinstance(value, list):
        return ",".join(value) or "none"
    return str(value)
