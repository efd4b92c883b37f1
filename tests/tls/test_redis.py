"""Redis over TLS: users, certificates that do not fit, at the start and later."""

import re
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway
from structlog.testing import capture_logs

from server.errors import StartError
from server.sharing.redis import connect_redis, require_trusted
from tests.tls.certificates import Authority
from tests.tls.services import PASSWORD, TlsRedis, ask


async def sentence(url: str) -> str:
    """What the server says when it is started with this URL."""
    with pytest.raises(StartError) as refused:
        await require_trusted(url)
    assert PASSWORD not in str(refused.value)
    assert "secret" not in str(refused.value)
    return str(refused.value)


async def whom(url: str) -> str:
    """Redis' user of a connection that is opened as all of ours."""
    async with connect_redis(url, connections_max=1) as client:
        return str(await ask(client, "ACL", "WHOAMI"))


async def test_a_user_of_redis(redis_over_tls: TlsRedis, authority: Authority) -> None:
    """By name and by address, with the authority as a file; the password has every sign that a URL has."""
    for host in ("localhost", "127.0.0.1"):
        url = redis_over_tls.url(host=host, ssl_ca_certs=authority.file)
        await require_trusted(url)
        assert await whom(url) == "box"


async def test_a_wrong_password(redis_over_tls: TlsRedis, authority: Authority) -> None:
    """Waiting would not help, so the server does not start."""
    for user, password in (("box", "wrong"), ("nobody", "wrong")):
        url = redis_over_tls.url(user=user, password=password, ssl_ca_certs=authority.file)
        assert await sentence(url) == "Redis refuses the user or the password in REDIS_URL."


async def test_who_is_not_believed(
    redis_over_tls: TlsRedis, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of somebody else's authority, or of none that this machine knows; unless one says that nobody is asked."""
    where = f"Redis at localhost:{redis_over_tls.port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger.file))
    cases: list[tuple[dict[str, Any], object]] = [
        ({"ssl_ca_certs": stranger.file}, stranger.file),
        ({}, "what this machine trusts"),
    ]
    for words, whose in cases:
        said = await sentence(redis_over_tls.url(**words))
        assert said == (
            f"Redis cannot be used: the certificate of {where} is of an authority that is not in {whose}. "
            "Is REDIS_URL right?"
        )
    assert await whom(redis_over_tls.url(ssl_cert_reqs="none")) == "box"


async def test_an_authority_that_is_named_is_believed_alone(
    redis_over_tls: TlsRedis, authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py itself would believe the machine's as well, to which the right one belongs here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert await whom(redis_over_tls.url()) == "box"
    url = redis_over_tls.url(ssl_ca_certs=stranger.file)
    async with Redis.from_url(url) as careless:
        assert await ask(careless, "ACL", "WHOAMI") == b"box"
    with pytest.raises(RedisAway, match="is of an authority that is not in"):
        await whom(url)


async def test_certificates_that_do_not_fit(redis_over_tls: TlsRedis, authority: Authority) -> None:
    """For another name, and expired; exchanged while Redis runs, told once in the log, and exchanged back."""
    where = f"Redis at localhost:{redis_over_tls.port}"
    url = redis_over_tls.url(ssl_ca_certs=authority.file)
    client = connect_redis(url)
    try:
        authority.issue("redis", names=("elsewhere.example",))
        await redis_over_tls.reload()
        assert await sentence(url) == (
            f"Redis cannot be used: the certificate of {where} is for another name. Is REDIS_URL right?"
        )
        assert await whom(redis_over_tls.url(ssl_ca_certs=authority.file, ssl_check_hostname="false")) == "box"
        authority.issue("redis", ended=True)
        await redis_over_tls.reload()
        with capture_logs() as lines:
            for _ in range(2):
                with pytest.raises(RedisAway, match=f"^the certificate of {where} has expired$"):
                    await ask(client, "PING")
        assert [(line["event"], line["reason"]) for line in lines] == [
            ("Redis is not trusted", f"the certificate of {where} has expired")
        ]
    finally:
        authority.issue("redis")
        await redis_over_tls.reload()
    assert await ask(client, "PING")
    await client.aclose()


async def test_a_certificate_of_ours(tls_dir: Path, authority: Authority, stranger: Authority) -> None:
    """A Redis that wants one; the file is read for every connection, so one that was exchanged holds at once."""
    strict = TlsRedis(tls_dir / "strict", authority.issue("strict"), authority, wants_certificate=True)
    await strict.start()
    try:
        ours, theirs = authority.issue_client("redis-client", "box"), stranger.issue_client("redis-other", "box")
        url = strict.url(ssl_ca_certs=authority.file, ssl_certfile=ours.certificate, ssl_keyfile=ours.key)
        await require_trusted(url)
        client = connect_redis(url)
        assert await ask(client, "PING")
        await client.connection_pool.disconnect()
        for name in ("pem", "key"):
            ours.key.with_suffix(f".{name}").write_bytes(theirs.key.with_suffix(f".{name}").read_bytes())
        with pytest.raises(RedisAway):
            await ask(client, "PING")
        await client.aclose()
        # Whether what Redis says of it arrives, before it hangs up, is chance.
        for _ in range(5):
            assert re.search(rf"refuses? our certificate \({re.escape(str(ours.certificate))}\)", await sentence(url))
        said = await sentence(strict.url(ssl_ca_certs=authority.file))
        assert re.search(r"refuses? our certificate \(none, and it may want one\)", said)
    finally:
        await strict.child.stop()


async def test_one_that_is_away_is_waited_for(redis_over_tls: TlsRedis, authority: Authority) -> None:
    """As before there was TLS: the server starts, and says 503 until it is there."""
    url = redis_over_tls.url(ssl_ca_certs=authority.file).replace(f":{redis_over_tls.port}/", ":1/")
    await require_trusted(url)
    await require_trusted("redis://127.0.0.1:1")
