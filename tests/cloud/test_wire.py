"""What a provider sees of us, and what becomes of what it does: the same for every kind."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import ThreadedResolver
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from server.cloud import replies
from server.cloud.protocol import CloudReply, Kind
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError
from tests.clocks import FakeClock
from tests.cloud.wires import HASTY, HELLO, KEY, LARGE, REQUEST_ID, ask, provider, request, said
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL, Behaviour, Cloud

KINDS = get_args(Kind)
LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "ü" * 300_000}]}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    """A provider's stand-in."""
    async with cloud_provider.serve() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the APIs."""
    found: Kind = request.param
    return found


@pytest.mark.parametrize("body", [HELLO, HELLO | LONG], ids=["short", "long"])
async def test_the_bytes_of_compose_are_the_bytes_on_the_wire(cloud: Cloud, kind: Kind, body: dict[str, Any]) -> None:
    """By their digest: what the ledger says of them is true. They are sent once."""
    async with provider(cloud.url, kind) as far:
        exact = far.compose(request(body), body, LARGE)
        assert cloud.connections == []
        reply = await far.send(exact, request_id=REQUEST_ID)
        assert said(await reply.read()) == cloud.text
        reply.close()
    assert [sha256(arrived).digest() for arrived in cloud.bodies] == [sha256(exact).digest()]
    assert cloud.received.endswith(exact)
    assert len(cloud.connections) == 1


async def test_a_provider_learns_the_key_and_nothing_of_anybody(cloud: Cloud, kind: Kind) -> None:
    """Its headers are these: no id of ours, no name of a library, no cookie that it has set."""

    async def answer(_cloud: Cloud, seen: cloud_provider.Seen, writer: asyncio.StreamWriter) -> None:
        events = b"".join(map(cloud_provider.chunk, cloud_provider.events_of(seen, "hi", (1, 1))))
        begin = cloud_provider.head(Set_Cookie="id=ann; Path=/")
        await cloud_provider.say(writer, begin, events, cloud_provider.chunk(b""))

    cloud.behaviour = answer
    async with provider(cloud.url, kind) as far:
        await ask(far)
        await ask(far)
    expected = {"host", "content-length", "content-type", "user-agent", "accept", "accept-encoding", "connection"}
    expected |= {"authorization"} if kind == "openai" else {"x-api-key", "anthropic-version"}
    for seen in cloud.seen:
        assert seen.headers.keys() == expected
        assert seen.headers["user-agent"] == "WIRTHFORGE"
        assert KEY in (seen.headers.get("authorization") or seen.headers["x-api-key"])
    assert REQUEST_ID.encode() not in cloud.received
    assert REQUEST_ID.replace("-", "").encode() not in cloud.received


async def test_no_proxy_of_the_environment_sees_anything(
    cloud: Cloud, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one is set for everybody."""
    async with cloud_provider.serve() as proxy, provider(cloud.url, kind) as far:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        await ask(far)
        assert proxy.connections == []
    assert len(cloud.bodies) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_a_fault_and_nothing_goes_there(cloud: Cloud, kind: Kind, status: str) -> None:
    """The other place sees no connection."""
    async with cloud_provider.serve() as elsewhere, provider(cloud.url, kind) as far:
        cloud.behaviour = cloud_provider.redirecting(f"{elsewhere.url}/chat/completions", status)
        with pytest.raises(EngineFailed, match="redirects") as found:
            await ask(far)
        with pytest.raises(EngineFailed, match="redirects"):
            await far.models()
        assert elsewhere.connections == []
    assert found.value.code == "provider_redirects"


REFUSALS: list[tuple[str, object, type[WirthforgeError], str]] = [
    (
        "400 Bad Request",
        {"error": {"type": "invalid_request_error", "message": KEY}},
        InvalidRequest,
        "invalid_request",
    ),
    ("400 Bad Request", {"error": {"code": "context_length_exceeded"}}, InvalidRequest, "context_length_exceeded"),
    ("413 Too Large", {"type": "error", "error": {"type": "request_too_large"}}, InvalidRequest, "invalid_request"),
    ("401 Unauthorized", {"error": {"message": f"Incorrect API key: {KEY}"}}, EngineFailed, "provider_refused"),
    ("402 Payment", {"error": {"type": "billing_error"}}, EngineFailed, "provider_refused"),
    ("403 Forbidden", {"error": {"type": "permission_error"}}, EngineFailed, "provider_refused"),
    ("404 Not Found", {"error": {"type": "not_found_error"}}, NotFound, "provider_lacks"),
    ("429 Too Many", {"error": {"type": "rate_limit_error"}}, Unavailable, "provider_busy"),
    ("503 Unavailable", None, Unavailable, "provider_busy"),
    ("529 Overloaded", {"error": {"type": "overloaded_error"}}, Unavailable, "provider_busy"),
    ("500 Oops", {"error": {"message": "hi"}}, EngineFailed, "engine_failed"),
    ("500 Oops", ["nothing"], EngineFailed, "engine_failed"),
    ("204 No Content", None, EngineFailed, "engine_failed"),
]


@pytest.mark.parametrize(("status", "body", "fault", "code"), REFUSALS)
async def test_a_refusal_says_who_and_not_what(
    cloud: Cloud, kind: Kind, status: str, body: object, fault: type[WirthforgeError], code: str
) -> None:
    """The provider is named, with the error's own name; its sentence is not repeated, which may hold key or prompt."""
    cloud.behaviour = cloud_provider.refusing(status, body)
    async with provider(cloud.url, kind) as far:
        with pytest.raises(fault) as found:
            await ask(far)
    assert found.value.code == code
    assert "far" in found.value.message
    assert KEY not in found.value.message
    assert len(cloud.bodies) == 1


async def test_who_asks_for_a_pause_gets_it(cloud: Cloud, kind: Kind) -> None:
    """For as long as Retry-After says nothing is sent; then it is asked again."""
    clock = FakeClock()
    cloud.behaviour = cloud_provider.refusing("429 Too Many Requests", None, Retry_After="7")
    async with provider(cloud.url, kind, clock=clock) as far:
        with pytest.raises(Unavailable) as found:
            await ask(far)
        assert found.value.retry_after_s == 7
        assert not far.lets_pass
        with pytest.raises(Unavailable, match="rests") as found:
            await ask(far)
        assert len(cloud.connections) == 1
        clock.advance(timedelta(seconds=7))
        assert far.lets_pass
        cloud.behaviour = None
        assert said(await ask(far)) == cloud.text


async def test_who_fails_again_and_again_is_left_alone(cloud: Cloud, kind: Kind) -> None:
    """After three faults nothing is sent; later one request tries for all, and while it runs no other does."""
    clock = FakeClock()
    cloud.behaviour = cloud_provider.refusing("500 Oops")
    async with provider(cloud.url, kind, clock=clock) as far:
        for _ in range(3):
            assert far.lets_pass
            with pytest.raises(EngineFailed):
                await ask(far)
        assert not far.lets_pass
        with pytest.raises(Unavailable, match="rests"):
            await ask(far)
        assert len(cloud.connections) == 3
        clock.advance(timedelta(seconds=1))
        cloud.behaviour = None
        reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id=REQUEST_ID)
        assert not far.lets_pass
        reply.close()
        assert far.lets_pass
        assert said(await ask(far)) == cloud.text
        assert far.lets_pass


async def test_an_answer_that_breaks_off_is_a_fault(cloud: Cloud, kind: Kind) -> None:
    """What came before is told, and it counts against the provider."""
    cloud.behaviour = cloud_provider.breaking_off(after=2)
    async with provider(cloud.url, kind) as far:
        for _ in range(3):
            reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id=REQUEST_ID)
            told: list[bytes] = []
            with pytest.raises(EngineFailed, match="far stopped in the middle"):
                await _gathered(reply, told)
            assert b'"Hello"' in told[-1]
            assert told[-1].endswith(b"\n\n")
            reply.close()
        assert not far.lets_pass


async def _gathered(reply: CloudReply, told: list[bytes]) -> None:
    async for events in reply.chunks():
        told.append(events)  # noqa: PERF401 (what came before a fault is looked at)


async def test_a_provider_that_says_nothing_is_given_up(cloud: Cloud, kind: Kind) -> None:
    """Before its answer and within it."""
    cloud.hold.clear()
    cloud.behaviour = cloud_provider.hanging
    async with provider(cloud.url, kind, waits=HASTY) as far:
        with pytest.raises(EngineTimeout, match=r"far said nothing for 0\.15 s"):
            await ask(far)
        cloud.behaviour, cloud.held_after = None, 1
        reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id=REQUEST_ID)
        reply.expect_tokens()
        with pytest.raises(EngineTimeout, match="far said nothing"):
            await reply.read()
        reply.close()


HTML = cloud_provider.refusing("200 OK", "<html>")
ENDLESS_LINE = cloud_provider.endless(b"x")
NOT_JSON = cloud_provider.streaming(b"data: {\n\n")
NO_OBJECT = cloud_provider.streaming(b"data: []\n\n")
NOT_UTF8 = cloud_provider.streaming(b'data: {"a": "\xff"}\n\n')
ERROR = cloud_provider.streaming(
    b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}\n\n'
)
GZIP = cloud_provider.raw(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x04\x00\x43\xbe\xb7\xe8\x01\x00\x00\x00"
)


@pytest.mark.parametrize(
    "behaviour",
    [cloud_provider.garbage, HTML, ENDLESS_LINE, NOT_JSON, NO_OBJECT, NOT_UTF8, ERROR, GZIP],
    ids=["garbage", "html", "endless line", "no JSON", "no object", "no UTF-8", "error", "gzip"],
)
async def test_rubbish_is_a_fault(cloud: Cloud, kind: Kind, behaviour: Behaviour) -> None:
    """Told as the provider's, and it ends."""
    cloud.behaviour = behaviour
    async with provider(cloud.url, kind) as far:
        with pytest.raises(EngineFailed, match="Provider far"):
            await ask(far)


async def test_an_answer_without_end_is_cut(cloud: Cloud, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every event in it is good, or none says anything."""
    monkeypatch.setattr(replies, "ANSWER_BYTES_MAX", 1_000_000)
    for piece in (b": nothing\n\n", b'data: {"type": "ping", "choices": []}\n\n'):
        cloud.behaviour = cloud_provider.endless(piece)
        async with provider(cloud.url, kind) as far:
            with pytest.raises(EngineFailed, match="far answered with more than 1000000 bytes"):
                await ask(far)


async def test_a_client_that_leaves_makes_it_stop(cloud: Cloud, kind: Kind) -> None:
    """Closing hangs up, says nothing against the provider, and may be done twice."""
    cloud.hold.clear()
    async with provider(cloud.url, kind) as far:
        reply = await far.send(far.compose(request(HELLO), HELLO, LARGE), request_id=REQUEST_ID)
        reply.close()
        reply.close()
        async with asyncio.timeout(10):
            await cloud.gone.wait()
        asking = asyncio.create_task(ask(far))
        cloud.gone.clear()
        cloud.began.clear()
        cloud.behaviour = cloud_provider.hanging
        async with asyncio.timeout(10):
            await cloud.began.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await cloud.gone.wait()
        assert far.lets_pass


async def test_its_models_are_listed_without_a_word(cloud: Cloud, kind: Kind) -> None:
    """The list is asked for with the key and nothing else."""
    async with provider(cloud.url, kind) as far:
        assert await far.models() == (MODEL,)
        cloud.behaviour = cloud_provider.refusing("200 OK", {"data": [{"name": 1}]})
        with pytest.raises(EngineFailed, match="lists its models"):
            await far.models()
    assert cloud.bodies == []


async def test_nobody_is_there() -> None:
    """A fault with a code of its own."""
    async with cloud_provider.serve() as cloud:
        url = cloud.url
    async with provider(url) as far:
        with pytest.raises(EngineFailed) as found:
            await ask(far)
    assert found.value.code == "provider_unreachable"


async def test_a_name_that_stands_for_a_clouds_secrets_is_not_spoken_to(
    cloud: Cloud, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it stood for when an admin wrote it: it is looked at for each connection."""
    found = [{"hostname": "localhost", "host": "127.0.0.1", "port": 0, "family": 2, "proto": 0, "flags": 0}]
    port = int(cloud.url.split(":")[2].partition("/")[0])

    async def resolve(*_: object) -> list[dict[str, Any]]:
        return [address | {"port": port} for address in found]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    async with provider(f"http://localhost:{port}/v1", kind) as far:
        assert said(await ask(far)) == cloud.text
        found.append(found[0] | {"host": "169.254.169.254"})
        with pytest.raises(EngineFailed) as refused:
            await ask(far)
    assert refused.value.code == "provider_unreachable"
    assert len(cloud.connections) == 1


async def test_a_provider_that_hangs_up_is_a_fault(cloud: Cloud, kind: Kind) -> None:
    """Before it has said anything; the request is not sent once more."""
    cloud.behaviour = cloud_provider.raw(b"")
    async with provider(cloud.url, kind) as far:
        with pytest.raises(EngineFailed, match="far hung up"):
            await ask(far)
    assert len(cloud.connections) == 1


async def test_a_certificate_that_nobody_trusts_is_none(tmp_path: Path, kind: Kind) -> None:
    """Not a byte of the request is sent."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_certificate(tmp_path))
    async with cloud_provider.serve(tls=tls) as cloud:
        url = cloud.url.replace("127.0.0.1", "localhost")
        async with provider(url, kind) as far:
            with pytest.raises(EngineFailed) as found:
                await ask(far)
        assert cloud.received == b""
    assert found.value.code == "provider_untrusted"


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return path
