"""What URLs ask for, and those that are refused before anything is opened."""

import pytest

from server.db.address import Address, address
from server.errors import StartError
from server.sharing.redis import connect_redis
from server.tls import Trust

SECRET = "hush"
FULL = "?sslmode=verify-full&sslrootcert=/ca&channel_binding=prefer"


@pytest.mark.parametrize(
    ("asked", "mode", "trust"),
    [
        ("", "prefer", Trust()),
        ("?sslmode=disable", "disable", None),
        ("?sslmode=disable&sslrootcert=/ca.pem", "disable", None),
        ("?sslmode=prefer&sslrootcert=/ca.pem", "prefer", Trust()),
        ("?sslmode=require", "require", Trust()),
        ("?ssl=require", "require", Trust()),
        ("?sslmode=require&sslrootcert=/ca.pem", "require", Trust(authorities="/ca.pem")),
        ("?sslmode=verify-ca&sslrootcert=/ca.pem", "verify-ca", Trust(authorities="/ca.pem")),
        ("?sslmode=verify-full&sslrootcert=system", "verify-full", Trust(authorities="system", checks_name=True)),
        ("?sslmode=verify-full", "verify-full", Trust(authorities="system", checks_name=True)),
        (
            f"{FULL}&sslcert=/me&sslkey=/key&sslpassword=hush&sslcrl=/crl&ssl_min_protocol_version=TLSv1.3",
            "verify-full",
            Trust("/ca", True, "/me", "/key", "hush", "/crl", "TLSv1.3"),  # noqa: FBT003 (in order)
        ),
    ],
)
def test_what_a_url_asks_for(asked: str, mode: str, trust: Trust | None) -> None:
    """Words about TLS become trust, and none of them is left for others to understand in their way."""
    found = address(f"postgresql://ann:{SECRET}@db.example/box{asked}")
    assert (found.mode, found.trust) == (mode, trust)
    assert dict(found.url.query) == {}
    assert found.url.drivername == "postgresql+asyncpg"
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("url", "mode", "is_told"),
    [
        ("postgresql:///box?host=/run/pg", "disable", True),
        ("postgresql:///box?host=/run/pg&sslmode=verify-full&sslrootcert=/ca.pem", "disable", True),
        ("postgresql:///box", "disable", True),
        ("postgresql://localhost/box", "prefer", True),
        ("postgresql://127.0.0.9:1/box", "prefer", True),
        ("postgresql://[::1]:5433/box", "prefer", True),
        ("postgresql://db.example/box", "prefer", False),
        ("postgresql:///box?host=localhost:1&host=db.example:2", "prefer", False),
        ("postgresql:///box?sslmode=require", "require", True),
    ],
)
def test_who_is_near(url: str, mode: str, is_told: bool) -> None:
    """A Unix socket is never encrypted, the loopback need not be, and of another machine one is told."""
    found = address(url)
    assert (found.mode, found.is_told) == (mode, is_told)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://ann:x@{SECRET}@db.example/box", "cannot be read"),
        (f"postgresql://ann:{SECRET}@db.example:{SECRET}/box", "cannot be read"),
        (f"postgresql//{SECRET}", "cannot be read"),
        ("postgresql://db/box?sslmode=allow", "and not allow"),
        ("postgresql://db/box?sslmode=verify_full", "and not verify_full"),
        ("postgresql://db/box?sslmode=&sslrootcert=/ca.pem", "says sslmode, and then nothing"),
        ("postgresql://db/box?sslmode=require&sslrootcert", "says sslrootcert, and then nothing"),
        ("postgresql://db/box?sslmode=require&sslmode=disable", "says sslmode twice"),
        ("postgresql://db/box?sslmode=verify-ca", "needs to know whom to believe"),
        ("postgresql://db/box?sslmode=verify-ca&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgresql://db/box?sslrootcerts=/ca.pem", "asks for sslrootcerts, which is not known"),
        ("postgresql://db/box?channel_binding=require", "channel_binding=require is not supported"),
        ("postgresql://db/box?gssencmode=require", "gssencmode=require is not supported"),
        ("postgresql://db/box?sslnegotiation=direct", "needs an sslmode of require"),
        ("postgresql://db/box?sslmode=require&ssl_min_protocol_version=TLSv1", "and not TLSv1"),
    ],
)
def test_urls_of_postgres_that_are_refused(url: str, reason: str) -> None:
    """In one sentence, which quotes no password."""
    with pytest.raises(StartError) as refused:
        address(url)
    assert reason in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"rediss://ann:{SECRET}/2@redis.example/0", "cannot be read"),
        (f"redis://ann:2@redis.example:{SECRET}/0", "cannot be read"),
        ("redis://redis.example?ssl_ca_certs=/ca.pem", "no TLS is spoken: write rediss://"),
        ("unix:///run/redis.sock?ssl_check_hostname=true", "no TLS is spoken: write rediss://"),
        ("rediss://redis.example?ssl_ca_cert=/ca.pem", "asks for ssl_ca_cert, which is not known"),
        ("rediss://redis.example?ssl_ca_certs=", "says ssl_ca_certs, and then nothing"),
        ("rediss://redis.example?ssl_cert_reqs=optional", "ssl_cert_reqs is required or none"),
        ("rediss://redis.example?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("rediss://redis.example?ssl_min_version=TLSv1", "ssl_min_version is TLSv1.2 or TLSv1.3"),
        ("rediss://redis.example?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", "nobody looks into it"),
        ("rediss://redis.example?ssl_ca_certs=/missing.pem", "/missing.pem cannot be read: No such file"),
    ],
)
def test_urls_of_redis_that_are_refused(url: str, reason: str) -> None:
    """In one sentence, which quotes no password."""
    with pytest.raises(StartError) as refused:
        _ = connect_redis(url)
    assert reason in str(refused.value)
    assert SECRET not in str(refused.value)


async def test_a_redis_without_tls_is_as_it_was() -> None:
    """Words of redis-py that are about other things are still heard."""
    client = connect_redis("redis://ann:p%2Fq@redis.example:7000/3?max_connections=7")
    options = client.connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["port"], options["db"]) == ("ann", "p/q", 7000, 3)
    assert client.connection_pool.max_connections == 7
    await client.aclose()


def test_an_address_is_shown_without_what_is_secret() -> None:
    """In a log or a traceback."""
    found: Address = address(f"postgresql://ann:{SECRET}@db/box?sslmode=require&sslcert=/me.pem&sslpassword={SECRET}")
    assert SECRET not in f"{found!r} {found} {found.trust}"
