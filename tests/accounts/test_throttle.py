"""Guessing is slow: per account and address, per address, and per account."""

import asyncio

import pytest
from redis.asyncio import Redis

from server.accounts.logins import Logins
from server.accounts.throttle import ATTEMPTS_MAX, WINDOW_S, LoginThrottle
from server.accounts.users import Users
from server.errors import NotAuthenticated, TooMany, Unavailable
from tests.accounts.parts import HOME, PASSWORD, CountingHasher
from tests.boxes import Box


@pytest.fixture
def throttle(redis: Redis) -> LoginThrottle:
    """The throttle alone."""
    return LoginThrottle(redis)


async def _fail(logins: Logins, name: str = "ann", address: str = HOME) -> None:
    with pytest.raises(NotAuthenticated):
        await logins.log_in(name, "wrong password", address)


async def test_the_sixth_attempt_waits(users: Users, logins: Logins) -> None:
    """Also with the right password; from elsewhere the owner still gets in."""
    await users.add("ann", "member", PASSWORD)
    for _ in range(5):
        await _fail(logins)
    with pytest.raises(TooMany, match=r"Too many attempts to log in. Try again in 15 minutes.") as caught:
        await logins.log_in("ann", PASSWORD, HOME)
    assert (caught.value.status, caught.value.code) == (429, "too_many_logins")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= WINDOW_S == 900
    assert (await logins.log_in("ANN", PASSWORD, "198.51.100.1"))[0].name == "ann"


async def test_another_case_is_the_same_account(logins: Logins) -> None:
    """Five attempts are five, however the name is written."""
    for name in ("ann", "ANN", "Ann", "aNN", "anN"):
        await _fail(logins, name)
    with pytest.raises(TooMany):
        await logins.log_in("AnN", PASSWORD, HOME)


async def test_success_starts_the_count_anew(users: Users, logins: Logins) -> None:
    """Four mistakes and a success, twice, never reach the limit."""
    await users.add("ann", "member", PASSWORD)
    for _ in range(2):
        for _ in range(4):
            await _fail(logins)
        principal, _ = await logins.log_in("ann", PASSWORD, HOME)
        assert principal.name == "ann"


async def test_a_burst_does_not_slip_through(users: Users, logins: Logins, hasher: CountingHasher) -> None:
    """Of twenty attempts at once, five reach the password."""
    await users.add("ann", "member", PASSWORD)
    attempts = [logins.log_in("ann", "wrong password", HOME) for _ in range(20)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NotAuthenticated"] * 5 + ["TooMany"] * 15
    assert hasher.verified == 5


async def test_one_address_cannot_try_many_accounts(throttle: LoginThrottle) -> None:
    """The thirty-first attempt from one address waits, whatever its account."""
    for number in range(ATTEMPTS_MAX["address"]):
        await throttle.count(f"person{number}", HOME)
    with pytest.raises(TooMany):
        await throttle.count("ann", HOME)
    await throttle.count("ann", "198.51.100.1")


async def test_many_addresses_cannot_try_one_account(throttle: LoginThrottle) -> None:
    """The fifty-first attempt at one account waits, wherever it comes from."""
    for number in range(ATTEMPTS_MAX["account"]):
        await throttle.count("ann", f"192.0.2.{number}")
    with pytest.raises(TooMany):
        await throttle.count("ann", "198.51.100.1")


async def test_one_address_cannot_lock_an_owner_out(throttle: LoginThrottle) -> None:
    """A hundred attempts from one address count as five of the account's fifty."""
    for attempt in range(100):
        if attempt < 5:
            await throttle.count("ann", HOME)
            continue
        with pytest.raises(TooMany):
            await throttle.count("ann", HOME)
    await throttle.count("ann", "198.51.100.1")


async def test_every_count_ends(throttle: LoginThrottle, redis: Redis) -> None:
    """Whatever was counted is forgotten after a quarter of an hour, which later attempts do not extend."""
    await throttle.count("ann", HOME)
    names = [name async for name in redis.scan_iter("wf:login:*")]
    assert len(names) == 3
    for name in names:
        await redis.expire(name, 30)
    await throttle.count("ann", HOME)
    assert all([1 <= await redis.ttl(name) <= 30 for name in names])


async def test_the_wait_is_told_in_whole_minutes(throttle: LoginThrottle, redis: Redis) -> None:
    """Fifty seconds are one minute, and Retry-After is exact."""
    for _ in range(5):
        await throttle.count("ann", HOME)
    await redis.expire(f"wf:login:pair:ann:{HOME}", 50)
    with pytest.raises(TooMany, match=r"Try again in 1 minute\.") as caught:
        await throttle.count("ann", HOME)
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 50


async def test_nobody_logs_in_uncounted(users: Users, logins: Logins, hasher: CountingHasher) -> None:
    """Without Redis the answer is 503, and no password is looked at."""
    await users.add("ann", "member", PASSWORD)
    logins._throttle = LoginThrottle(Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=1))
    with pytest.raises(Unavailable, match="Nobody can log in right now") as caught:
        await logins.log_in("ann", PASSWORD, HOME)
    assert (caught.value.status, caught.value.code) == (503, "login_unavailable")
    assert caught.value.headers == {"Retry-After": "5"}
    assert hasher.verified == 0


async def test_attempts_over_http(box: Box) -> None:
    """Six wrong attempts: five times 401, then 429 with Retry-After, in our shape."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        answers = [
            await client.post("/api/login", json={"name": "ann", "password": "wrong password"}) for _ in range(6)
        ]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 900
    assert answers[5].json()["error"]["code"] == "too_many_logins"


async def test_a_count_always_ends(redis: Redis, users: Users, logins: Logins) -> None:
    """A success that comes after the window's end leaves no count without one."""
    await users.add("ann", "member", PASSWORD)
    await LoginThrottle(redis).forgive("ann", HOME)
    await _fail(logins)
    names = [name async for name in redis.scan_iter("wf:login:*")]
    assert len(names) == 3
    assert all([await redis.ttl(name) > 0 for name in names])
