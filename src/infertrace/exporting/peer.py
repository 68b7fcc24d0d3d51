"""Which user is at the other end of a Unix socket, as the kernel says."""

from __future__ import annotations

import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_UCRED: Final = struct.Struct("=iII")  # process id, user, group. Source: unix(7)
_XUCRED: Final = struct.Struct("=IIh")  # version, user, number of groups. Source: unix(4) of macOS
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_XUCRED_BYTES: Final = 76


def peer_user(connection: socket.socket) -> int | None:
    """The effective user id of who connected, or of who listened; None where nobody can tell."""
    if sys.platform == "linux":
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(found)[1])
    if sys.platform in ("darwin", "freebsd"):
        found = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        return int(_XUCRED.unpack_from(found)[1])
    return None  # then the directory's owner and mode say it alone


def peer_pid(connection: socket.socket) -> int:
    """The process that connected; 0 where nobody can tell."""
    if sys.platform == "linux":
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(found)[0])
    return 0
