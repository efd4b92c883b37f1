"""Where a provider may be: behind https, or on this very machine."""

import ipaddress
from urllib.parse import urlsplit

from server.engines.addresses import METADATA_HOSTS, is_metadata
from server.engines.kinds import HOST
from server.errors import InvalidRequest


def check_url(url: str) -> None:
    """Refuse what no provider is behind. What the host's name stands for is checked at each connection (client.py).

    Raises:
        InvalidRequest: it is no URL, has a password in it, or http:// to another machine.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        raise _wrong("cannot be read") from None
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise _wrong("has plain characters only")
    if parts.scheme not in {"http", "https"} or not HOST.fullmatch(host) or port == 0:
        raise _wrong("begins with https:// and a host")
    if parts.query or parts.fragment:
        raise _wrong("has no ? and no #")
    if "@" in parts.netloc:
        raise _wrong("is for all admins to read: give the provider an api_key")
    if host in METADATA_HOSTS or is_metadata(host):
        raise _wrong("must not be an address of a cloud's metadata service")
    if parts.scheme == "http" and not is_loopback(host):
        raise _wrong("begins with https://: what leaves this box is encrypted")


def is_loopback(host: str) -> bool:
    """Whether a host, as an address or as `localhost`, is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wrong(why: str) -> InvalidRequest:
    return InvalidRequest(f"The URL of a provider {why}.", param="url")
