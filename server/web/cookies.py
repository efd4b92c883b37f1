"""The cookie of a login session: no script reads it, no other site's form sends it, and over https nothing else can.

Whether it is https is what the request says, or a proxy that is trusted (`trusted_proxies`, X-Forwarded-Proto).
"""

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from server.accounts.authentication import cookie_name, is_secure

# As long as browsers keep a cookie: when a session ends, its row says, which use prolongs.
COOKIE_S = 400 * 24 * 3600


def session_cookie(connection: ASGIConnection, token: str) -> Cookie:  # type: ignore[type-arg]
    """The cookie that holds a session's token."""
    return _cookie(connection, token, COOKIE_S)


def ended_cookie(connection: ASGIConnection) -> Cookie:  # type: ignore[type-arg]
    """The cookie that takes it away again; browsers heed it only if it is like the other in all else."""
    return _cookie(connection, "", 0)


def _cookie(connection: ASGIConnection, value: str, max_age_s: int) -> Cookie:  # type: ignore[type-arg]
    return Cookie(
        cookie_name(connection),
        value=value,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_secure(connection),
        max_age=max_age_s,
    )
