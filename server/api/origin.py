"""Keeps other sites' pages from acting with a visitor's cookie (cross-site request forgery).

Browsers say where a request comes from: `Sec-Fetch-Site` where the connection is trustworthy, `Origin` on everything
that changes something. A request that says it comes from another site is refused; one that says nothing comes from a
program, which has no visitor's cookie. No token is needed, and log-in is protected like everything else (OWASP's
cheat sheet on CSRF calls this "Fetch Metadata"). The session cookie is SameSite=Lax as a second wall.
"""

from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from server.errors import NotAllowed

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginCheck:
    """The middleware.

    Args:
        public_url: how browsers reach the server, where a proxy changes the Host header.
    """

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public_host = urlsplit(public_url).netloc.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise NotAllowed."""
        if not self._is_ours(scope):
            raise NotAllowed("This request comes from another site's page.", code="cross_site_request")
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        if scope["type"] == ScopeType.HTTP and scope["method"] in SAFE_METHODS:
            return True
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if b"authorization" in headers:
            return True  # a key, not a cookie, says who it is
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            return site in {"same-origin", "none"}
        origin = headers.get(b"origin")
        if origin is None:
            return True
        try:
            host = urlsplit(origin).netloc.lower()
        except ValueError:
            return False  # no browser sends this
        return bool(host) and host in {headers.get(b"host", "").lower(), self._public_host}
