"""As what an address counts, where something is counted for each of them.

Whoever has IPv6 has a whole /64 at least (RFC 6177, section 2), and can take another address of it for every attempt;
so such a network counts as one. IPv4 inside of IPv6 (`::ffff:192.0.2.7`) is IPv4.
"""

from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network

NETWORK_BITS = 64
# A proxy may put anything into X-Forwarded-For; what is no address counts as it stands.
TEXT_LENGTH_MAX = 100


def counted_as(address: str) -> str:
    """The address itself, the network of an IPv6 address, or the text as it is."""
    try:
        return str(IPv4Address(address))
    except AddressValueError:
        pass
    try:
        wide = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address[:TEXT_LENGTH_MAX]
    if wide.ipv4_mapped is not None:
        return str(wide.ipv4_mapped)
    return str(IPv6Network((wide, NETWORK_BITS), strict=False))
