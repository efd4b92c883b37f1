"""Input that is wrong in every way we could think of: always one clear sentence, never a mistake of the server's."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.boxes import Box, Person
from tests.stand_ins.openai_engine import MODEL, Order

SECRET = "xyzzy-prompt"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}]}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": SECRET}
EMBEDDING: dict[str, Any] = {"model": MODEL, "input": SECRET}
GOOD = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT, "/v1/embeddings": EMBEDDING}
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Every log line of the test; none holds a prompt, and none tells of a mistake of ours."""
    with structlog.testing.capture_logs() as lines:
        yield lines
    assert SECRET not in f"{lines}{caplog.text}"
    assert "Traceback" not in caplog.text
    assert not [line for line in lines if line["event"] == "bug"]


@pytest.fixture
async def ann(box: Box) -> Person:
    """Somebody with a key."""
    return await box.person("ann")


@pytest.fixture
async def client(box: Box, ann: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Ann's client."""
    async with box.http(headers=ann.bearer) as client:
        yield client


def expect_refused(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that this is OpenAI's error object with one sentence; gives it."""
    assert answer.status_code == status, answer.text[:300]
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?")), error
    assert "\n" not in error["message"]
    assert len(error["message"]) < 300, error
    assert SECRET not in error["message"]
    assert error["type"] == KINDS.get(status, "invalid_request_error")
    assert code is None or error["code"] == code, error
    return error


async def works(client: httpx.AsyncClient) -> None:
    """The next request is served."""
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


@pytest.mark.parametrize("path", GOOD)
async def test_a_body_that_is_no_json_object_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """Whatever the bytes are, the caller learns that they are no JSON object."""
    good = json.dumps(GOOD[path]).encode()
    bodies = [
        *(b"", b" ", b"{", b"null", b"7", b'"text"', b"[]", b"[{}]", b"{}{}", b"\x00", b"\xff\xfe{}", b"NaN"),
        *(good[:-1], good[: len(good) // 2], good + b"x", b"\xef\xbb\xbf" + good, good.decode().encode("utf-16")),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000),
        good.replace(SECRET.encode(), b"\xff" + SECRET.encode()),
        good.replace(SECRET.encode(), b"\xed\xa0\x80"),
        good.replace(SECRET.encode(), b"\\ud800"),
        good.replace(SECRET.encode(), b"\\udc00\\ud800"),
        good.replace(SECRET.encode(), b"\x00" + SECRET.encode()),
        good.replace(b"{", b'{"x": 1e999, ', 1),
        good.replace(b"{", b'{"x": NaN, ', 1),
        good.replace(b"{", b'{"x": Infinity, ', 1),
        good.replace(b"{", b'{"x": ' + b"9" * 5_000 + b", ", 1),
        good.replace(b"{", b'{"x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b", ", 1),
    ]
    for body in bodies:
        error = expect_refused(await client.post(path, content=body), 400, "invalid_json")
        assert error["message"].startswith("The body is not"), body[:50]
    await works(client)


WRONG: dict[str, dict[str, list[Any]]] = {
    "/v1/chat/completions": {
        "model": [None, 7, [], {}, True],
        "messages": [None, 7, "hi", {}, [], [7], [None], [[]], [{}], [{"content": "x"}], [{"role": 7}]],
        "stream": ["yes", 1, [], {}],
        "stream_options": [7, [], "x", {"include_usage": 1}],
        "max_tokens": ["7", -1, 1.5, [], -(10**30), 2**31 + 1, 10**30],
        "max_completion_tokens": ["7", -1, 1.5, 2**31 + 1],
        "service_tier": [7, ["flex"], {}],
        "temperature": ["hot", [], True],
        "top_p": ["x", {}],
        "n": [0, 129, -1, "1", 10**30],
        "stop": [7, [7], {}],
    },
    "/v1/completions": {"model": [None, 7], "prompt": [None, 7, {}, [{}], [None], [["x"]]], "stop": [7], "n": [0]},
    "/v1/embeddings": {"model": [None, 7], "input": [None, 7, {}, [{}], [[[]]]]},
}


@pytest.mark.parametrize("path", WRONG)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, path: str) -> None:
    """Wrong type or value: the error's `param` begins with the field."""
    for field, values in WRONG[path].items():
        for value in values:
            error = expect_refused(await client.post(path, json={**GOOD[path], field: value}), 400, "invalid_request")
            assert str(error["param"]).startswith(field), (field, value, error)
    await works(client)


@pytest.mark.parametrize("path", GOOD)
async def test_a_missing_field_is_named(client: httpx.AsyncClient, path: str) -> None:
    """Also a field that is not there is `param`."""
    for field in GOOD[path]:
        body = {name: value for name, value in GOOD[path].items() if name != field}
        assert expect_refused(await client.post(path, json=body), 400)["param"] == field
    error = expect_refused(await client.post("/v1/chat/completions", json={"model": MODEL, "messages": [{}]}), 400)
    assert error["param"] == "messages[0].role"


@pytest.mark.parametrize("path", GOOD)
async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """Any text may stand where the model's name should, and is never quoted at length."""
    names = [
        "",
        "nope",
        "m" * 100_000,
        "../../etc/passwd",
        "a\x00b",
        "\x1b[31m\r\nX: y",
        "\u202eü😀",
        f"{MODEL} ",
        "%s{}",
    ]
    for name in names:
        expect_refused(await client.post(path, json={**GOOD[path], "model": name}), 404, "model_not_found")
    for name in names[1:]:
        expect_refused(await client.get(f"/v1/models/{quote(name, safe='')[:60_000]}"), 404)
    for raw in ("%ff", "%00", "..%2f..%2fetc%2fpasswd", "%", "%zz", "a//b", "?x=%ff"):
        answer = await client.get(f"/v1/models/{raw}")
        assert answer.status_code in {200, 404}
    assert (await client.get(f"/v1/models/{MODEL}")).json()["id"] == MODEL
    await works(client)


async def test_odd_values_that_are_allowed_go_to_the_engine_as_they_came(
    client: httpx.AsyncClient, order: Order, box: Box
) -> None:
    """NULs in texts and roles, unknown fields, huge numbers: what JSON can carry is carried."""
    message = {"role": "us\x00er", "content": "a\x00b", "name": "\x00", "x\x00": None}
    odd = {"messages": [message], "user": "\x00", "seed": 10**30, "x": -(10**25), "y": 1e308, "max_tokens": 2**31}
    answer = await client.post(
        "/v1/chat/completions", json={**CHAT, **odd, "stop": ["\x00"], "logit_bias": {"\x00": 1}}
    )
    assert answer.status_code == 200, answer.text
    (seen,) = order.seen
    assert {name: seen[name] for name in odd} == odd
    prompts: list[Any] = [[], [[]], [1, 2], [-1], "", [""], ["a", 1, [2]]]
    for prompt in prompts:
        assert (await client.post("/v1/completions", json={**TEXT, "prompt": prompt})).status_code == 200
        assert (await client.post("/v1/embeddings", json={**EMBEDDING, "input": prompt})).status_code == 200
    rows = await box.usage(15)
    assert {row.outcome for row in rows} == {"completed"}


async def test_sizes_have_limits_that_are_told(client: httpx.AsyncClient, order: Order) -> None:
    """Ten megabytes are served; too many messages are a 400, a body over the limit a 413, however it is sent."""
    long = {"role": "user", "content": SECRET * (10_000_000 // len(SECRET))}
    assert (await client.post("/v1/chat/completions", json={**CHAT, "messages": [long]})).status_code == 200
    assert len(order.seen[0]["messages"][0]["content"]) > 9_000_000
    many = [{"role": "user", "content": "x"}] * 100_000
    error = expect_refused(await client.post("/v1/chat/completions", json={**CHAT, "messages": many}), 400)
    assert error["param"] == "messages"
    huge = json.dumps({**CHAT, "x": "y" * (17 * 1024 * 1024)}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(huge), 1 << 20):
            yield huge[start : start + (1 << 20)]

    for content in (huge, pieces()):
        expect_refused(await client.post("/v1/chat/completions", content=content), 413)
    await works(client)


async def test_a_body_in_chunks_is_read(client: httpx.AsyncClient) -> None:
    """A body without a length, a byte at a time, with any content type, is the same request."""

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(CHAT).encode():
            yield bytes([byte])

    for kind in (
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ):
        answer = await client.post("/v1/chat/completions", content=pieces(), headers={"Content-Type": kind})
        assert answer.status_code == 200, (kind, answer.text)


async def test_a_wrong_method_or_address_is_told(client: httpx.AsyncClient) -> None:
    """405 says which methods there are; an address that is none is a 404; both in OpenAI's shape."""
    for path in GOOD:
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            answer = await client.request(method, path)
            expect_refused(answer, 405)
            assert "POST" in answer.headers["allow"]
    expect_refused(await client.post("/v1/models", json={}), 405)
    for path in ("/v1", "/v1/", "/v1/nope", "/v1/chat", "/v1/chat/completions/x", "/v1/%00"):
        for method in ("GET", "POST"):
            answer = await client.request(method, path)
            expect_refused(answer, answer.status_code)
            assert answer.status_code in {404, 405}


async def test_keys_that_are_none_are_refused(box: Box, ann: Person) -> None:
    """Whatever stands in Authorization, or a revoked key: 401 with a challenge, and nothing about why in the log."""
    async with box.http() as client:
        for value in (
            *(b"Bearer", b"bearer x", b"Basic YW5uOng=", b"Digest x", b"x", b"Bearer \xff\xfe", b"\xff"),
            *("Bearer ü😀".encode(), f"Bearer {ann.key}x".encode(), f"Bearer {ann.key.upper()}".encode()),
            *(b"Bearer " + b"k" * 50_000, f"Token {ann.key}".encode(), b'Bearer " OR 1=1 --'),
        ):
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=[(b"Authorization", value)])
            expect_refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        expect_refused(await client.post("/v1/chat/completions", json=CHAT), 401, "not_authenticated")
        expect_refused(await client.post("/v1/chat/completions", content=b"{"), 401)
        (key,) = await box.keys.of(ann.user.id)
        assert (await client.post("/v1/chat/completions", json=CHAT, headers=ann.bearer)).status_code == 200
        await box.keys.revoke(key.id, ann.user.id)
        expect_refused(await client.post("/v1/chat/completions", json=CHAT, headers=ann.bearer), 401, "invalid_api_key")
        expect_refused(await client.get("/v1/models", headers=ann.bearer), 401)


async def test_a_members_key_opens_no_admins_door(client: httpx.AsyncClient, box: Box) -> None:
    """What only an admin may do is a 403 for everybody else."""
    for path in ("/metrics", "/api/admin/users"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only"), path
    boss = await box.person("boss", "admin")
    assert (await client.get("/metrics", headers=boss.bearer)).status_code == 200


async def test_odd_origins_are_refused_and_no_mistake(box: Box) -> None:
    """A page's origin may be any text."""
    async with box.http() as client:
        for origin in ("null", "http://[", "http://[::1", "://", "https://evil.example", "http://box:99999999", "é"):
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=[(b"Origin", origin.encode())])
            expect_refused(answer, 403, "cross_site_request")


async def talk(box: Box, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which these bytes were sent."""
    url = urlsplit(box.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    return reader, writer


async def test_a_body_that_never_comes_holds_nothing(
    box: Box, ann: Person, client: httpx.AsyncClient, order: Order, logged: list[Any]
) -> None:
    """Clients that stall in the middle of a body and leave: no slot, no row, no mistake, and others are served."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {ann.key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    for rest in (
        b"Content-Length: 1000\r\n\r\n",
        b"Content-Length: 1000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ):
        stalled = [await talk(box, head + rest) for _ in range(10)]
        await works(client)
        for _, writer in stalled:
            writer.close()
        await works(client)
    assert len(order.seen) == 6
    assert len(await box.usage(6)) == 6
    async with asyncio.timeout(5):
        while len(told := [line["status"] for line in logged if line["event"] == "request"]) < 36:
            await box.clock.sleep_ms(10)
    assert sorted(told) == [200] * 6 + [499] * 30


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
async def test_what_is_no_http_ends_the_connection(box: Box, client: httpx.AsyncClient, sent: bytes) -> None:
    """The server answers 4xx or hangs up."""
    reader, writer = await talk(box, sent)
    async with asyncio.timeout(5):
        line = await reader.readline()
    assert line == b"" or line.split()[1].startswith(b"4"), line
    writer.close()
    await works(client)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from([*WRONG["/v1/chat/completions"], "prompt", "input", "tools", "logit_bias", "cache_salt"])


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(list(GOOD)), changes=st.dictionaries(fields, values, max_size=4))
async def test_any_json_is_an_answer_or_a_clear_refusal(
    client: httpx.AsyncClient, path: str, changes: dict[str, Any]
) -> None:
    """A good request with anything in any of its fields."""
    answer = await client.post(path, json={**GOOD[path], **changes})
    if answer.status_code != 200:
        assert answer.status_code in {400, 404}, answer.text
        expect_refused(answer, answer.status_code)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(list(GOOD)),
    body=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()),
)
async def test_any_bytes_are_refused_clearly(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    """Anything at all as a body."""
    expect_refused(await client.post(path, content=body), 400)
