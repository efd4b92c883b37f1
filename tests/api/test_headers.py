"""What every answer tells browsers, whatever it is an answer to."""

import asyncio
import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import pytest
from msgspec.structs import replace

from server import VERSION
from server.api.headers import ALWAYS, OVER_HTTPS, UNLESS_SAID, guarded
from server.settings import Settings
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox

ELSEWHERE = "https://evil.example"
CHAT = {"model": "stand-in", "messages": [{"role": "user", "content": "x"}]}
# Each kind of answer: pages, files, API answers, errors of each layer, streams, redirects, no content.
ASKED = [
    ("GET", "/", None),
    ("GET", "/docs", None),
    ("GET", "/health", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/api/session", None),
    ("GET", "/api/keys", None),
    ("GET", "/api/nothing", None),
    ("GET", "/api/account/export", None),
    ("PUT", "/api/login", {}),
    ("POST", "/api/login", {"name": 1}),
    ("OPTIONS", "/api/keys", None),
    ("HEAD", "/health", None),
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    ("POST", "/v1/chat/completions", {"model": "absent", "messages": []}),
    ("POST", "/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}}),
    ("POST", "/api/logout", None),
]


def _missing(headers: Mapping[str, str]) -> list[str]:
    return [name for name, value in ALWAYS.items() if headers.get(name) != value] + [
        name for name in UNLESS_SAID if name not in headers
    ]


async def test_every_answer_has_them(box: Box) -> None:
    """With and without credentials; each once; and what is no page is kept by nobody and can do nothing."""
    ann = await box.person("ann", "admin")
    for who in ({}, ann.bearer):
        async with box.http(headers=who) as client:
            for method, path, body in ASKED:
                answer = await client.request(method, path, json=body)
                assert _missing(answer.headers) == [], (method, path, answer.status_code)
                names = [name for name, _ in answer.headers.raw]
                assert len(names) == len(set(names)), (method, path, names)
                assert not set(OVER_HTTPS) & set(answer.headers)
                if path not in {"/", "/docs"}:
                    assert answer.headers["Cache-Control"] == "no-store", path
                    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_what_is_no_http_has_them_too(box: Box) -> None:
    """Errors that the application never sees."""
    where = urlsplit(box.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"nonsense\r\n\r\n")
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    first, *lines = head.split("\r\n")
    assert first == "HTTP/1.1 400 Bad Request"
    headers = {name.title(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert [name for name in _missing(headers) if name.title() not in headers] == []
    assert "invalid_http" in body


async def test_https_is_kept_where_it_is(make_box: MakeBox, settings: Settings, box: Box) -> None:
    """HSTS where the request came by https, or the server's own address says so; never for a box without."""
    async with box.http() as client:
        assert "Strict-Transport-Security" not in (await client.get("/health")).headers
        answer = await client.get("/health", headers={"X-Forwarded-Proto": "https"})
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await make_box(replace(settings, public_url="https://box.home", port=port))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/health")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_a_stranger_cannot_claim_https(make_box: MakeBox, settings: Settings) -> None:
    """Whoever is no trusted proxy says nothing about the scheme."""
    box = await make_box(replace(settings, trusted_proxies="192.0.2.1"))
    async with box.http(headers={"X-Forwarded-Proto": "https"}) as client:
        assert "Strict-Transport-Security" not in (await client.get("/health")).headers


def test_what_an_answer_says_of_itself_counts() -> None:
    """Nothing is told twice, however it is written."""
    said = [(b"Cache-Control", b"public"), (b"content-security-policy", b"x"), (b"x-frame-options", b"DENY")]
    told = guarded(said, is_https=True)
    names = [name.lower() for name, _ in told]
    assert told[:3] == said
    assert len(names) == len(set(names)) == len(ALWAYS) + len(UNLESS_SAID) + len(OVER_HTTPS)


async def test_other_origins_get_nothing(box: Box) -> None:
    """No CORS header on anything: another site's page can neither read an answer nor send what asks first."""
    ann = await box.person("ann", password=PASSWORD)
    ask = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    async with box.http() as client:
        await client.post("/api/login", json={"name": "ann", "password": PASSWORD})
        answers = [
            await client.options("/v1/chat/completions", headers=ask),
            await client.options("/api/keys", headers=ask),
            await client.get("/api/session", headers={"Origin": ELSEWHERE}),
            await client.get("/v1/models", headers={"Origin": ELSEWHERE, **ann.bearer}),
            await client.get("/", headers={"Origin": ELSEWHERE}),
            await client.post("/api/keys", json={"label": "x"}, headers={"Origin": ELSEWHERE}),
        ]
    for answer in answers:
        assert [name for name in answer.headers if name.startswith("access-control-")] == []
    assert answers[-1].status_code == 403


WRONG = [
    ("GET", "/api/nothing", b""),
    ("GET", "/v1/nothing", b""),
    ("GET", "/assets/x", b""),
    ("POST", "/api/login", b"{"),
    ("POST", "/api/login", b"[" * 100_000),
    ("POST", "/api/login", b"\xff"),
    ("POST", "/v1/chat/completions", b"{"),
    ("PATCH", "/api/admin/users/x", b"{}"),
    ("TRACE", "/", b""),
]


@pytest.mark.parametrize("path", ["/health", "/api/nothing", "/"])
async def test_nobody_is_told_what_runs_here(box: Box, path: str) -> None:
    """No Server header, no X-Powered-By, no version."""
    async with box.http() as client:
        answer = await client.get(path)
    assert not {"server", "x-powered-by"} & set(answer.headers)
    assert VERSION not in str(answer.headers)


async def test_errors_leak_nothing(box: Box) -> None:
    """No version, no path of a file, no trace, no library's name."""
    async with box.http() as client:
        for method, path, body in WRONG:
            answer = await client.request(method, path, content=body)
            assert answer.status_code >= 400, (method, path)
            told = answer.text.lower() + str(answer.headers).lower()
            for word in ("traceback", "litestar", "uvicorn", "python", "/site-packages", ".py", "msgspec"):
                assert word not in told, (method, path, word)
            assert not re.search(r"/(home|work|usr|var|root)/", told)
