"""Addresses at which no engine lives: clouds answer there, to every machine, with its secrets.

An admin's URL is checked when it is written (kinds.py), and what its host's name stands for whenever a connection is
opened: a name may stand for something else tomorrow. The connection goes to the very addresses that were checked.
"""

import ipaddress
import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

# Where clouds answer every machine with its secrets; no engine lives there.
METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
METADATA_NETWORKS = tuple(
    map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "192.0.0.192/32"))
)
# IPv6 networks that hold an IPv4 address in their last bits: mapped, compatible (RFC 4291), NAT64 (RFC 6052).
HOLDS_IPV4 = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))


def is_metadata(address: str) -> bool:
    """Whether an IP address, however it is written, belongs to link-local or metadata networks."""
    try:
        ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        try:
            # Numbers, octal and hexadecimal, as the system's resolver reads them.
            ip = ipaddress.IPv4Address(socket.inet_aton(address))
        except (OSError, ValueError):
            return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour is not None:
            ip = ip.sixtofour
        elif any(ip in network for network in HOLDS_IPV4):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return any(ip in network for network in METADATA_NETWORKS if network.version == ip.version)


class CheckedResolver(AbstractResolver):
    """The system's resolver, without addresses of metadata services.

    Args:
        resolver: asked once for each connection; ThreadedResolver by default.
    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError where one of them is not to be spoken to."""
        found = await self._resolver.resolve(host, port, family)
        if any(is_metadata(each["host"]) for each in found):
            raise OSError(None, "The host stands for an address of the cloud's metadata service.")
        return found

    async def close(self) -> None:
        """Let go of the resolver."""
        await self._resolver.close()
