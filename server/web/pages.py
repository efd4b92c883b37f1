"""The web client's files. Everything comes from here: no page fetches anything from elsewhere."""

from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import File, Redirect

from server.accounts.authentication import Authentication
from server.errors import NotFound

STATIC = Path(__file__).parent / "static"
# Instead of the one that api/headers.py gives to what is no page. Mantine writes style elements; scripts only ever come
# as files.
PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# Names under /assets/ hold a hash of their content.
FOREVER = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "public, max-age=31536000, immutable"}
ALWAYS_ASK = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
# Paths that belong to programs: a wrong one is an error there, never a page.
PROGRAM_PATHS = ("/api/", "/v1/", "/tgi/", "/generate/", "/generate_stream/", "/info/", "/schema/", "/assets/")

NOT_BUILT = """<!doctype html><title>WIRTHFORGE</title><h1>The web client is not built</h1>
<p>Run <code>make client</code>; the API works without it.</p>"""


@get(["/", "/{path:path}"], include_in_schema=False)
async def page(path: FromPath[str] = "/") -> File | Response[str]:
    """A file of the client; any other path is the client's own route, so its start page."""
    if (found := _found(path)) is not None:
        return _file(found, FOREVER if path.startswith("/assets/") else ALWAYS_ASK)
    if f"{path}/".startswith(PROGRAM_PATHS):
        raise NotFound("There is nothing at this address.")
    return _page("index.html")


@get("/docs", include_in_schema=False)
async def api_docs(
    request: Request[Any, Any, Any], authentication: NamedDependency[Authentication]
) -> File | Response[str] | Redirect:
    """The API's documentation, readable offline, for whoever is logged in; others are led to the log-in page."""
    if await authentication.find(request) is None:
        return Redirect("/login?next=%2Fdocs", status_code=303, headers={"Cache-Control": "no-store"})
    return _page("docs.html")


def _found(path: str) -> Path | None:
    """The client's file at this path, and no other file."""
    try:
        found = (STATIC / path.lstrip("/")).resolve()
        return found if found.is_file() and found.is_relative_to(STATIC.resolve()) else None
    except (ValueError, OSError):
        return None  # no file could have such a name: it holds a NUL, or is too long


def _page(name: str) -> File | Response[str]:
    if not (STATIC / name).is_file():
        return Response(NOT_BUILT, status_code=503, media_type=MediaType.HTML, headers=ALWAYS_ASK)
    return _file(STATIC / name, ALWAYS_ASK)


def _file(path: Path, headers: dict[str, str]) -> File:
    return File(path, content_disposition_type="inline", filename=path.name, headers=headers)
