"""Log-in, and the sessions that it opens."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.accounts.logins import Logins
from server.accounts.users import Users
from server.errors import InvalidRequest, NotAuthenticated, TooMany
from tests.accounts.parts import HOME, PASSWORD, CountingHasher
from tests.clocks import FakeClock


@pytest.fixture(autouse=True)
async def _people(users: Users) -> None:
    await users.add("ann", "admin", PASSWORD)
    await users.add("invited", "member")
    disabled = await users.add("disabled", "member", PASSWORD)
    await users.change(disabled.id, is_disabled=True)


@pytest.mark.parametrize("name", ["ann", "invited", "disabled", "nobody", "a\0b", "x" * 10_000])
async def test_every_wrong_login_looks_the_same(logins: Logins, hasher: CountingHasher, name: str) -> None:
    """One sentence and one hash, whether the name or the password is wrong, so that nobody can find out names."""
    password = PASSWORD if name == "disabled" else "wrong password"
    with pytest.raises(NotAuthenticated) as caught:
        await logins.log_in(name, password, HOME)
    assert (caught.value.status, caught.value.code) == (401, "wrong_login")
    assert caught.value.message == "The name or the password is wrong."
    assert hasher.verified == 1


async def test_a_right_login_costs_as_much(logins: Logins, hasher: CountingHasher) -> None:
    """One hash as well."""
    principal, _ = await logins.log_in("ann", PASSWORD, HOME)
    assert (principal.name, principal.role, principal.key_id) == ("ann", "admin", None)
    assert hasher.verified == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(), password=st.text())
@example("\0", "\0")
async def test_any_text_may_be_tried(logins: Logins, name: str, password: str) -> None:
    """Whatever somebody types, it is wrong, or too often wrong; never the server's mistake."""
    with pytest.raises((NotAuthenticated, TooMany)):
        await logins.log_in(name, password, HOME)


async def test_a_session_ends_when_it_is_not_used(logins: Logins, clock: FakeClock) -> None:
    """Thirty days without use, and the cookie is worth nothing."""
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    clock.advance(timedelta(days=30, seconds=-1))
    other = (await logins.log_in("ann", PASSWORD, HOME))[1]
    clock.advance(timedelta(seconds=1))
    assert await logins.principal(cookie) is None
    assert await logins.principal(other) is not None


async def test_use_prolongs_a_session(logins: Logins, clock: FakeClock) -> None:
    """Used every twenty days, it lives on; unused for thirty, it ends."""
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    for _ in range(5):
        clock.advance(timedelta(days=20))
        assert await logins.principal(cookie) is not None
    clock.advance(timedelta(days=30))
    assert await logins.principal(cookie) is None


async def test_use_in_the_first_half_writes_nothing(logins: Logins, clock: FakeClock) -> None:
    """A session is prolonged in its second half only, so that a busy page costs no writes."""
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    clock.advance(timedelta(days=14))
    assert await logins.principal(cookie) is not None
    clock.advance(timedelta(days=16))
    assert await logins.principal(cookie) is None


async def test_logging_out_ends_one_session(logins: Logins) -> None:
    """The other browser stays."""
    (_, here), (_, there) = [await logins.log_in("ann", PASSWORD, HOME) for _ in range(2)]
    await logins.log_out(here)
    assert await logins.principal(here) is None
    assert await logins.principal(there) is not None


async def test_a_new_password_ends_every_session(users: Users, logins: Logins) -> None:
    """Whoever knew the old one is out."""
    ann = await users.named("ann")
    _, cookie = await logins.log_in("ann", PASSWORD, HOME)
    await users.set_password(ann.id, "another password")
    assert await logins.principal(cookie) is None
    with pytest.raises(NotAuthenticated):
        await logins.log_in("ann", PASSWORD, HOME)
    assert (await logins.log_in("ann", "another password", HOME))[0].id == ann.id


async def test_confirming_is_counted_like_logging_in(logins: Logins, hasher: CountingHasher) -> None:
    """Who has somebody's browser cannot guess their password there any faster than at the door."""
    principal, _ = await logins.log_in("ann", PASSWORD, HOME)
    await logins.confirm(principal, PASSWORD, HOME)
    for _ in range(5):
        with pytest.raises(InvalidRequest, match=r"The current password is wrong.") as caught:
            await logins.confirm(principal, "wrong password", HOME)
        assert (caught.value.code, caught.value.param) == ("wrong_password", "current")
    with pytest.raises(TooMany):
        await logins.confirm(principal, PASSWORD, HOME)
    assert hasher.verified == 7
