"""From a connection to a principal: an API key in the Authorization header, or the cookie of a login session."""

from litestar.connection import ASGIConnection

from server.accounts.access import Access, Epoch
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.secrets import digest
from server.errors import NotAllowed, NotAuthenticated
from server.messages import Principal

COOKIE = "wirthforge_session"


class Authentication:
    """Knows both ways of saying who one is."""

    def __init__(self, keys: ApiKeys, logins: Logins, access: Access) -> None:
        self._keys = keys
        self._logins = logins
        self._access = access
        self._epoch: Epoch | None = None
        # By the digest of the credential; of this epoch.
        self._remembered: dict[bytes, Principal] = {}

    async def find(self, connection: ASGIConnection) -> Principal | None:  # type: ignore[type-arg]
        """Who is asking, or None. A key counts before a cookie: whoever sends one means it.

        Raises:
            NotAuthenticated: there is a key and it is not good.
        """
        header = connection.headers.get("authorization", "")
        if header:
            scheme, _, key = header.partition(" ")
            principal = await self._keys.principal(key.strip()) if scheme.lower() == "bearer" else None
            if principal is None:
                raise NotAuthenticated(
                    "This API key is not known, was revoked, or has expired.", code="invalid_api_key"
                )
            return principal
        token = connection.cookies.get(COOKIE)
        return await self._logins.principal(token) if token else None

    async def require(self, connection: ASGIConnection) -> Principal:  # type: ignore[type-arg]
        """Who is asking. Raises NotAuthenticated when nobody known does."""
        principal = await self.find(connection)
        if principal is None:
            raise NotAuthenticated(
                "Log in, or send an API key as `Authorization: Bearer wf-…`.", code="not_authenticated"
            )
        return principal

    async def recall(self, connection: ASGIConnection) -> Principal:  # type: ignore[type-arg]
        """Who is asking, from memory where nothing has changed; for requests that the ledger admits, since it knows.

        Raises NotAuthenticated.
        """
        epoch = await self._access.epoch()
        if self._epoch is not epoch:
            self._epoch, self._remembered = epoch, {}
        remembered = self._remembered
        credential = connection.headers.get("authorization") or connection.cookies.get(COOKIE) or ""
        name = digest(credential)
        principal = remembered.get(name)
        if principal is None:
            principal = remembered[name] = await self.require(connection)
        return principal


def require_admin(principal: Principal) -> Principal:
    """The principal again, if it may administer. Raises NotAllowed."""
    if principal.role != "admin":
        raise NotAllowed("Only an admin may do this.", code="admin_only")
    return principal
