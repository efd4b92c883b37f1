"""Wrong credentials are counted for each address, and never stand in the way of good ones."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from server.accounts import refusals as module
from server.accounts.addresses import counted_as
from server.accounts.refusals import LOOKUPS_AT_ONCE_MAX, Refusals
from server.errors import NotFound, TooMany
from tests.accounts.parts import HOME
from tests.clocks import FakeClock

ELSEWHERE = "198.51.100.1"
MAX = 5


class Postgres:
    """Stands in for the table of credentials, and counts how often it was asked."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.asked = 0
        self.at_once = 0
        self.at_once_max = 0

    async def look(self, refusals: Refusals, secret: str, address: str = HOME) -> bool:
        """Ask as `Authentication` does."""
        async with refusals.attempt(address, secret) as attempt:
            self.asked += 1
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
            await _others()
            self.at_once -= 1
            attempt.is_good = secret in self.good
        return bool(attempt.is_good)


async def _others() -> None:
    """Let other tasks go first."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


@pytest.fixture
def refusals(redis: Redis, clock: FakeClock) -> Refusals:
    """One server's."""
    return Refusals(redis, clock, per_minute_max=MAX)


async def _bar(refusals: Refusals, address: str = HOME) -> None:
    postgres = Postgres()
    for number in range(MAX):
        assert not await postgres.look(refusals, f"wrong-{number}", address)


async def test_after_so_many_nobody_is_asked(refusals: Refusals) -> None:
    """The sixth wrong key gets a 429 that says when to come again, and Postgres hears nothing of it."""
    await _bar(refusals)
    postgres = Postgres("good")
    for secret in ("wrong", "good"):  # which of them is good nobody knows yet
        with pytest.raises(TooMany, match=r"Try again in \d+ seconds?\.") as caught:
            await postgres.look(refusals, secret)
        assert (caught.value.status, caught.value.code) == (429, "too_many_refusals")
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    assert postgres.asked == 0
    assert await postgres.look(refusals, "good", ELSEWHERE)


async def test_the_minute_ends(refusals: Refusals, clock: FakeClock, redis: Redis) -> None:
    """Then there are as many attempts again; the count in Redis ends by itself."""
    await _bar(refusals)
    assert 0 < await redis.pttl(f"wf:refused:{HOME}") <= 60_000
    await redis.delete(f"wf:refused:{HOME}")
    clock.advance(timedelta(seconds=61))
    await _bar(refusals)
    with pytest.raises(TooMany):
        await Postgres().look(refusals, "wrong")


async def test_a_good_key_goes_on_at_a_barred_address(refusals: Refusals) -> None:
    """Whoever was known before does not notice what somebody else behind the same address does."""
    postgres = Postgres("good")
    assert await postgres.look(refusals, "good")
    await _bar(refusals)
    for _ in range(3):
        assert await postgres.look(refusals, "good")


async def test_a_good_key_goes_on_at_another_server(redis: Redis, clock: FakeClock, refusals: Refusals) -> None:
    """A server that has never seen the key hears from Redis that it was good."""
    postgres = Postgres("good")
    assert await postgres.look(refusals, "good")
    other = Refusals(redis, clock, per_minute_max=MAX)
    await _bar(other)
    assert await postgres.look(other, "good")


async def test_a_key_that_was_revoked_is_no_way_in(refusals: Refusals) -> None:
    """It passes once, is refused, counts, and is unknown from then on."""
    postgres = Postgres("good")
    assert await postgres.look(refusals, "good")
    await _bar(refusals)
    postgres.good.clear()
    assert not await postgres.look(refusals, "good")
    with pytest.raises(TooMany):
        await postgres.look(refusals, "good")


async def test_what_was_made_just_now_is_good(refusals: Refusals) -> None:
    """A login or a key of somebody at a barred address works at once."""
    await _bar(refusals)
    await refusals.trust("fresh")
    assert await Postgres("fresh").look(refusals, "fresh")


async def test_servers_count_together(redis: Redis, clock: FakeClock) -> None:
    """Two servers allow one attempt more than one: the second hears of the bar with its first refusal."""
    postgres = Postgres()
    one, two = (Refusals(redis, clock, per_minute_max=MAX) for _ in range(2))
    await _bar(one)
    assert not await postgres.look(two, "wrong")
    with pytest.raises(TooMany):
        await postgres.look(two, "wrong")


async def test_a_burst_does_not_slip_through(refusals: Refusals) -> None:
    """Of two hundred at once no more are asked for than the bound and those under way."""
    postgres = Postgres()
    looks = [postgres.look(refusals, f"wrong-{number}") for number in range(200)]
    results = await asyncio.gather(*looks, return_exceptions=True)
    assert postgres.at_once_max <= LOOKUPS_AT_ONCE_MAX
    assert MAX <= postgres.asked < MAX + LOOKUPS_AT_ONCE_MAX
    assert sum(isinstance(result, TooMany) for result in results) == 200 - postgres.asked


async def test_a_set_up_link_that_is_not_found_counts(refusals: Refusals) -> None:
    """What raises NotFound was wrong; other faults say nothing about the credential."""
    for _ in range(MAX):
        with pytest.raises(NotFound):
            async with refusals.attempt(HOME, "link"):
                raise NotFound("This set-up link was used already.")
    with pytest.raises(TooMany):
        async with refusals.attempt(HOME, "link"):
            pass
    for _ in range(2 * MAX):
        with pytest.raises(ValueError, match="name"):
            async with refusals.attempt(ELSEWHERE, "link"):
                raise ValueError("the name will not do")
    async with refusals.attempt(ELSEWHERE, "link"):
        pass


async def test_whoever_hangs_up_has_asked(refusals: Refusals) -> None:
    """An attempt that is cancelled before its answer counts."""
    for number in range(MAX):
        with pytest.raises(asyncio.CancelledError):
            async with refusals.attempt(HOME, f"wrong-{number}"):
                raise asyncio.CancelledError
    with pytest.raises(TooMany):
        await Postgres().look(refusals, "wrong")


async def test_without_redis_each_server_counts(clock: FakeClock) -> None:
    """Good ones go on, wrong ones are counted here, and after the bar only known ones pass."""
    away = Refusals(Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=1), clock, per_minute_max=MAX)
    postgres = Postgres("good")
    assert await postgres.look(away, "good")
    await _bar(away)
    assert await postgres.look(away, "good")
    with pytest.raises(TooMany):
        await postgres.look(away, "wrong")


async def test_zero_is_no_bound(redis: Redis, clock: FakeClock) -> None:
    """Nothing is counted, nothing is written."""
    unbounded = Refusals(redis, clock, per_minute_max=0)
    postgres = Postgres("good")
    for number in range(200):
        assert not await postgres.look(unbounded, f"wrong-{number}")
    assert await postgres.look(unbounded, "good")
    assert [name async for name in redis.scan_iter("wf:*")] == []


async def test_good_ones_ask_redis_nothing(refusals: Refusals, redis: Redis) -> None:
    """After the first look a good credential costs Redis nothing, whatever its address does."""
    postgres = Postgres("good")
    assert await postgres.look(refusals, "good")
    await _bar(refusals)
    before = (await redis.info("stats"))["total_commands_processed"]
    for _ in range(50):
        assert await postgres.look(refusals, "good")
    # `info` counts itself.
    assert (await redis.info("stats"))["total_commands_processed"] - before == 1


async def test_memory_is_bounded(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from ever new addresses, or of ever new keys, pushes out what is oldest."""
    monkeypatch.setattr(module, "ADDRESSES_MAX", 10)
    monkeypatch.setattr(module, "GOOD_MAX", 10)
    names = [str(number) for number in range(30)]
    postgres = Postgres(*names)
    for name in names:
        await postgres.look(refusals, "wrong", f"192.0.2.{name}")
        await postgres.look(refusals, name)
    assert len(refusals._minutes) == len(refusals._good) == 10
    assert len(refusals._turns) == 0


async def test_redis_holds_no_credential(refusals: Refusals, redis: Redis) -> None:
    """Neither names nor values hold the key or the whole of what Postgres stores of it."""
    await Postgres("wf-secret").look(refusals, "wf-secret")
    names = [name async for name in redis.scan_iter("*")]
    assert len(names) == 1
    assert "secret" not in names[0]
    assert len(names[0].rpartition(":")[2]) == 32


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_as_what_an_address_counts(address: str, name: str) -> None:
    """IPv4 by itself, IPv6 by its network."""
    assert counted_as(address) == name


@given(st.ip_addresses(v=6), st.integers(min_value=0, max_value=2**64 - 1))
def test_a_network_counts_as_one(address: object, host: int) -> None:
    """Another host of the same /64 is the same, unless it is IPv4 in disguise."""
    one = int(address)  # type: ignore[call-overload]
    other = type(address)(one >> 64 << 64 | host)  # type: ignore[call-arg]
    if address.ipv4_mapped is None and other.ipv4_mapped is None:  # type: ignore[attr-defined]
        assert counted_as(str(address)) == counted_as(str(other))


@given(st.text(max_size=500))
def test_anything_counts_as_something(text: str) -> None:
    """A proxy may put anything into X-Forwarded-For."""
    assert len(counted_as(text)) <= 100
