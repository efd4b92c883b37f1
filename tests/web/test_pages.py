"""The web client's files: served from one folder, and never from outside of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from server.web import pages
from tests.boxes import PASSWORD, Box

SECRET = "nobody may read this"
# As a raw request line sends them: a client library would tidy them up.
ESCAPES = [
    "/../secret.txt",
    "/../../../../../../../../etc/passwd",
    "/assets/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/assets/..%2f..%2fsecret.txt",
    "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
    "/..%5csecret.txt",
    "//etc/passwd",
    "/%2fetc%2fpasswd",
    "/link.txt",
    "/assets/./../../secret.txt",
    "/....//secret.txt",
    "/..;/secret.txt",
    "/%252e%252e/secret.txt",
    "/assets",
    "/assets/",
]
NO_NAMES = ["/a%00b", "/index.html%00.js", "/%00", "/" + "a" * 5_000, "/" + "a/" * 3_000, "/%ff%fe", "/%0d%0aX-Evil:1"]


@pytest.fixture
def static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built client, with a secret beside it and a link to that."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>the client</title>")
    (folder / "docs.html").write_text("<title>the docs</title>")
    (folder / "assets" / "app-1a2b.js").write_text("1")
    (tmp_path / "secret.txt").write_text(SECRET)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr(pages, "STATIC", folder)
    return folder


@asynccontextmanager
async def _logged_in(box: Box) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of somebody's."""
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        await client.post("/api/login", json={"name": "ann", "password": PASSWORD})
        yield client


async def _raw(box: Box, path: str) -> str:
    """The whole answer to a GET of exactly this path."""
    where = urlsplit(box.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


@pytest.mark.usefixtures("static")
async def test_no_path_leads_out_of_the_folder(box: Box) -> None:
    """However it is written, it is the client's start page or nothing."""
    for path in ESCAPES:
        answer = await _raw(box, path)
        assert SECRET not in answer, path
        assert "root:" not in answer, path
        assert answer.split()[1] in {"200", "400", "404"}, (path, answer)
        if answer.split()[1] == "200":
            assert "the client" in answer, path


@pytest.mark.usefixtures("static")
async def test_names_that_no_file_can_have(box: Box) -> None:
    """They are routes of the client like any other, and no mistake of the server's."""
    for path in NO_NAMES:
        answer = await _raw(box, path)
        assert answer.split()[1] in {"200", "400", "404"}, (path[:40], answer[:200])
        assert "X-Evil" not in answer


@pytest.mark.usefixtures("static")
async def test_every_page_is_guarded(box: Box) -> None:
    """Scripts come from here only, nobody frames us, nothing is sniffed, and no address leaks."""
    async with _logged_in(box) as client:
        for path in ("/", "/usage", "/docs", "/assets/app-1a2b.js"):
            headers = (await client.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "object-src 'none'" in policy
            assert "script-src" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.usefixtures("static")
async def test_the_clients_routes_are_its_start_page(box: Box) -> None:
    """A reload of any page of the client works, and always asks whether there is a newer client."""
    async with box.http() as client:
        for path in ("/", "/setup", "/people/ann", "/index.html"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, "<title>the client</title>")
            assert answer.headers["Content-Type"].startswith("text/html")
            assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.usefixtures("static")
async def test_assets_are_kept_forever(box: Box) -> None:
    """Their names hold a hash; one that is gone is an error, not a page."""
    async with box.http() as client:
        found = await client.get("/assets/app-1a2b.js")
        gone = await client.get("/assets/app-0000.js")
    assert found.text == "1"
    assert "javascript" in found.headers["Content-Type"]
    assert found.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert gone.status_code == 404


@pytest.mark.usefixtures("static")
async def test_the_documentation_is_a_page(box: Box) -> None:
    """Served from here, so that it can be read offline, for people of the box; others are led to the log-in page."""
    async with _logged_in(box) as client:
        answer = await client.get("/docs")
        await client.post("/api/logout")
        stranger = await client.get("/docs")
    assert (answer.status_code, answer.text) == (200, "<title>the docs</title>")
    assert (stranger.status_code, stranger.headers["Location"]) == (303, "/login?next=%2Fdocs")
    assert "the docs" not in stranger.text


async def test_a_client_that_was_not_built(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cloned and forgot to build is told what to do; the API works meanwhile."""
    monkeypatch.setattr(pages, "STATIC", tmp_path / "absent")
    async with _logged_in(box) as client:
        for path in ("/", "/usage", "/docs"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "make client" in answer.text
        assert (await client.get("/api/session")).json()["principal"]["name"] == "ann"
        assert (await client.get("/assets/x.js")).status_code == 404
