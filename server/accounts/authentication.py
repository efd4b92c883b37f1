"""From a connection to a principal: an API key in the Authorization header, or the cookie of a login session.

The cookie has two names. Over https it is `__Host-…`, which browsers take only from this very host and with Secure, so
that no neighbour below the same domain and nobody on an unprotected line can plant one (RFC 6265bis, section 4.1.3.2).
Over plain http browsers would not take that name; there it is the other, which nobody heeds over https.
"""

from litestar.connection import ASGIConnection

from server.accounts.access import Access, Epoch
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.refusals import Refusals
from server.accounts.secrets import digest
from server.errors import NotAllowed, NotAuthenticated
from server.messages import Principal

COOKIE = "wirthforge_session"
SECURE_COOKIE = f"__Host-{COOKIE}"


class Authentication:
    """Knows both ways of saying who one is."""

    def __init__(self, keys: ApiKeys, logins: Logins, access: Access, refusals: Refusals) -> None:
        self._keys = keys
        self._logins = logins
        self._access = access
        self._refusals = refusals
        self._epoch: Epoch | None = None
        # By the digest of the credential; of this epoch.
        self._remembered: dict[bytes, Principal] = {}

    async def find(self, connection: ASGIConnection) -> Principal | None:  # type: ignore[type-arg]
        """Who is asking, or None. A key counts before a cookie: whoever sends one means it.

        Raises:
            NotAuthenticated: there is a key and it is not good.
            TooMany: too much was wrong of what came from this address, and this is not known as good.
        """
        if header := connection.headers.get("authorization", ""):
            scheme, _, key = header.partition(" ")
            principal = None
            if scheme.lower() == "bearer":
                async with self._refusals.attempt(address_of(connection), key.strip()) as attempt:
                    principal = await self._keys.principal(key.strip())
                    attempt.is_good = principal is not None
            if principal is None:
                raise NotAuthenticated(
                    "This API key is not known, was revoked, or has expired.", code="invalid_api_key"
                )
            return principal
        token = connection.cookies.get(cookie_name(connection))
        if not token:
            return None
        async with self._refusals.attempt(address_of(connection), token) as attempt:
            principal = await self._logins.principal(token)
            attempt.is_good = principal is not None
        return principal

    async def require(self, connection: ASGIConnection) -> Principal:  # type: ignore[type-arg]
        """Who is asking. Raises NotAuthenticated when nobody known does, TooMany as `find` does."""
        principal = await self.find(connection)
        if principal is None:
            raise NotAuthenticated(
                "Log in, or send an API key as `Authorization: Bearer wf-…`.", code="not_authenticated"
            )
        return principal

    async def recall(self, connection: ASGIConnection) -> Principal:  # type: ignore[type-arg]
        """Who is asking, from memory where nothing has changed; for requests that the ledger admits, since it knows.

        Raises NotAuthenticated and TooMany.
        """
        epoch = await self._access.epoch()
        if self._epoch is not epoch:
            self._epoch, self._remembered = epoch, {}
        remembered = self._remembered
        credential = connection.headers.get("authorization") or connection.cookies.get(cookie_name(connection)) or ""
        name = digest(credential)
        principal = remembered.get(name)
        if principal is None:
            principal = remembered[name] = await self.require(connection)
        return principal


def is_secure(connection: ASGIConnection) -> bool:  # type: ignore[type-arg]
    """Whether the browser came by https, as far as the server or a proxy that it trusts can tell."""
    return connection.scope["scheme"] in {"https", "wss"}


def cookie_name(connection: ASGIConnection) -> str:  # type: ignore[type-arg]
    """The name of the session's cookie on this line."""
    return SECURE_COOKIE if is_secure(connection) else COOKIE


def address_of(connection: ASGIConnection) -> str:  # type: ignore[type-arg]
    """Where the request comes from: the peer, or whom a proxy that is trusted names; empty on a Unix socket."""
    return connection.client.host if connection.client else ""


def require_admin(principal: Principal) -> Principal:
    """The principal again, if it may administer. Raises NotAllowed."""
    if principal.role != "admin":
        raise NotAllowed("Only an admin may do this.", code="admin_only")
    return principal
