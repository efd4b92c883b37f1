"""Closing a port so that nobody who has knocked is turned away.

Theory of operation. When a listening socket is closed, the kernel resets whoever has connected and was not accepted
yet, though their request may have been sent already; a careful proxy does not send such a request again. So the socket
is first made deaf to new connections only (a filter drops packets with SYN; handshakes that have begun go on), then
everybody at the door is let in, by the loop that does so anyway, and only then it is closed. A client whose SYN was
dropped sends it again a second later, finds the port closed, and knows that it has sent nothing: every proxy then tries
another server.

The filter is classic BPF (Linux, Documentation/networking/filter.rst), which needs no rights. For TCP it sees the
packet from its TCP header on (net/ipv4/tcp_ipv4.c, `tcp_filter`). Where there is none (macOS, gVisor) the port is
closed at once, as any server does it.
"""

import ctypes
import socket
import struct
import sys
from contextlib import suppress

from server.clock import Clock

# asm-generic/socket.h
SO_ATTACH_FILTER = 26
# How long those at the door may take to come in and say what they want.
COME_IN_MS = 50
# code, jump if true, jump if false, operand: load the flags of the TCP header; if SYN is among them, drop the packet.
_FLAGS_AT, _SYN = 13, 0x02
_DEAF = b"".join(
    struct.pack("=HBBI", *step)
    for step in (
        (0x30, 0, 0, _FLAGS_AT),
        (0x45, 0, 1, _SYN),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFF_FFFF),
    )
)
_STEPS = len(_DEAF) // 8


async def let_in(listening: socket.socket, clock: Clock) -> None:
    """Return when those who have connected are inside, and nobody else will be. The socket is then to be closed."""
    if _deafen(listening):
        await clock.sleep_ms(COME_IN_MS)


def _deafen(listening: socket.socket) -> bool:
    """Drop new connections; false where that cannot be done."""
    if sys.platform != "linux":
        return False
    steps = ctypes.create_string_buffer(_DEAF, len(_DEAF))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", _STEPS, ctypes.addressof(steps)))
        return True
    return False
