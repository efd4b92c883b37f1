"""Set-up links: how somebody chooses a password without an admin seeing it."""

import asyncio
from datetime import timedelta

import pytest

from server.accounts.logins import Logins
from server.accounts.users import Users
from server.errors import Conflict, InvalidRequest, NotFound
from tests.accounts.parts import HOME, PASSWORD
from tests.clocks import FakeClock

DEAD = "This set-up link was used already, or has expired."


async def _invited(users: Users, name: str = "ann") -> str:
    return await users.invite((await users.add(name, "member")).id)


async def test_a_link_works_once(users: Users, logins: Logins) -> None:
    """It says whom it is for, sets the password, and is over."""
    link = await _invited(users)
    assert (await users.invited(link)).name == "ann"
    assert (await users.accept(link, None, PASSWORD)).name == "ann"
    with pytest.raises(NotFound, match=DEAD) as caught:
        await users.invited(link)
    assert caught.value.code == "setup_link_invalid"
    with pytest.raises(NotFound, match=DEAD):
        await users.accept(link, None, "another password")
    assert (await logins.log_in("ann", PASSWORD, HOME))[0].name == "ann"


async def test_a_link_works_for_a_day(users: Users, clock: FakeClock) -> None:
    """A second before it ends it is good; then it is not."""
    link = await _invited(users)
    clock.advance(timedelta(hours=24, seconds=-1))
    assert (await users.invited(link)).name == "ann"
    clock.advance(timedelta(seconds=1))
    with pytest.raises(NotFound, match=DEAD):
        await users.accept(link, None, PASSWORD)


async def test_who_follows_a_link_may_choose_the_name(users: Users) -> None:
    """The name that the admin wrote was a suggestion."""
    link = await _invited(users, "admin")
    await users.accept(link, "Ann", PASSWORD)
    assert [person.name for person in await users.all()] == ["Ann"]


async def test_a_fault_leaves_the_link_good(users: Users) -> None:
    """A taken name, a wrong one, a short password: try again with the same link."""
    await users.add("Ben", "member")
    link = await _invited(users)
    with pytest.raises(Conflict, match=r"The name 'ben' is taken."):
        await users.accept(link, "ben", PASSWORD)
    with pytest.raises(InvalidRequest, match="A name begins"):
        await users.accept(link, "a b", PASSWORD)
    with pytest.raises(InvalidRequest, match=r"A password has at least 10 characters."):
        await users.accept(link, "ann", "short")
    assert (await users.accept(link, "cleo", PASSWORD)).name == "cleo"


async def test_a_new_link_replaces_the_old_one(users: Users) -> None:
    """Only the newest works."""
    ann = await users.add("ann", "member")
    old, new = await users.invite(ann.id), await users.invite(ann.id)
    with pytest.raises(NotFound, match=DEAD):
        await users.invited(old)
    assert (await users.accept(new, None, PASSWORD)).id == ann.id


async def test_two_who_use_a_link_at_once(users: Users, logins: Logins) -> None:
    """One wins, and it is the winner's password that works."""
    link = await _invited(users)
    words = [f"password number {number}" for number in range(4)]
    results = await asyncio.gather(*(users.accept(link, None, word) for word in words), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NotFound"] * 3 + ["User"]
    winner = next(word for word, result in zip(words, results, strict=True) if not isinstance(result, BaseException))
    assert (await logins.log_in("ann", winner, HOME))[0].name == "ann"


async def test_using_and_replacing_a_link_at_once(users: Users) -> None:
    """Whichever comes first, neither waits for the other for ever."""
    ann = await users.add("ann", "member")
    for _ in range(20):
        link = await users.invite(ann.id)
        used, replaced = await asyncio.gather(
            users.accept(link, None, PASSWORD), users.invite(ann.id), return_exceptions=True
        )
        assert isinstance(replaced, str)
        assert not isinstance(used, BaseException) or isinstance(used, NotFound)


async def test_disabled_people_have_no_use_for_a_link(users: Users) -> None:
    """Nobody enables themselves."""
    link = await _invited(users)
    await users.change((await users.named("ann")).id, is_disabled=True)
    with pytest.raises(NotFound, match=DEAD):
        await users.accept(link, None, PASSWORD)


async def test_the_link_of_the_first_admin(users: Users) -> None:
    """A box awaits its first admin until they have a password; another admin is enough, too."""
    assert await users.awaits_first_admin() is None
    admin = await users.add("admin", "admin")
    awaited = await users.awaits_first_admin()
    assert awaited is not None
    assert awaited.id == admin.id
    await users.accept(await users.invite(admin.id), "ann", PASSWORD)
    assert await users.awaits_first_admin() is None


@pytest.mark.parametrize("token", ["", "x", "\0", "ä" * 10_000])
async def test_links_that_nobody_made(users: Users, token: str) -> None:
    """They are as dead as used ones."""
    with pytest.raises(NotFound, match=DEAD):
        await users.accept(token, None, PASSWORD)
