"""People: who may be added under which name, and who may stop being an admin."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.passwords import LENGTH_MAX, LENGTH_MIN, Passwords
from server.accounts.users import NAME, Users
from server.errors import Conflict, InvalidRequest, NotFound
from tests.accounts.parts import HOME, PASSWORD

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
# Each example uses the same database: names that were taken by an earlier one are refused as such.
SHARED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED
@given(name=ANY_TEXT)
@example("a\0b")
@example("x" * 10_000)
@example("\ud800")
@example("İlker")
@example("ann\n")
async def test_any_text_is_a_name_or_is_refused(users: Users, name: str) -> None:
    """Whatever a name holds, it is taken as the pattern says or refused with the pattern's sentence."""
    if NAME.fullmatch(name):
        with suppress(Conflict):
            await users.add(name, "member")
        assert (await users.named(name)).name.lower() == name.lower()
    else:
        with pytest.raises(InvalidRequest, match="A name begins") as caught:
            await users.add(name, "member")
        assert caught.value.param == "name"


async def test_names_that_will_do(users: Users) -> None:
    """Letters and digits of any script, then also dots, at signs, underscores and dashes."""
    for name in ("ann", "7", "a.b@c-d_e", "Jürgen", "李", "x" * 64):
        assert (await users.add(name, "member")).name == name


async def test_names_that_will_not_do(users: Users) -> None:
    """Nothing that could be mistaken for a path, a flag, or another name."""
    for name in ("", " ann", "an n", "-ann", "_ann", "a/b", "a:b", "x" * 65, "ann\0", "ann\n", "a\r\nb"):
        with pytest.raises(InvalidRequest, match="A name begins with a letter or digit"):
            await users.add(name, "member")


async def test_a_name_is_taken_in_every_case(users: Users) -> None:
    """Names differ by more than upper and lower case."""
    for first, second in (("ann", "ann"), ("ben", "BEN"), ("Jürgen", "JÜRGEN")):
        await users.add(first, "member")
        with pytest.raises(Conflict, match="is taken") as caught:
            await users.add(second, "member")
        assert (caught.value.status, caught.value.code, caught.value.param) == (409, "name_taken", "name")


async def test_two_who_are_added_at_once_under_one_name(users: Users) -> None:
    """One is added, the other's name is taken."""
    results = await asyncio.gather(*(users.add("ann", "member") for _ in range(5)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 4 + ["User"]


@pytest.mark.parametrize(("added", "asked"), [("Ann", "aNN"), ("İlker", "İlker"), ("Straße", "straße")])
async def test_a_person_is_found_in_every_case(users: Users, logins: Logins, added: str, asked: str) -> None:
    """Looking somebody up, and logging in, agree with the database about what a lower case is."""
    person = await users.add(added, "member", PASSWORD)
    assert (await users.named(asked)).id == person.id
    principal, _ = await logins.log_in(asked, PASSWORD, HOME)
    assert principal.name == added


async def test_nobody_has_that_name(users: Users) -> None:
    """The sentence says how to see who there is."""
    with pytest.raises(NotFound, match=r"There is nobody named 'ann'. `wirthforge user list` shows everybody."):
        await users.named("ann")


async def test_passwords_that_will_not_do(users: Users) -> None:
    """Too short is guessed, too long is work; nobody is added."""
    for length in (0, 1, LENGTH_MIN - 1, LENGTH_MAX + 1, 1_000_000):
        with pytest.raises(InvalidRequest, match="A password has at") as caught:
            await users.add("ann", "member", "x" * length)
        assert caught.value.param == "password"
    assert await users.all() == []


@pytest.mark.parametrize("password", ["x" * LENGTH_MIN, "ä" * LENGTH_MAX, "\0" * 10, "🔑 a b c d e", "  spaces  "])
async def test_passwords_that_will_do(passwords: Passwords, password: str) -> None:
    """Any characters, none of them lost."""
    stored = await passwords.hash(password)
    assert await passwords.matches(password, stored)
    assert not await passwords.matches(password[:-1], stored)
    assert not await passwords.matches(password.strip() + "!", stored)


async def test_a_hash_that_is_none_matches_nothing(passwords: Passwords) -> None:
    """A column that somebody edited by hand locks its owner out, and breaks nothing."""
    assert not await passwords.matches(PASSWORD, "not a hash")


async def test_the_last_admin_stays(users: Users) -> None:
    """They can be neither demoted nor disabled, until there is another."""
    ann = await users.add("ann", "admin")
    for change in ({"role": "member"}, {"is_disabled": True}):
        with pytest.raises(Conflict, match="The last admin stays") as caught:
            await users.change(ann.id, **change)
        assert caught.value.code == "last_admin"
    assert [(person.role, person.disabled_at) for person in await users.all()] == [("admin", None)]
    await users.add("ben", "admin")
    assert (await users.change(ann.id, role="member")).role == "member"


async def test_a_disabled_admin_does_not_count(users: Users) -> None:
    """Somebody who cannot log in cannot be the one who remains."""
    ann, ben = await users.add("ann", "admin"), await users.add("ben", "admin")
    await users.change(ben.id, is_disabled=True)
    with pytest.raises(Conflict, match="The last admin stays"):
        await users.change(ann.id, role="member")


async def test_two_admins_who_demote_each_other_at_once(users: Users) -> None:
    """One of them stays, in every one of many races."""
    ann, ben = await users.add("ann", "admin"), await users.add("ben", "admin")
    for race in range(20):
        results = await asyncio.gather(
            users.change(ann.id, role="member"),
            users.change(ben.id, is_disabled=True) if race % 2 else users.change(ben.id, role="member"),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "User"]
        stayed = [person.name for person in await users.all() if person.role == "admin" and not person.disabled_at]
        assert len(stayed) == 1
        for person in (ann, ben):
            await users.change(person.id, role="admin", is_disabled=False)


async def test_disabling_ends_sessions_and_keys_at_once(users: Users, logins: Logins, keys: ApiKeys) -> None:
    """Enabled again, the keys work, and the browser must log in anew."""
    ann = await users.add("ann", "member", PASSWORD)
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    _, key = await keys.create(ann.id, "program")
    await users.change(ann.id, is_disabled=True)
    assert await logins.principal(cookie) is None
    assert await keys.principal(key) is None
    await users.change(ann.id, is_disabled=False)
    assert await logins.principal(cookie) is None
    assert await keys.principal(key) is not None
